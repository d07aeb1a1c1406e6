"""A page that needs nothing but itself: a template, a style sheet in it, and a policy that lets nothing else in."""

from __future__ import annotations

import base64
import hashlib
import re
from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

_HERE = Path(__file__).parent


def page(template: str, styles: tuple[str, ...], **shown: object) -> str:
    """HTML without a script or a request, with these style sheets inside; text that is shown is escaped."""
    style = "\n".join((_HERE / name).read_text(encoding="utf-8") for name in styles)
    return _environment().get_template(template).render(style=Markup(style), style_hash=_hash(style), **shown)


def breakable(words: str | Markup) -> Markup:
    """Text in which a long path may go on in the next line after a slash or an underscore; markup stays as it is.

    >>> breakable("Fruit/Apple & Pear")
    Markup('Fruit/<wbr>Apple &amp; Pear')
    """
    if isinstance(words, Markup):
        return words
    return Markup(re.sub(r"([/_])(?=\w)", r"\1<wbr>", str(escape(words))))


@cache
def _environment() -> Environment:
    loader = FileSystemLoader(_HERE)
    made = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    made.filters["breakable"] = breakable
    return made


def _hash(style: str) -> str:
    """What the page's own security policy knows its style sheet by."""
    return base64.b64encode(hashlib.sha256(style.encode()).digest()).decode("ascii")
