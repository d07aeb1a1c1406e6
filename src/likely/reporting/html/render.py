"""ReportContent -> one HTML page that needs nothing but itself."""

from __future__ import annotations

from itertools import groupby

from likely.evaluation.summary import metric_tiles
from likely.reporting.formatting import likelihood_phrase
from likely.reporting.html.caveats import caveats
from likely.reporting.html.content import ReportContent
from likely.reporting.html.page import page
from likely.reporting.html.sections import sections
from likely.reporting.html.sections.images import class_samples


def render(content: ReportContent) -> str:
    """The report as HTML: no script, no request, images and styles inside; text from the content is escaped."""
    shown = sections(content)
    figures = content.metrics
    return page(
        "template.html",
        ("style.css",),
        header=content.header,
        evidence=likelihood_phrase(content.header.likelihood_type),
        portraits=class_samples(content),
        headlines=()
        if figures is None
        else metric_tiles(figures, content.header.likelihood_type, len(content.class_names)),
        concerns=caveats(content),
        groups=[(group.value, list(members)) for group, members in groupby(shown, key=lambda section: section.chapter)],
    )
