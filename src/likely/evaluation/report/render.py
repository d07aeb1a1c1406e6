"""ReportContent -> one HTML page that needs nothing but itself."""

from __future__ import annotations

import base64
import hashlib
import re
from functools import cache
from itertools import groupby
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from likely.evaluation.figures import headlines
from likely.evaluation.phrases import evidence_phrase
from likely.evaluation.report.concerns import concerns
from likely.evaluation.report.content import ReportContent
from likely.evaluation.report.sections import sections
from likely.evaluation.report.sections.pictures import portraits

_HERE = Path(__file__).parent


def render(content: ReportContent) -> str:
    """The report as HTML: no script, no request, images and styles inside; text from the content is escaped."""
    style = _style()
    shown = sections(content)
    figures = content.figures
    return (
        _environment()
        .get_template("template.html")
        .render(
            header=content.header,
            evidence=evidence_phrase(content.header.evidence),
            portraits=portraits(content),
            headlines=() if figures is None else headlines(figures, content.header.evidence, len(content.class_names)),
            concerns=concerns(content),
            groups=[(group, list(members)) for group, members in groupby(shown, key=lambda section: section.group)],
            style=Markup(style),
            style_hash=_hash(style),
        )
    )


@cache
def _environment() -> Environment:
    loader = FileSystemLoader(_HERE)
    made = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    made.filters["breakable"] = breakable
    return made


def breakable(words: str | Markup) -> Markup:
    """Text in which a long path may go on in the next line after a slash or an underscore; markup stays as it is.

    >>> breakable("Fruit/Apple & Pear")
    Markup('Fruit/<wbr>Apple &amp; Pear')
    """
    if isinstance(words, Markup):
        return words
    return Markup(re.sub(r"([/_])(?=\w)", r"\1<wbr>", str(escape(words))))


@cache
def _style() -> str:
    return (_HERE / "style.css").read_text(encoding="utf-8")


def _hash(style: str) -> str:
    """What the page's own security policy knows its one style sheet by."""
    return base64.b64encode(hashlib.sha256(style.encode()).digest()).decode("ascii")
