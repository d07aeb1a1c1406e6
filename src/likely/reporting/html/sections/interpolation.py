"""How the model gets from one class to another."""

from __future__ import annotations

from collections.abc import Sequence

from likely.evaluation.interpolation import Segment
from likely.reporting.html.blocks import Chapter, ImageGrid, ReportImage, Section
from likely.reporting.html.images import row

_EDGE = 56
_STRIP_LENGTH = 6  # what fits a phone's width


def interpolation(segments: Sequence[Segment]) -> Section | None:
    """The section on walks, a row for each leg; None if there are none."""
    if not segments:
        return None
    lead = (
        "Walks from an image that the model drew to another, step by step. Where each step could be an image too, the model "
        "has learned what varies; where one image only fades while another appears, it knows the two and nothing between."
    )
    rows = tuple((_name(leg), _pictures(leg)) for leg in segments)
    return Section(Chapter.IMAGES, "walks", "From one to another", lead, (ImageGrid(rows),))


def _name(leg: Segment) -> str:
    return leg.start if leg.start == leg.end else f"{leg.start} → {leg.end}"


def _pictures(leg: Segment) -> tuple[ReportImage, ...]:
    parts = [leg.images[start : start + _STRIP_LENGTH] for start in range(0, len(leg.images), _STRIP_LENGTH)]
    alt = f"Steps on a walk from {leg.start} to {leg.end}"
    return tuple(row(part, alt, _EDGE) for part in parts)
