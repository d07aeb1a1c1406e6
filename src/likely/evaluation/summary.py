"""The figures of one evaluation, and the headline that the report and the card make of them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from likely.base import LikelihoodKind, LikelihoodType
from likely.evaluation.metrics import Interval, clopper_pearson
from likely.reporting.formatting import interval, number, percent, plural, rate


@dataclass(frozen=True)
class RejectionMetrics:
    """What the answers did at one false-alarm rate: counts among the n known images of the test."""

    alpha: float
    n_rejected: int
    n_ambiguous: int


@dataclass(frozen=True)
class OODMetrics:
    """How n images of no known class fared; `source` says where they are from."""

    source: str
    n: int
    n_rejected: int
    auroc: float
    fpr_at_95_tpr: float


@dataclass(frozen=True)
class GroupMetrics:
    """How many images were put into the right one of the groups that classes lie in, at one depth."""

    n_groups: int
    n_correct: int


@dataclass(frozen=True)
class Metrics:
    """One evaluation in numbers, of n images of a `part` of the data; None where there is no such figure."""

    n: int
    n_correct: int
    balanced_accuracy: float
    nll: float
    ece: float
    brier: float
    skipped: int = 0
    bits_per_dim: float | None = None
    images_per_second: float | None = None
    rejection: RejectionMetrics | None = None
    unknown: OODMetrics | None = None
    split: str = "test"
    coarse: tuple[GroupMetrics, ...] = ()

    @property
    def accuracy(self) -> float:
        return self.n_correct / self.n

    @property
    def accuracy_interval(self) -> Interval:
        return clopper_pearson(self.n_correct, self.n)


class MetricTile(NamedTuple):
    """One figure as it is shown: what it is, its value, and how to read it."""

    label: str
    value: str
    note: str


def metric_tiles(metrics: Metrics, likelihood_type: LikelihoodType | None, n_classes: int) -> tuple[MetricTile, ...]:
    """The figures in the order in which one asks for them."""
    return (
        *_answers(metrics, n_classes),
        _bits(metrics, likelihood_type),
        *_rejection(metrics),
        *_unknown(metrics.unknown),
        *_speed(metrics.images_per_second),
    )


def _answers(figures: Metrics, n_classes: int) -> Iterator[MetricTile]:
    sure = interval(figures.accuracy_interval)
    yield MetricTile(
        "Accuracy", percent(figures.accuracy), f"of {plural(figures.n, f'{figures.split} image')}; 95% interval {sure}"
    )
    for level in figures.coarse:
        yield MetricTile(
            "Coarse accuracy",
            percent(level.n_correct / figures.n),
            f"of the {level.n_groups} groups that classes lie in",
        )
    yield MetricTile("Balanced accuracy", percent(figures.balanced_accuracy), "every class counts the same")
    guess = f"a blind guess has {math.log(n_classes):.2f}"
    yield MetricTile("Log loss", number(figures.nll), f"nats per image; lower is better, {guess}")
    yield MetricTile("Calibration error", percent(figures.ece), "mean gap between confidence and accuracy; 0 is honest")


def _bits(figures: Metrics, evidence: LikelihoodType | None) -> MetricTile:
    if figures.bits_per_dim is not None and evidence is not None and evidence.has_bits_per_dim:
        bound = "at most this" if evidence.kind is LikelihoodKind.LOWER_BOUND else "exact"
        return MetricTile("Bits/dim", number(figures.bits_per_dim, 2), f"{bound}, per pixel value; 8 without a model")
    if evidence is None:
        return MetricTile("Bits/dim", "–", "not a generative model")
    if evidence.kind is LikelihoodKind.UNNORMALIZED:
        return MetricTile("Bits/dim", "–", "not a normalized likelihood")
    return MetricTile("Bits/dim", "–", "a likelihood of features, not of pixels")


def _rejection(figures: Metrics) -> Iterator[MetricTile]:
    rejection = figures.rejection
    if rejection is None:
        return
    sure = interval(clopper_pearson(rejection.n_rejected, figures.n))
    promise = f"known images called unknown; promised {rejection.alpha * 100:g}%, 95% interval {sure}"
    yield MetricTile("False alarms", percent(rejection.n_rejected / figures.n), promise)
    yield MetricTile("Ambiguous", percent(rejection.n_ambiguous / figures.n), "images that more than one class fits")


def _unknown(unknown: OODMetrics | None) -> Iterator[MetricTile]:
    if unknown is None:
        return
    caught = f"of {plural(unknown.n, 'image')} from {unknown.source}"
    yield MetricTile("Unknown caught", percent(unknown.n_rejected / unknown.n), caught)
    yield MetricTile("AUROC", number(unknown.auroc), "telling known from unknown: 0.5 is chance, 1 is always right")
    at_95 = "known images refused when 95% of the unknown are caught"
    yield MetricTile("FPR at 95% TPR", percent(unknown.fpr_at_95_tpr), at_95)


def _speed(images_per_second: float | None) -> Iterator[MetricTile]:
    if images_per_second is not None:
        yield MetricTile("Speed", rate(images_per_second), "images a second on the machine named below")
