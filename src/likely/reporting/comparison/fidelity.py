"""Whether the figures of likeness may stand in one table: all of a seed must be measured alike, or there is none."""

from __future__ import annotations

from likely.evaluation.fidelity import Fidelity, difference, require_comparable
from likely.exceptions import IncomparableError
from likely.reporting.comparison.content import Comparison


def measurements(comparison: Comparison) -> dict[int, list[Fidelity]]:
    """Every measurement of likeness, by its seed."""
    found: dict[int, list[Fidelity]] = {}
    for result in comparison.results:
        if result.fidelity is not None:
            found.setdefault(result.seed, []).append(result.fidelity)
    return found


def incomparability(comparison: Comparison) -> str | None:
    """Why there is no table of likeness, in a sentence; None if there is one."""
    groups = measurements(comparison)
    if not groups:
        return "No family was measured that draws images."
    try:
        for first, *others in groups.values():
            for other in others:
                require_comparable(first, other)
    except IncomparableError as error:
        return f"There is no table of likeness: {error}"
    return None


def between_seeds(comparison: Comparison) -> str | None:
    """Why the figures of one seed are not those of another, in a sentence; None if all may be compared.

    Data without a test part of their own are cut anew with every seed, so that each has its own real images.
    """
    firsts = [group[0] for group in measurements(comparison).values()]
    return next((why for other in firsts[1:] if (why := difference(firsts[0], other)) is not None), None)


def is_one_table(comparison: Comparison) -> bool:
    """Whether all the figures may be compared, those of different seeds as well."""
    return incomparability(comparison) is None and between_seeds(comparison) is None
