"""Trainings on other splits of the same images: how much a figure owes to chance (repeated random sub-sampling)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean, stdev
from typing import NamedTuple

from pydantic import Field

from likely.evaluation.evaluate import EvaluationResult
from likely.options import Options

LEVEL = 0.95
METRICS = ("accuracy", "nll", "ece", "bits_per_dim", "false_alarm_rate")


class RepeatResult(Options):
    """One training, measured on images that it never saw."""

    seed: int = Field(description="Of the split, the weights and everything else.")
    n_train: int = Field(description="Training images.")
    n_test: int = Field(description="Images set aside and measured on.")
    accuracy: float
    nll: float
    ece: float
    bits_per_dim: float | None
    false_alarm_rate: float | None

    @classmethod
    def from_result(cls, found: EvaluationResult, seed: int, n_train: int) -> RepeatResult:
        figures = found.as_json()
        return cls(seed=seed, n_train=n_train, n_test=len(found.labels), **{name: figures[name] for name in METRICS})


class ResampledEstimate(NamedTuple):
    """A figure over trials: mean, standard deviation, and the interval that holds its expectation with 95 % confidence."""

    mean: float
    deviation: float
    low: float
    high: float


def resampled_estimate(values: Sequence[float], n_train: int, n_test: int) -> ResampledEstimate:
    """mean ± t √((1/R + n_test / n_train) s²) of R trials (Nadeau & Bengio 2003, Inference for the Generalization Error).

    Trials share images, so their mean varies more than that of R independent ones would: hence the second term.
    """
    R, mean, deviation = len(values), fmean(values), stdev(values)
    half = _student(R - 1) * deviation * math.sqrt(1 / R + n_test / n_train)
    return ResampledEstimate(mean, deviation, mean - half, mean + half)


def resampled_estimates(repeats: Sequence[RepeatResult]) -> dict[str, ResampledEstimate]:
    """Every figure that all trials have, over two trials or more."""
    if len(repeats) < 2:
        return {}
    n_train, n_test = (round(fmean(getattr(trial, name) for trial in repeats)) for name in ("n_train", "n_test"))
    each = {name: [getattr(trial, name) for trial in repeats] for name in METRICS}
    return {name: resampled_estimate(values, n_train, n_test) for name, values in each.items() if None not in values}


def _student(freedom: int) -> float:
    from scipy.stats import t

    return float(t.ppf((1 + LEVEL) / 2, freedom))
