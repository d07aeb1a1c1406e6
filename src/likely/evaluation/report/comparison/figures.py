"""The figures of a comparison: how each is found in a result, how it is written, and the tables that they make.

A family's figure is its mean over the seeds, with a range: over several seeds from the least to the most, and for a single
one its 95% interval where it has one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from likely.contract import EvidenceKind
from likely.evaluation.fidelity import Fidelity
from likely.evaluation.metrics import Interval, clopper_pearson
from likely.evaluation.phrases import distance, number, percent, rate
from likely.evaluation.report.comparison.content import Comparison, Cost, Quality, Result

Value = Callable[[Result], float | None]


def _nowhere(result: Result) -> Interval | None:
    return None


@dataclass(frozen=True)
class Figure:
    """One column: its title, its value in a result, how a value is written, and which is better: the `most`, the `least`."""

    title: str
    value: Value
    words: Callable[[float], str]
    better: str = ""
    bounds: Callable[[Result], Interval | None] = _nowhere
    sign: Callable[[Result], str] = lambda result: ""


class Cell(NamedTuple):
    """A figure as it is written, its range or nothing, and whether it is the best of its column."""

    words: str
    range: str = ""
    is_best: bool = False


class Row(NamedTuple):
    """A line of a table: the family, its seed or over how many seeds, and a cell for each figure."""

    family: str
    seeds: str
    cells: tuple[Cell, ...]


def family_rows(comparison: Comparison, figures: Sequence[Figure]) -> list[Row]:
    """A row for each family, also for one that failed with every seed."""
    groups = [(family, comparison.of(family)) for family in comparison.tried]
    best = [_best(figure, [mean(figure, results) for _, results in groups]) for figure in figures]
    return [
        Row(family, _seeds(results), tuple(_cell(f, results, b) for f, b in zip(figures, best, strict=True)))
        if results
        else Row(family, "", _failed(figures))
        for family, results in groups
    ]


def seed_rows(comparison: Comparison, figures: Sequence[Figure]) -> list[Row]:
    """A row for each family and seed, also for one that failed."""
    tried = [result for family in comparison.tried for result in comparison.results if result.family == family]
    return [
        Row(r.family, f"seed {r.seed}", _failed(figures) if r.error else tuple(_cell(f, (r,), None) for f in figures))
        for r in tried
    ]


def _failed(figures: Sequence[Figure]) -> tuple[Cell, ...]:
    """The place of a family that failed; why, the concerns say."""
    return (Cell("failed"), *(Cell("") for _ in figures[1:]))


def said(rows: Sequence[Row]) -> list[Row]:
    """The rows that say something: who draws nothing has no place in a table of likeness."""
    return [row for row in rows if any(cell.words not in ("–", "") for cell in row.cells)]


def mean(figure: Figure, results: Sequence[Result]) -> float | None:
    """The mean over the results that have such a figure, None without one."""
    values = _values(figure, results)
    return float(np.mean(values)) if values else None


def spread(figure: Figure, results: Sequence[Result]) -> Interval | None:
    """From the least value to the greatest, or the one result's interval."""
    values = _values(figure, results)
    if len(results) == 1:
        return figure.bounds(results[0])
    return Interval(min(values), max(values)) if values else None


def _values(figure: Figure, results: Sequence[Result]) -> list[float]:
    return [value for result in results if (value := figure.value(result)) is not None]


def _best(figure: Figure, means: Sequence[float | None]) -> float | None:
    there = [value for value in means if value is not None]
    if len(there) < 2 or not figure.better:
        return None
    return max(there) if figure.better == "most" else min(there)


def _cell(figure: Figure, results: Sequence[Result], best: float | None) -> Cell:
    value, bounds = mean(figure, results), spread(figure, results)
    if value is None:
        return Cell("–")
    # What is written alike is equally good.
    is_best = best is not None and figure.words(value) == figure.words(best)
    return Cell(figure.sign(results[0]) + figure.words(value), _between(figure, bounds), is_best)


def _between(figure: Figure, bounds: Interval | None) -> str:
    if bounds is None:
        return ""
    low, high = (figure.words(value).removesuffix("%") for value in bounds)
    return f"{low} to {high}" if low != high else ""


def _seeds(results: Sequence[Result]) -> str:
    return f"seed {results[0].seed}" if len(results) == 1 else f"mean of {len(results)} seeds"


# --- the figures themselves -----------------------------------------------------------------------------------------


def quality(value: Callable[[Quality], float | None]) -> Value:
    return lambda result: None if result.quality is None else value(result.quality)


def cost(value: Callable[[Cost], float | None]) -> Value:
    return lambda result: None if result.cost is None else value(result.cost)


def points(share: float) -> str:
    """
    >>> points(-0.0123), points(0.004)
    ('−1.23', '+0.40')
    """
    return f"{share * 100:+.2f}".replace("-", "−")


def _accuracy_interval(result: Result) -> Interval | None:
    found = result.quality
    return None if found is None else clopper_pearson(round(found.accuracy * found.n), found.n)


def _ahead_interval(result: Result) -> Interval | None:
    found = None if result.quality is None else result.quality.ahead_interval
    return None if found is None else Interval(*found)


def _bound(result: Result) -> str:
    """A bound on the likelihood from below is one on the bits from above."""
    found = result.quality
    return "≤ " if found and (found.evidence or "").startswith(EvidenceKind.LOWER_BOUND) else ""


def _large(value: float) -> str:
    """
    >>> _large(523), _large(123456), _large(2_345_678)
    ('523', '123k', '2.35M')
    """
    if value >= 1e6:
        return f"{value / 1e6:.3g}M"
    return f"{value / 1e3:.3g}k" if value >= 1e3 else f"{value:.0f}"


ACCURACY = Figure("Accuracy", quality(lambda q: q.accuracy), lambda v: percent(v, 2), "most", bounds=_accuracy_interval)
AHEAD = Figure("Ahead of twin", quality(lambda q: q.ahead_of_twin), points, bounds=_ahead_interval)
BITS = Figure("Bits/dim", quality(lambda q: q.bits_per_dim), number, "least", sign=_bound)
ANSWERS = (
    ACCURACY,
    AHEAD,
    Figure("Balanced", quality(lambda q: q.balanced_accuracy), lambda v: percent(v, 2), "most"),
    Figure("Log loss", quality(lambda q: q.nll), lambda v: number(v, 4), "least"),
    Figure("Calib. error", quality(lambda q: q.ece), lambda v: percent(v, 2), "least"),
    Figure("Brier", quality(lambda q: q.brier), lambda v: number(v, 4), "least"),
    BITS,
    Figure("False alarms", quality(lambda q: q.false_alarm_rate), percent),
)
SPEED = Figure("Images/s", cost(lambda c: c.images_per_second), rate, "most")
COSTS = (
    SPEED,
    Figure("Of twin's", cost(lambda c: c.of_twin), lambda v: number(v, 2)),
    Figure("Answers/s", cost(lambda c: c.answers_per_second), rate, "most"),
    Figure("Size", cost(lambda c: c.n_parameters), _large),
    Figure("Minutes", cost(lambda c: c.minutes_spent), lambda v: number(v, 1 if v >= 1 else 2)),
    Figure("Epochs", cost(lambda c: c.epochs_done), rate),
    Figure("Trained/s", cost(lambda c: c.train_images_per_second), rate),
    Figure("Memory, GB", cost(lambda c: c.peak_memory_gb), lambda v: number(v, 2), "least"),
)


# --- likeness -------------------------------------------------------------------------------------------------------


def right_class(result: Result) -> float | None:
    """The share of generated images taken for their class: by the extractor, or by the twin if it knows no classes."""
    if result.fidelity is not None and result.fidelity.classes is not None:
        return result.fidelity.classes.accuracy
    return None if result.honesty is None else result.honesty.classes.accuracy


def likeness(value: Callable[[Fidelity], float | None]) -> Value:
    return lambda result: None if result.fidelity is None else value(result.fidelity)


def _copies(result: Result) -> float | None:
    return None if result.honesty is None else result.honesty.copies.share


FID = Figure("FID", likeness(lambda f: f.frechet), distance, "least")
LIKENESS = (
    FID,
    Figure("KID", likeness(lambda f: f.kernel.distance), lambda v: number(v, 4), "least"),
    Figure("Precision", likeness(lambda f: f.precision), percent, "most"),
    Figure("Recall", likeness(lambda f: f.recall), percent, "most"),
    Figure("Density", likeness(lambda f: f.density), lambda v: number(v, 2)),
    Figure("Coverage", likeness(lambda f: f.coverage), percent, "most"),
    Figure("FID in classes", likeness(lambda f: f.within.frechet), distance, "least"),
    Figure("Right class", right_class, percent),
    Figure("Copies", _copies, percent),
)


def shown(figures: Sequence[Figure], comparison: Comparison) -> tuple[Figure, ...]:
    """The first figure and all others that any result has: a column of dashes says nothing."""
    results = [result for family in comparison.measured for result in comparison.of(family)]
    return (figures[0], *(figure for figure in figures[1:] if _values(figure, results)))
