"""The HTML report of one model: ReportContent -> one self-contained page."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby

from likely.reporting.formatting import likelihood_phrase
from likely.reporting.html.blocks import Chapter, Section
from likely.reporting.html.caveats import caveats
from likely.reporting.html.content import ReportContent
from likely.reporting.html.page import page
from likely.reporting.html.sections.accuracy import accuracy_sections
from likely.reporting.html.sections.diagnostics import diagnostic_sections
from likely.reporting.html.sections.provenance import provenance_sections
from likely.reporting.html.sections.rejection import rejection_sections
from likely.reporting.html.sections.samples import class_samples, sample_sections
from likely.reporting.html.sections.training import training_curve_sections
from likely.reporting.metric_tiles import metric_tiles


def render(content: ReportContent) -> str:
    """Render the report as HTML without scripts or requests; text from the content is escaped."""
    header = content.header
    tiles = metric_tiles(content.metrics, header.likelihood_type, len(content.class_names)) if content.metrics else ()
    chapters = groupby(sections(content), key=lambda section: section.chapter)
    return page(
        "report.html",
        ("style.css",),
        header=header,
        likelihood=likelihood_phrase(header.likelihood_type),
        class_samples=class_samples(content),
        tiles=tiles,
        caveats=caveats(content),
        chapters=[(chapter.value, list(members)) for chapter, members in chapters],
    )


def sections(content: ReportContent) -> tuple[Section, ...]:
    """Return the sections by chapter, without those that lack data; `extra` sections end their chapter."""
    order = list(Chapter)
    return tuple(sorted([*_own_sections(content), *content.extra], key=lambda section: order.index(section.chapter)))


def _own_sections(content: ReportContent) -> Iterator[Section]:
    yield from accuracy_sections(content)
    yield from rejection_sections(content)
    yield from training_curve_sections(content)
    yield from sample_sections(content)
    yield from diagnostic_sections(content)
    yield from provenance_sections(content)
