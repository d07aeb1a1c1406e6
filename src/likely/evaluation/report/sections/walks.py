"""How the model gets from one class to another."""

from __future__ import annotations

from collections.abc import Sequence

from likely.evaluation.report.blocks import Group, Picture, Section, Sheet
from likely.evaluation.report.pictures import strip
from likely.evaluation.walks import Leg

_EDGE = 56
_STRIP_LENGTH = 6  # what fits a phone's width


def walks(legs: Sequence[Leg]) -> Section | None:
    """The section on walks, a row for each leg; None if there are none."""
    if not legs:
        return None
    lead = (
        "Walks from an image that the model drew to another, step by step. Where each step could be an image too, the model "
        "has learned what varies; where one image only fades while another appears, it knows the two and nothing between."
    )
    rows = tuple((_name(leg), _pictures(leg)) for leg in legs)
    return Section(Group.PICTURES, "walks", "From one to another", lead, (Sheet(rows),))


def _name(leg: Leg) -> str:
    return leg.start if leg.start == leg.end else f"{leg.start} → {leg.end}"


def _pictures(leg: Leg) -> tuple[Picture, ...]:
    parts = [leg.images[start : start + _STRIP_LENGTH] for start in range(0, len(leg.images), _STRIP_LENGTH)]
    alt = f"Steps on a walk from {leg.start} to {leg.end}"
    return tuple(strip(part, alt, _EDGE) for part in parts)
