"""Self-contained HTML pages: chapters, sections and blocks, rendered by Jinja templates with an inlined style sheet.

A block names the template macro that renders it. Templates escape all text except Markup.
"""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import ClassVar, NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

_TEMPLATES = Path(__file__).parent

Cell = str | Markup


class Chapter(StrEnum):
    """Chapters of a report, in order."""

    METRICS = "Metrics"
    IMAGES = "Generated images"
    DIAGNOSTICS = "Diagnostics"
    PROVENANCE = "Provenance"


class Chart(NamedTuple):
    """An SVG chart with its title and a caption that explains how to read it."""

    title: str
    svg: Markup
    caption: str


@dataclass(frozen=True)
class Charts:
    """Charts side by side where there is room."""

    macro: ClassVar[str] = "charts"
    charts: tuple[Chart, ...]


@dataclass(frozen=True)
class WideChart:
    """One chart at its natural size, scrolling sideways where it does not fit."""

    macro: ClassVar[str] = "wide_chart"
    chart: Chart


class Column(NamedTuple):
    """A table column: its title, and its alignment `text`, `number` or `code`."""

    title: str
    align: str = "text"


@dataclass(frozen=True)
class Table:
    """A table whose `folded` rows appear after a click; if it has no others, with the whole table."""

    macro: ClassVar[str] = "table"
    caption: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    folded: tuple[tuple[Cell, ...], ...] = ()


class ReportImage(NamedTuple):
    """An image as a data URI, `width` x `height` CSS pixels, with caption lines, the first one emphasized.

    `tiny` images are shown with visible pixels. A click opens `enlarged`, a data URI of a larger one, if it is not empty, in
    an element with `id`.
    """

    source: str
    alt: str
    width: int
    height: int
    tiny: bool
    caption: tuple[Cell, ...] = ()
    enlarged: str = ""
    id: str = ""


@dataclass(frozen=True)
class Gallery:
    """Images with captions, flowing like text."""

    macro: ClassVar[str] = "gallery"
    images: tuple[ReportImage, ...]

    @property
    def layout(self) -> str:
        """The CSS class for the width that the captions need."""
        lines = (line for image in self.images for line in image.caption)
        longest = max((len(Markup(line).striptags()) for line in lines), default=0)
        return "bare" if not longest else "brief" if longest <= 24 else "wordy"


@dataclass(frozen=True)
class ImageGrid:
    """Rows of images, each with its name."""

    macro: ClassVar[str] = "image_grid"
    rows: tuple[tuple[str, tuple[ReportImage, ...]], ...]

    @property
    def layout(self) -> str:
        """The CSS class for the number of rows: many rows form two columns."""
        return "few" if len(self.rows) <= 30 else "many"


@dataclass(frozen=True)
class DefinitionList:
    """Names and values."""

    macro: ClassVar[str] = "definition_list"
    entries: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Code:
    """Text to copy, in a monospaced font."""

    macro: ClassVar[str] = "code"
    text: str


@dataclass(frozen=True)
class Paragraph:
    """A paragraph of text."""

    macro: ClassVar[str] = "paragraph"
    text: str


Block = Charts | WideChart | Table | Gallery | ImageGrid | DefinitionList | Code | Paragraph


@dataclass(frozen=True)
class Section:
    """A section of a report.

    `anchor` is the target of links, `introduction` one or two sentences for readers new to the topic, and `subtitle` an
    optional question that the heading shows after the title.
    """

    chapter: Chapter
    anchor: str
    title: str
    introduction: str
    blocks: tuple[Block, ...]
    subtitle: str = ""


def page(template: str, styles: tuple[str, ...], **context: object) -> str:
    """Render a template to HTML without scripts or requests; text from the context is escaped."""
    style = "\n".join((_TEMPLATES / name).read_text(encoding="utf-8") for name in styles)
    return _environment().get_template(template).render(style=Markup(style), style_hash=_sha256(style), **context)


@cache
def _environment() -> Environment:
    loader = FileSystemLoader(_TEMPLATES)
    env = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    env.filters["breakable"] = _breakable
    env.filters["code"] = _code
    return env


def class_name(name: str) -> Cell:
    """Return the name of a class for a table or caption: of a nested one, the folders small and above the name.

    >>> class_name("Fruit/Pear"), class_name("Pear")
    (Markup('<small class="folders">Fruit/</small>Pear'), 'Pear')
    """
    folders, _, leaf = name.rpartition("/")
    if not folders:
        return name
    return Markup('<small class="folders">{}/</small>{}').format(_breakable(folders), _breakable(leaf))


def _breakable(text: str | Markup) -> Markup:
    """Allow line breaks after slashes and underscores, for long paths; markup stays as it is.

    >>> _breakable("Fruit/Apple & Pear")
    Markup('Fruit/<wbr>Apple &amp; Pear')
    """
    if isinstance(text, Markup):
        return text
    return Markup(re.sub(r"([/_])(?=\w)", r"\1<wbr>", str(escape(text))))


def _code(text: str) -> Markup:
    """Set text between backticks in a monospaced font.

    >>> _code("run `a < b`")
    Markup('run <code>a &lt; b</code>')
    """
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text))))


def _sha256(style: str) -> str:
    """Return the hash by which the content security policy allows the style sheet."""
    return base64.b64encode(hashlib.sha256(style.encode()).digest()).decode("ascii")
