"""Metrics of one evaluation, as plain numbers."""

from __future__ import annotations

from dataclasses import dataclass

from likely.evaluation.metrics import Interval, clopper_pearson


@dataclass(frozen=True)
class RejectionMetrics:
    """Rejected and ambiguous images among the n known test images, counted at one false-alarm rate alpha."""

    alpha: float
    n_rejected: int
    n_ambiguous: int


@dataclass(frozen=True)
class OODMetrics:
    """Detection of n out-of-distribution images, which come from `source`."""

    source: str
    n: int
    n_rejected: int
    auroc: float
    fpr_at_95_tpr: float


@dataclass(frozen=True)
class GroupMetrics:
    """Images assigned to the right group of classes, at one depth of the class hierarchy."""

    n_groups: int
    n_correct: int


@dataclass(frozen=True)
class Metrics:
    """One evaluation of n images of a `split` in numbers; None where a metric does not exist.

    Units: nll in nats per image, bits_per_dim in bits per pixel value, ece and brier in [0, 1] and [0, 2].
    """

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
