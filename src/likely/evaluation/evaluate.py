"""One evaluation: a classifier held against labeled images, and against images of no known class."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from likely.base import GenerativeModel, ImportanceWeighted, LikelihoodType
from likely.classifier import Predictor
from likely.data.dataset import LabeledImages
from likely.data.image_dataset import ImageDataset
from likely.evaluation import metrics
from likely.evaluation.metrics import Floats, Ints
from likely.evaluation.summary import GroupMetrics, Metrics, OODMetrics, RejectionMetrics
from likely.exceptions import InvalidValueError
from likely.inference.decision import ConformalOutput
from likely.inference.hierarchy import Level, levels
from likely.prediction import CalibrationScope, Status

N_TIMED = 64  # images
BOUND_SEED = 0  # of the noise in a sampled bound: the same images have the same bits/dim


@dataclass(frozen=True, eq=False)
class OODResult:
    """How images of no known class fared: their judgment, and where they are from."""

    source: str
    output: ConformalOutput


@dataclass(frozen=True, eq=False)
class EvaluationResult:
    """What a classifier said of n labeled images, and every figure that follows."""

    classes: tuple[str, ...]
    labels: Ints
    output: ConformalOutput
    likelihood_type: LikelihoodType | None
    log_evidence: Floats | None  # (n,) nats: log p(x), a true bound where the evidence is one
    n_dims: int
    seconds: float
    split: str = "test"  # what the images are called
    skipped: int = 0
    unknown: OODResult | None = None
    importance_weighted: Floats | None = None  # (n,) nats: a tighter bound on log p(x), if one was asked for

    @cached_property
    def log_posterior(self) -> Floats:
        return self.output.log_posterior.numpy()

    @cached_property
    def rejected(self) -> NDArray[np.bool_]:
        """Which images were turned away as unknown, (n,)."""
        return np.array([s is Status.UNKNOWN for s in self.output.statuses])

    @property
    def is_calibrated(self) -> bool:
        return CalibrationScope.NONE not in self.output.calibration_scope

    @property
    def bits_per_dim(self) -> float | None:
        if self.log_evidence is None:
            return None
        return metrics.bits_per_dim(self.log_evidence, self.n_dims)

    @property
    def metrics(self) -> Metrics:
        """The figures that the report and the card show."""
        ambiguous = sum(s is Status.AMBIGUOUS for s in self.output.statuses)
        rejection = RejectionMetrics(self.output.alpha, int(self.rejected.sum()), ambiguous)
        return Metrics(
            n=len(self.labels),
            n_correct=int((self.log_posterior.argmax(1) == self.labels).sum()),
            balanced_accuracy=metrics.balanced_accuracy(self.log_posterior, self.labels),
            nll=metrics.nll(self.log_posterior, self.labels),
            ece=metrics.ece(self.log_posterior, self.labels),
            brier=metrics.brier(self.log_posterior, self.labels),
            skipped=self.skipped,
            split=self.split,
            bits_per_dim=self.bits_per_dim,
            images_per_second=len(self.labels) / self.seconds,
            rejection=rejection if self.is_calibrated else None,
            unknown=self._ood_metrics() if self.unknown is not None else None,
            coarse=tuple(self._coarse(level) for level in levels(self.classes)),
        )

    def as_json(self) -> dict[str, Any]:
        """What `likely evaluate --json` prints."""
        figures, rejection = self.metrics, self.metrics.rejection
        found = {
            "n": figures.n,
            "skipped": figures.skipped,
            "accuracy": figures.accuracy,
            "balanced_accuracy": figures.balanced_accuracy,
            "nll": figures.nll,
            "ece": figures.ece,
            "brier": figures.brier,
            "bits_per_dim": figures.bits_per_dim,
            "likelihood_kind": None if self.likelihood_type is None else str(self.likelihood_type),
            "false_alarm_rate": None if rejection is None else rejection.n_rejected / figures.n,
            "alpha": self.output.alpha,
            "ambiguous_rate": None if rejection is None else rejection.n_ambiguous / figures.n,
            "images_per_second": figures.images_per_second,
            "per_class": self._per_class(),
        }
        if figures.coarse:
            found["coarse"] = [
                {"groups": level.n_groups, "accuracy": level.n_correct / figures.n} for level in figures.coarse
            ]
        if self.importance_weighted is not None:
            found["bits_per_dim_importance_weighted"] = metrics.bits_per_dim(self.importance_weighted, self.n_dims)
        if (unknown := figures.unknown) is not None:
            found |= {
                "auroc": unknown.auroc,
                "fpr_at_95_tpr": unknown.fpr_at_95_tpr,
                "unknown_rate": unknown.n_rejected / unknown.n,
            }
        return found

    def _coarse(self, level: Level) -> GroupMetrics:
        best = level.log_posterior(self.output.log_posterior).argmax(1)
        right = best == level.group[torch.from_numpy(self.labels)]
        return GroupMetrics(len(level.names), int(right.sum()))

    def _per_class(self) -> list[dict[str, Any]]:
        table = metrics.per_class(self.log_posterior, self.labels)
        return [
            {
                "label": name,
                "n": int(table.n[c]),
                "recall": _number(table.recall[c]),
                "precision": _number(table.precision[c]),
                "f1": _number(table.f1[c]),
                "false_alarms": int(self.rejected[self.labels == c].sum()) if self.is_calibrated else None,
                "calibration": self.output.calibration_scope[c].value,
            }
            for c, name in enumerate(self.classes)
        ]

    def _ood_metrics(self) -> OODMetrics:
        assert self.unknown is not None
        unknown = self.unknown.output
        # The score itself, not the p-value: a few hundred calibration images leave the p-value only as many values.
        known_scores, unknown_scores = (j.nonconformity.amin(1).numpy() for j in (self.output, unknown))
        return OODMetrics(
            source=self.unknown.source,
            n=len(unknown.statuses),
            n_rejected=sum(s is Status.UNKNOWN for s in unknown.statuses),
            auroc=metrics.auroc(-known_scores, -unknown_scores),
            fpr_at_95_tpr=metrics.fpr_at_95_tpr(-known_scores, -unknown_scores),
        )


def evaluate(
    classifier: Predictor,
    images: LabeledImages,
    *,
    alpha: float,
    skipped: int = 0,
    unknown: tuple[str, ImageDataset] | None = None,
    importance_samples: int | None = None,
) -> EvaluationResult:
    """Hold a classifier against a labeled part, and against `unknown` images (where they are from, the images).

    With `importance_samples`, log p(x) is also bounded by so many latent samples an image; a ValueError where the family
    has no such bound.
    """
    judgment, seconds = _timed(classifier, images.images, alpha)
    model = classifier.model_
    return EvaluationResult(
        classes=classifier.labels,
        labels=images.labels,
        output=judgment,
        likelihood_type=model.likelihood_type if isinstance(model, GenerativeModel) else None,
        log_evidence=_log_evidence(classifier, images.images),
        n_dims=model.task.n_dims,
        seconds=seconds,
        skipped=skipped,
        unknown=OODResult(unknown[0], classifier.conformal_output(unknown[1], alpha=alpha))
        if unknown is not None
        else None,
        importance_weighted=_importance_weighted(classifier, images.images, importance_samples)
        if importance_samples
        else None,
    )


def _timed(classifier: Predictor, images: ImageDataset, alpha: float) -> tuple[ConformalOutput, float]:
    """What is said of all images, and the seconds that it takes; where features are kept, by a few of which they are not."""
    start = time.perf_counter()
    judgment = classifier.conformal_output(images, alpha=alpha)
    seconds = time.perf_counter() - start
    if classifier.features_ is not None and classifier.features_.is_cached and len(images):
        few = images.subset(np.arange(min(N_TIMED, len(images))))
        with classifier.features_.caching(False):
            start = time.perf_counter()
            classifier.conformal_output(few, alpha=alpha)
            seconds = (time.perf_counter() - start) * len(images) / len(few)
    return judgment, seconds


def _log_evidence(classifier: Predictor, images: ImageDataset) -> Floats | None:
    """log p(x) with the noise of a sampled bound in it, where bits/dim mean something."""
    model = classifier.model_
    if not isinstance(model, GenerativeModel) or not model.likelihood_type.has_bits_per_dim:
        return None
    rng = torch.Generator(classifier.device).manual_seed(BOUND_SEED)
    return classifier.log_evidence(images, rng=rng)


def _importance_weighted(classifier: Predictor, images: ImageDataset, n_samples: int) -> Floats:
    if not isinstance(classifier.model_, ImportanceWeighted):
        raise InvalidValueError(
            f"--importance-samples: {classifier.family!r} has no bound by importance weighting; vae has one"
        )
    rng = torch.Generator(classifier.device).manual_seed(BOUND_SEED)
    return classifier.importance_weighted(images, n_samples, rng=rng)


def _number(value: float) -> float | None:
    """JSON has no NaN: a class without images has no recall."""
    return None if np.isnan(value) else float(value)
