"""What a section is made of. Whoever can say something with these blocks adds a section without touching the template.

A block names the template's macro that draws it; all text is escaped there, except Markup, which is markup already.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar, NamedTuple

from markupsafe import Markup

Cell = str | Markup


class Chapter(StrEnum):
    """The chapters of a report, in their order."""

    METRICS = "Metrics"
    IMAGES = "Samples and reconstructions"
    DIAGNOSTICS = "Diagnostics"
    PROVENANCE = "Provenance"


class Chart(NamedTuple):
    """A drawing with its title and a caption that says how to read it."""

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
    """One chart at its natural size; it scrolls sideways where it does not fit."""

    macro: ClassVar[str] = "wide_chart"
    chart: Chart


class Column(NamedTuple):
    """A column's title and `align`: text, number, or code."""

    title: str
    align: str = "text"


@dataclass(frozen=True)
class Table:
    """A table; `folded` rows wait behind a click."""

    macro: ClassVar[str] = "table"
    caption: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    folded: tuple[tuple[Cell, ...], ...] = ()


class ReportImage(NamedTuple):
    """An image as a data URI, `width` x `height` CSS pixels, with the lines to stand under it, the first one stronger.

    `tiny` says that its pixels are to be seen.
    """

    source: str
    alt: str
    width: int
    height: int
    tiny: bool
    caption: tuple[str, ...] = ()


@dataclass(frozen=True)
class Gallery:
    """Pictures that flow like words, each with its own caption."""

    macro: ClassVar[str] = "gallery"
    images: tuple[ReportImage, ...]

    @property
    def layout(self) -> str:
        """How much room the words need."""
        longest = max((len(words) for picture in self.images for words in picture.caption), default=0)
        return "bare" if not longest else "brief" if longest <= 24 else "wordy"


@dataclass(frozen=True)
class ImageGrid:
    """Rows of pictures, each row with its name."""

    macro: ClassVar[str] = "image_grid"
    rows: tuple[tuple[str, tuple[ReportImage, ...]], ...]

    @property
    def layout(self) -> str:
        """Many rows stand in two columns."""
        return "few" if len(self.rows) <= 30 else "many"


@dataclass(frozen=True)
class DefinitionList:
    """Names and values."""

    macro: ClassVar[str] = "definition_list"
    entries: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Code:
    """Something to copy."""

    macro: ClassVar[str] = "code"
    text: str


@dataclass(frozen=True)
class Paragraph:
    """A paragraph."""

    macro: ClassVar[str] = "paragraph"
    text: str


Block = Charts | WideChart | Table | Gallery | ImageGrid | DefinitionList | Code | Paragraph


@dataclass(frozen=True)
class Section:
    """A part of the report: `anchor` for links, `introduction` one or two sentences for somebody who never saw such a thing."""

    chapter: Chapter
    anchor: str
    title: str
    introduction: str
    blocks: tuple[Block, ...]
