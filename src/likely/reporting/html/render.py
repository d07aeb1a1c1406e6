"""ReportContent -> one HTML page that needs nothing but itself."""

from __future__ import annotations

from itertools import groupby

from likely.reporting.formatting import likelihood_phrase
from likely.reporting.html.caveats import caveats
from likely.reporting.html.content import ReportContent
from likely.reporting.html.page import page
from likely.reporting.html.sections import sections
from likely.reporting.html.sections.images import class_samples
from likely.reporting.metric_tiles import metric_tiles


def render(content: ReportContent) -> str:
    """The report as HTML: no script, no request, images and styles inside; text from the content is escaped."""
    shown = sections(content)
    figures = content.metrics
    return page(
        "report.html",
        ("style.css",),
        header=content.header,
        likelihood=likelihood_phrase(content.header.likelihood_type),
        class_samples=class_samples(content),
        tiles=()
        if figures is None
        else metric_tiles(figures, content.header.likelihood_type, len(content.class_names)),
        caveats=caveats(content),
        chapters=[
            (chapter.value, list(members)) for chapter, members in groupby(shown, key=lambda section: section.chapter)
        ],
    )
