"""Repeated random sub-sampling: the variation of metrics over trainings on other splits of the same images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean, stdev
from typing import NamedTuple, Self

from pydantic import Field

from likely.evaluation.evaluate import EvaluationResult
from likely.options import Options

LEVEL = 0.95
METRICS = ("accuracy", "nll", "ece", "bits_per_dim", "false_alarm_rate")


class RepeatResult(Options):
    """Metrics of one training on its own held-out images."""

    seed: int = Field(description="Seed of the split, the weights and all other randomness.")
    n_train: int = Field(description="Training images.")
    n_test: int = Field(description="Held-out images.")
    accuracy: float
    nll: float
    ece: float
    bits_per_dim: float | None
    false_alarm_rate: float | None

    @classmethod
    def from_result(cls, found: EvaluationResult, seed: int, n_train: int) -> RepeatResult:
        """Take the metrics of an evaluation."""
        values = found.as_json()
        return cls(seed=seed, n_train=n_train, n_test=len(found.labels), **{name: values[name] for name in METRICS})


class ResampledEstimate(NamedTuple):
    """Mean and standard deviation of a metric over trainings, and the 95% interval of its expectation."""

    mean: float
    deviation: float
    low: float
    high: float

    @classmethod
    def from_values(cls, values: Sequence[float], n_train: int, n_test: int) -> Self:
        """Return mean ± t √((1/R + n_test / n_train) s²) over R trainings.

        The second term accounts for the images that trainings have in common, which make them dependent (Nadeau & Bengio
        2003, Inference for the Generalization Error).
        """
        R, mean, deviation = len(values), fmean(values), stdev(values)
        half = _student_quantile(R - 1) * deviation * math.sqrt(1 / R + n_test / n_train)
        return cls(mean, deviation, mean - half, mean + half)


def resampled_estimates(repeats: Sequence[RepeatResult]) -> dict[str, ResampledEstimate]:
    """Return the estimates of all metrics that every training has; none for fewer than two trainings."""
    if len(repeats) < 2:
        return {}
    n_train, n_test = (round(fmean(getattr(repeat, name) for repeat in repeats)) for name in ("n_train", "n_test"))
    each = {name: [getattr(repeat, name) for repeat in repeats] for name in METRICS}
    return {
        name: ResampledEstimate.from_values(values, n_train, n_test)
        for name, values in each.items()
        if None not in values
    }


def _student_quantile(freedom: int) -> float:
    from scipy.stats import t

    return float(t.ppf((1 + LEVEL) / 2, freedom))
