"""Columns of comparison tables: a metric's value in a result, its format, and the rows of families and seeds.

The value of a family is the mean over its seeds, with a range: from the lowest to the highest seed, or the 95% interval of
a single seed where there is one.
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


def _no_interval(result: Result) -> Interval | None:
    return None


@dataclass(frozen=True)
class MetricColumn:
    """One column: its title, its value in a result, its format, and the better direction: `highest` or `lowest`."""

    title: str
    value: Value
    format: Callable[[float], str]
    better: str = ""
    bounds: Callable[[Result], Interval | None] = _no_interval
    sign: Callable[[Result], str] = lambda result: ""

    def values(self, results: Sequence[Result]) -> list[float]:
        """Return the values of the results that have the metric."""
        return [value for result in results if (value := self.value(result)) is not None]

    def mean(self, results: Sequence[Result]) -> float | None:
        """Return the mean over the results that have the metric; None if none has."""
        values = self.values(results)
        return float(np.mean(values)) if values else None

    def range(self, results: Sequence[Result]) -> Interval | None:
        """Return the lowest and the highest value, or the interval of a single result."""
        if len(results) == 1:
            return self.bounds(results[0])
        values = self.values(results)
        return Interval(min(values), max(values)) if values else None


class _Cell(NamedTuple):
    """A formatted value, its range or an empty string, and a flag for the best of the column."""

    text: str
    range: str = ""
    is_best: bool = False


class Row(NamedTuple):
    """A table row: the family, its seed or the number of its seeds, and one cell per column."""

    family: str
    seeds: str
    cells: tuple[_Cell, ...]


class MetricTable:
    """Rows of the columns for which any result has a value; the first column is always present.

    Rows without values are left out: the softmax baseline has no sample quality.
    """

    def __init__(self, comparison: Comparison, columns: Sequence[MetricColumn]) -> None:
        results = [result for family in comparison.measured for result in comparison.of(family)]
        self.comparison = comparison
        self.columns = (columns[0], *(column for column in columns[1:] if column.values(results)))

    def family_rows(self) -> list[Row]:
        """Return a row for each family, failed ones included."""
        groups = [(family, self.comparison.of(family)) for family in self.comparison.tried]
        best = [_best(column, [column.mean(results) for _, results in groups]) for column in self.columns]
        rows = [
            Row(family, _seeds(results), tuple(map(_cell, self.columns, [results] * len(best), best)))
            if results
            else Row(family, "", _failed(self.columns))
            for family, results in groups
        ]
        return _nonempty(rows)

    def seed_rows(self) -> list[Row]:
        """Return a row for each family and seed, failed ones included."""
        by_family = ((family, self.comparison.results) for family in self.comparison.tried)
        tried = [result for family, results in by_family for result in results if result.family == family]
        return _nonempty([Row(result.family, f"seed {result.seed}", self._seed_cells(result)) for result in tried])

    def _seed_cells(self, result: Result) -> tuple[_Cell, ...]:
        if result.error:
            return _failed(self.columns)
        return tuple(_cell(column, (result,), None) for column in self.columns)


def _failed(columns: Sequence[MetricColumn]) -> tuple[_Cell, ...]:
    return (_Cell("failed"), *(_Cell("") for _ in columns[1:]))


def _nonempty(rows: Sequence[Row]) -> list[Row]:
    return [row for row in rows if any(cell.text not in ("–", "") for cell in row.cells)]


def _best(column: MetricColumn, means: Sequence[float | None]) -> float | None:
    values = [value for value in means if value is not None]
    if len(values) < 2 or not column.better:
        return None
    return max(values) if column.better == "highest" else min(values)


def _cell(column: MetricColumn, results: Sequence[Result], best: float | None) -> _Cell:
    value, bounds = column.mean(results), column.range(results)
    if value is None:
        return _Cell("–")
    # Values that look equal are equally good.
    is_best = best is not None and column.format(value) == column.format(best)
    return _Cell(column.sign(results[0]) + column.format(value), _between(column, bounds), is_best)


def _between(column: MetricColumn, bounds: Interval | None) -> str:
    if bounds is None:
        return ""
    low, high = (column.format(value).removesuffix("%") for value in bounds)
    return f"{low} to {high}" if low != high else ""


def _seeds(results: Sequence[Result]) -> str:
    return f"seed {results[0].seed}" if len(results) == 1 else f"mean of {len(results)} seeds"


# --- predictions and costs --------------------------------------------------------------------------------------------


def _accuracy_metric(value: Callable[[AccuracyMetrics], float | None]) -> Value:
    return lambda result: None if result.accuracy is None else value(result.accuracy)


def _efficiency_metric(value: Callable[[EfficiencyMetrics], float | None]) -> Value:
    return lambda result: None if result.efficiency is None else value(result.efficiency)


def _points(fraction: float) -> str:
    """Format a difference of fractions in percentage points.

    >>> _points(-0.0123), _points(0.004)
    ('−1.23', '+0.40')
    """
    return f"{fraction * 100:+.2f}".replace("-", "−")


def _accuracy_interval(result: Result) -> Interval | None:
    found = result.accuracy
    if found is None or found.accuracy_interval is None:
        return None if found is None else clopper_pearson(round(found.accuracy * found.n), found.n)
    return Interval(*found.accuracy_interval)


def _delta_interval(result: Result) -> Interval | None:
    found = None if result.accuracy is None else result.accuracy.delta_interval
    return None if found is None else Interval(*found)


def _bound(result: Result) -> str:
    """Mark upper bounds on bits/dim, which follow from lower bounds on the likelihood."""
    found = result.accuracy
    return "≤ " if found and (found.likelihood_kind or "").startswith(LikelihoodKind.LOWER_BOUND) else ""


def _large(value: float) -> str:
    """Format a large number with a suffix.

    >>> _large(523), _large(123456), _large(2_345_678)
    ('523', '123k', '2.35M')
    """
    if value >= 1e6:
        return f"{value / 1e6:.3g}M"
    return f"{value / 1e3:.3g}k" if value >= 1e3 else f"{value:.0f}"


ACCURACY = MetricColumn(
    "Accuracy", _accuracy_metric(lambda q: q.accuracy), lambda v: percent(v, 2), "highest", bounds=_accuracy_interval
)
DELTA = MetricColumn("Δ vs. baseline", _accuracy_metric(lambda q: q.delta_vs_baseline), _points, bounds=_delta_interval)
BITS = MetricColumn("Bits/dim", _accuracy_metric(lambda q: q.bits_per_dim), number, "lowest", sign=_bound)
PREDICTIONS = (
    ACCURACY,
    DELTA,
    MetricColumn("Balanced acc.", _accuracy_metric(lambda q: q.balanced_accuracy), lambda v: percent(v, 2), "highest"),
    MetricColumn("Log loss", _accuracy_metric(lambda q: q.nll), lambda v: number(v, 4), "lowest"),
    MetricColumn("Calib. error", _accuracy_metric(lambda q: q.ece), lambda v: percent(v, 2), "lowest"),
    MetricColumn("Brier", _accuracy_metric(lambda q: q.brier), lambda v: number(v, 4), "lowest"),
    BITS,
    MetricColumn("False-alarm rate", _accuracy_metric(lambda q: q.false_alarm_rate), percent),
)
THROUGHPUT = MetricColumn("Images/s", _efficiency_metric(lambda c: c.images_per_second), rate, "highest")
COSTS = (
    THROUGHPUT,
    MetricColumn("Rel. to baseline", _efficiency_metric(lambda c: c.relative_to_baseline), lambda v: number(v, 2)),
    MetricColumn("Predictions/s", _efficiency_metric(lambda c: c.predictions_per_second), rate, "highest"),
    MetricColumn("Parameters", _efficiency_metric(lambda c: c.n_parameters), _large),
    MetricColumn("Minutes", _efficiency_metric(lambda c: c.minutes_spent), lambda v: number(v, 1 if v >= 1 else 2)),
    MetricColumn("Epochs", _efficiency_metric(lambda c: c.epochs_done), rate),
    MetricColumn("Training images/s", _efficiency_metric(lambda c: c.train_images_per_second), rate),
    MetricColumn("Peak memory, GB", _efficiency_metric(lambda c: c.peak_memory_gb), lambda v: number(v, 2), "lowest"),
)


# --- sample quality ----------------------------------------------------------------------------------------------------------


def _class_consistency(result: Result) -> float | None:
    """Return the class consistency by the extractor, or by the baseline if the extractor is no classifier."""
    if result.fidelity is not None and result.fidelity.class_consistency is not None:
        return result.fidelity.class_consistency.accuracy
    return None if result.sample_quality is None else result.sample_quality.class_consistency.accuracy


def _fidelity_metric(value: Callable[[Fidelity], float | None]) -> Value:
    return lambda result: None if result.fidelity is None else value(result.fidelity)


def _near_duplicates(result: Result) -> float | None:
    return None if result.sample_quality is None else result.sample_quality.near_duplicates.fraction


FID = MetricColumn("FID", _fidelity_metric(lambda f: f.frechet), distance, "lowest")
FIDELITY = (
    FID,
    MetricColumn("KID", _fidelity_metric(lambda f: f.kernel.distance), lambda v: number(v, 4), "lowest"),
    MetricColumn("Precision", _fidelity_metric(lambda f: f.precision), percent, "highest"),
    MetricColumn("Recall", _fidelity_metric(lambda f: f.recall), percent, "highest"),
    MetricColumn("Density", _fidelity_metric(lambda f: f.density), lambda v: number(v, 2)),
    MetricColumn("Coverage", _fidelity_metric(lambda f: f.coverage), percent, "highest"),
    MetricColumn("Intra-class FID", _fidelity_metric(lambda f: f.intra_class_fid.frechet), distance, "lowest"),
    MetricColumn("Class consistency", _class_consistency, percent),
    MetricColumn("Near-duplicates", _near_duplicates, percent),
)
