"""A comparison as one HTML page."""

from __future__ import annotations

from likely.reporting.comparison.content import Comparison
from likely.reporting.comparison.sections import chapters
from likely.reporting.comparison.summary import caveats, manner, metric_tiles, summary
from likely.reporting.html.page import page

STYLES = ("style.css", "comparison.css")


def render(comparison: Comparison) -> str:
    """The comparison as HTML: no script, no request, images and styles inside; text from the content is escaped."""
    return page(
        "comparison.html",
        STYLES,
        name=name(comparison),
        data=comparison.data,
        date=max(result.date for result in comparison.results),
        summary=summary(comparison),
        setup=manner(comparison),
        tiles=metric_tiles(comparison),
        caveats=caveats(comparison),
        chapters=chapters(comparison),
    )


def name(comparison: Comparison) -> str:
    """What the page is called: the data, without the folders that they are in."""
    return comparison.data.rstrip("/\\").replace("\\", "/").rpartition("/")[2] or comparison.data
