"""Comparability of fidelity metrics: one table requires the same extractor and the same images for all families."""

from __future__ import annotations

from likely.evaluation.fidelity import Fidelity
from likely.reporting.comparison.content import Comparison


def fidelity_by_seed(comparison: Comparison) -> dict[int, list[Fidelity]]:
    """Return the fidelity measurements of each seed."""
    found: dict[int, list[Fidelity]] = {}
    for result in comparison.results:
        if result.fidelity is not None:
            found.setdefault(result.seed, []).append(result.fidelity)
    return found


def incomparability(comparison: Comparison) -> str | None:
    """Return the reason, as a sentence, why families of one seed cannot share a fidelity table; None if they can."""
    by_seed = fidelity_by_seed(comparison)
    if not by_seed:
        return "No measured family generates images."
    pairs = ((first, other) for first, *others in by_seed.values() for other in others)
    reason = next((why for pair in pairs if (why := pair[0].difference(pair[1])) is not None), None)
    return None if reason is None else f"Fidelity metrics are not comparable: {reason}"


def difference_between_seeds(comparison: Comparison) -> str | None:
    """Return the reason, as a sentence, why fidelity metrics of different seeds cannot be averaged; None if they can.

    Data without a test split are split again for each seed, so that each seed has other real images.
    """
    firsts = [group[0] for group in fidelity_by_seed(comparison).values()]
    return next((why for other in firsts[1:] if (why := firsts[0].difference(other)) is not None), None)


def is_comparable(comparison: Comparison) -> bool:
    """Return True if all fidelity metrics can be compared, also between seeds."""
    return incomparability(comparison) is None and difference_between_seeds(comparison) is None
