"""The figures of a comparison: how each is found in a result, how it is written, and the tables that they make.

A family's figure is its mean over the seeds, with a range: over several seeds from the least to the most, and for a single
one its 95% interval where it has one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from likely.base import LikelihoodKind
from likely.evaluation.fidelity import Fidelity
from likely.evaluation.metrics import Interval, clopper_pearson
from likely.reporting.comparison.content import AccuracyMetrics, Comparison, EfficiencyMetrics, Result
from likely.reporting.formatting import distance, number, percent, rate

Value = Callable[[Result], float | None]


def _nowhere(result: Result) -> Interval | None:
    return None


@dataclass(frozen=True)
class MetricColumn:
    """One column: its title, its value in a result, how a value is written, and which is better: the `most`, the `least`."""

    title: str
    value: Value
    format: Callable[[float], str]
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


def family_rows(comparison: Comparison, columns: Sequence[MetricColumn]) -> list[Row]:
    """A row for each family, also for one that failed with every seed."""
    groups = [(family, comparison.of(family)) for family in comparison.tried]
    best = [_best(figure, [mean(figure, results) for _, results in groups]) for figure in columns]
    return [
        Row(family, _seeds(results), tuple(_cell(f, results, b) for f, b in zip(columns, best, strict=True)))
        if results
        else Row(family, "", _failed(columns))
        for family, results in groups
    ]


def seed_rows(comparison: Comparison, columns: Sequence[MetricColumn]) -> list[Row]:
    """A row for each family and seed, also for one that failed."""
    tried = [result for family in comparison.tried for result in comparison.results if result.family == family]
    return [
        Row(r.family, f"seed {r.seed}", _failed(columns) if r.error else tuple(_cell(f, (r,), None) for f in columns))
        for r in tried
    ]


def _failed(figures: Sequence[MetricColumn]) -> tuple[Cell, ...]:
    """The place of a family that failed; why, the concerns say."""
    return (Cell("failed"), *(Cell("") for _ in figures[1:]))


def footnotes(rows: Sequence[Row]) -> list[Row]:
    """The rows that say something: who draws nothing has no place in a table of likeness."""
    return [row for row in rows if any(cell.words not in ("–", "") for cell in row.cells)]


def mean(column: MetricColumn, results: Sequence[Result]) -> float | None:
    """The mean over the results that have such a figure, None without one."""
    values = _values(column, results)
    return float(np.mean(values)) if values else None


def spread(column: MetricColumn, results: Sequence[Result]) -> Interval | None:
    """From the least value to the greatest, or the one result's interval."""
    values = _values(column, results)
    if len(results) == 1:
        return column.bounds(results[0])
    return Interval(min(values), max(values)) if values else None


def _values(figure: MetricColumn, results: Sequence[Result]) -> list[float]:
    return [value for result in results if (value := figure.value(result)) is not None]


def _best(figure: MetricColumn, means: Sequence[float | None]) -> float | None:
    there = [value for value in means if value is not None]
    if len(there) < 2 or not figure.better:
        return None
    return max(there) if figure.better == "most" else min(there)


def _cell(figure: MetricColumn, results: Sequence[Result], best: float | None) -> Cell:
    value, bounds = mean(figure, results), spread(figure, results)
    if value is None:
        return Cell("–")
    # What is written alike is equally good.
    is_best = best is not None and figure.format(value) == figure.format(best)
    return Cell(figure.sign(results[0]) + figure.format(value), _between(figure, bounds), is_best)


def _between(figure: MetricColumn, bounds: Interval | None) -> str:
    if bounds is None:
        return ""
    low, high = (figure.format(value).removesuffix("%") for value in bounds)
    return f"{low} to {high}" if low != high else ""


def _seeds(results: Sequence[Result]) -> str:
    return f"seed {results[0].seed}" if len(results) == 1 else f"mean of {len(results)} seeds"


# --- the figures themselves -----------------------------------------------------------------------------------------


def quality(value: Callable[[AccuracyMetrics], float | None]) -> Value:
    return lambda result: None if result.accuracy is None else value(result.accuracy)


def cost(value: Callable[[EfficiencyMetrics], float | None]) -> Value:
    return lambda result: None if result.efficiency is None else value(result.efficiency)


def points(fraction: float) -> str:
    """
    >>> points(-0.0123), points(0.004)
    ('−1.23', '+0.40')
    """
    return f"{fraction * 100:+.2f}".replace("-", "−")


def _accuracy_interval(result: Result) -> Interval | None:
    found = result.accuracy
    return None if found is None else clopper_pearson(round(found.accuracy * found.n), found.n)


def _ahead_interval(result: Result) -> Interval | None:
    found = None if result.accuracy is None else result.accuracy.delta_interval
    return None if found is None else Interval(*found)


def _bound(result: Result) -> str:
    """A bound on the likelihood from below is one on the bits from above."""
    found = result.accuracy
    return "≤ " if found and (found.likelihood_kind or "").startswith(LikelihoodKind.LOWER_BOUND) else ""


def _large(value: float) -> str:
    """
    >>> _large(523), _large(123456), _large(2_345_678)
    ('523', '123k', '2.35M')
    """
    if value >= 1e6:
        return f"{value / 1e6:.3g}M"
    return f"{value / 1e3:.3g}k" if value >= 1e3 else f"{value:.0f}"


ACCURACY = MetricColumn(
    "Accuracy", quality(lambda q: q.accuracy), lambda v: percent(v, 2), "most", bounds=_accuracy_interval
)
DELTA = MetricColumn("Ahead of twin", quality(lambda q: q.delta_vs_baseline), points, bounds=_ahead_interval)
BITS = MetricColumn("Bits/dim", quality(lambda q: q.bits_per_dim), number, "least", sign=_bound)
PREDICTIONS = (
    ACCURACY,
    DELTA,
    MetricColumn("Balanced", quality(lambda q: q.balanced_accuracy), lambda v: percent(v, 2), "most"),
    MetricColumn("Log loss", quality(lambda q: q.nll), lambda v: number(v, 4), "least"),
    MetricColumn("Calib. error", quality(lambda q: q.ece), lambda v: percent(v, 2), "least"),
    MetricColumn("Brier", quality(lambda q: q.brier), lambda v: number(v, 4), "least"),
    BITS,
    MetricColumn("False alarms", quality(lambda q: q.false_alarm_rate), percent),
)
SPEED = MetricColumn("Images/s", cost(lambda c: c.images_per_second), rate, "most")
COSTS = (
    SPEED,
    MetricColumn("Of twin's", cost(lambda c: c.relative_to_baseline), lambda v: number(v, 2)),
    MetricColumn("Answers/s", cost(lambda c: c.predictions_per_second), rate, "most"),
    MetricColumn("Size", cost(lambda c: c.n_parameters), _large),
    MetricColumn("Minutes", cost(lambda c: c.minutes_spent), lambda v: number(v, 1 if v >= 1 else 2)),
    MetricColumn("Epochs", cost(lambda c: c.epochs_done), rate),
    MetricColumn("Trained/s", cost(lambda c: c.train_images_per_second), rate),
    MetricColumn("Memory, GB", cost(lambda c: c.peak_memory_gb), lambda v: number(v, 2), "least"),
)


# --- likeness -------------------------------------------------------------------------------------------------------


def class_consistency(result: Result) -> float | None:
    """The share of generated images taken for their class: by the extractor, or by the twin if it knows no classes."""
    if result.fidelity is not None and result.fidelity.classes is not None:
        return result.fidelity.classes.accuracy
    return None if result.sample_quality is None else result.sample_quality.class_consistency.accuracy


def fidelity(value: Callable[[Fidelity], float | None]) -> Value:
    return lambda result: None if result.fidelity is None else value(result.fidelity)


def _copies(result: Result) -> float | None:
    return None if result.sample_quality is None else result.sample_quality.near_duplicates.fraction


FID = MetricColumn("FID", fidelity(lambda f: f.frechet), distance, "least")
FIDELITY = (
    FID,
    MetricColumn("KID", fidelity(lambda f: f.kernel.distance), lambda v: number(v, 4), "least"),
    MetricColumn("Precision", fidelity(lambda f: f.precision), percent, "most"),
    MetricColumn("Recall", fidelity(lambda f: f.recall), percent, "most"),
    MetricColumn("Density", fidelity(lambda f: f.density), lambda v: number(v, 2)),
    MetricColumn("Coverage", fidelity(lambda f: f.coverage), percent, "most"),
    MetricColumn("FID in classes", fidelity(lambda f: f.intra_class_fid.frechet), distance, "least"),
    MetricColumn("Right class", class_consistency, percent),
    MetricColumn("Copies", _copies, percent),
)


def shown_columns(columns: Sequence[MetricColumn], comparison: Comparison) -> tuple[MetricColumn, ...]:
    """The first figure and all others that any result has: a column of dashes says nothing."""
    results = [result for family in comparison.measured for result in comparison.of(family)]
    return (columns[0], *(figure for figure in columns[1:] if _values(figure, results)))
