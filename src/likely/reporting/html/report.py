"""The HTML report of one model: ReportContent -> one self-contained page."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby

from likely.reporting.formatting import MISSING, likelihood_phrase
from likely.reporting.html.caveats import caveats
from likely.reporting.html.content import ReportContent
from likely.reporting.html.page import Section, page
from likely.reporting.html.sections.images import class_samples, diagnostic_sections, sample_sections
from likely.reporting.html.sections.memorization import memorization_sections
from likely.reporting.html.sections.predictions import prediction_sections
from likely.reporting.html.sections.provenance import provenance_sections
from likely.reporting.html.sections.robustness import robustness_sections
from likely.reporting.html.sections.sample_quality import sample_quality_sections
from likely.reporting.html.sections.training import training_sections
from likely.reporting.metric_tiles import metric_tiles


def render(content: ReportContent) -> str:
    """Render the report as HTML without scripts or requests; text from the content is escaped."""
    header = content.header
    tiles = metric_tiles(content.metrics, header.likelihood_type, len(content.class_names)) if content.metrics else ()
    chapters = groupby(_sections(content), key=lambda section: section.chapter)
    return page(
        "report.html",
        ("style.css",),
        header=header,
        likelihood=likelihood_phrase(header.likelihood_type),
        class_samples=class_samples(content),
        tiles=[tile for tile in tiles if tile.value != MISSING],
        caveats=caveats(content),
        chapters=[(chapter.value, list(members)) for chapter, members in chapters],
    )


def _sections(content: ReportContent) -> Iterator[Section]:
    """Yield the sections for which there are data, by chapter."""
    yield from prediction_sections(content)
    yield from training_sections(content)
    yield from robustness_sections(content)
    yield from sample_sections(content)
    yield from sample_quality_sections(content)
    yield from diagnostic_sections(content)
    yield from memorization_sections(content)
    yield from provenance_sections(content)
