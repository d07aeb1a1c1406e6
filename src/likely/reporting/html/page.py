"""Self-contained HTML pages: a Jinja template, an inlined style sheet, and a content security policy."""

from __future__ import annotations

import base64
import hashlib
import re
from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

_TEMPLATES = Path(__file__).parent


def page(template: str, styles: tuple[str, ...], **context: object) -> str:
    """Render a template to HTML without scripts or requests; text from the context is escaped."""
    style = "\n".join((_TEMPLATES / name).read_text(encoding="utf-8") for name in styles)
    return _environment().get_template(template).render(style=Markup(style), style_hash=_sha256(style), **context)


@cache
def _environment() -> Environment:
    loader = FileSystemLoader(_TEMPLATES)
    env = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    env.filters["breakable"] = _breakable
    return env


def _breakable(text: str | Markup) -> Markup:
    """Allow line breaks after slashes and underscores, for long paths; markup stays as it is.

    >>> _breakable("Fruit/Apple & Pear")
    Markup('Fruit/<wbr>Apple &amp; Pear')
    """
    if isinstance(text, Markup):
        return text
    return Markup(re.sub(r"([/_])(?=\w)", r"\1<wbr>", str(escape(text))))


def _sha256(style: str) -> str:
    """Return the hash by which the content security policy allows the style sheet."""
    return base64.b64encode(hashlib.sha256(style.encode()).digest()).decode("ascii")
