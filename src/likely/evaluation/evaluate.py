"""Evaluation of a classifier on labeled images, and on out-of-distribution images."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from likely.base import GenerativeModel, ImportanceWeighted, LikelihoodType
from likely.classifier import Predictor
from likely.data.dataset import Integers, LabeledImages, one_per_group
from likely.data.image_dataset import ImageDataset
from likely.evaluation import metrics
from likely.evaluation.metrics import Floats, GroupMetrics, Ints, Metrics, OODMetrics, RejectionMetrics
from likely.exceptions import InvalidValueError
from likely.inference.decision import ConformalOutput
from likely.inference.hierarchy import Level, levels
from likely.inference.posterior import log_evidence
from likely.prediction import CalibrationScope, Guarantee, Status

N_TIMED = 64  # images
SEED = 0  # of the noise in a sampled bound and of the image chosen of each group, so that results are reproducible


@dataclass(frozen=True, eq=False)
class _OODResult:
    """Output for out-of-distribution images, the images, and their source."""

    source: str
    images: LabeledImages
    output: ConformalOutput


@dataclass(frozen=True, eq=False)
class EvaluationResult:
    """Output of a classifier for n labeled images, and all metrics that follow from it.

    `groups` (n,) has equal numbers for images that depend on each other, if there are groups: intervals are those of
    images of new groups.
    """

    classes: tuple[str, ...]
    labels: Ints
    output: ConformalOutput
    likelihood_type: LikelihoodType | None
    log_evidence: Floats | None  # (n,) nats: log p(x), or a lower bound
    n_dims: int
    seconds: float
    evaluations_per_image: int
    split: str = "test"
    skipped: int = 0
    unknown: _OODResult | None = None
    importance_weighted: Floats | None = None  # (n,) nats: a tighter bound on log p(x)
    groups: Integers | None = None

    @cached_property
    def log_posterior(self) -> Floats:
        return self.output.log_posterior.numpy()

    @cached_property
    def rejected(self) -> NDArray[np.bool_]:
        """Mask of the rejected images, (n,)."""
        return np.array([s is Status.UNKNOWN for s in self.output.statuses])

    @property
    def is_calibrated(self) -> bool:
        return self.output.scope is not CalibrationScope.NONE

    @property
    def one_per_group(self) -> Integers:
        """Indices of one image of each group, which are independent; of all images without groups."""
        return np.arange(len(self.labels)) if self.groups is None else one_per_group(self.groups, SEED)

    @property
    def bits_per_dim(self) -> float | None:
        if self.log_evidence is None:
            return None
        return metrics.bits_per_dim(self.log_evidence, self.n_dims)

    @property
    def metrics(self) -> Metrics:
        """Metrics of the evaluation."""
        ambiguous = sum(s is Status.AMBIGUOUS for s in self.output.statuses)
        rejection = RejectionMetrics(
            self.output.alpha, int(self.rejected.sum()), ambiguous, self._effective_size(self.rejected)
        )
        correct = self.log_posterior.argmax(1) == self.labels
        return Metrics(
            n=len(self.labels),
            n_correct=int(correct.sum()),
            balanced_accuracy=metrics.balanced_accuracy(self.log_posterior, self.labels),
            nll=metrics.nll(self.log_posterior, self.labels),
            ece=metrics.ece(self.log_posterior, self.labels),
            brier=metrics.brier(self.log_posterior, self.labels),
            skipped=self.skipped,
            split=self.split,
            bits_per_dim=self.bits_per_dim,
            images_per_second=len(self.labels) / self.seconds,
            evaluations_per_image=self.evaluations_per_image,
            rejection=rejection if self.is_calibrated else None,
            unknown=self._ood_metrics() if self.unknown is not None else None,
            coarse=tuple(self._coarse(level) for level in levels(self.classes)),
            n_groups=None if self.groups is None else len(np.unique(self.groups)),
            n_effective=self._effective_size(correct),
        )

    def as_json(self) -> dict[str, Any]:
        """Return the metrics as a JSON object."""
        found, rejection = self.metrics, self.metrics.rejection
        document: dict[str, Any] = {
            "n": found.n,
            "n_groups": found.n_groups,
            "skipped": found.skipped,
            "accuracy": found.accuracy,
            "accuracy_interval": found.accuracy_interval,
            "balanced_accuracy": found.balanced_accuracy,
            "nll": found.nll,
            "ece": found.ece,
            "brier": found.brier,
            "bits_per_dim": found.bits_per_dim,
            "likelihood_kind": None if self.likelihood_type is None else str(self.likelihood_type),
            "false_alarm_rate": None if rejection is None else rejection.n_rejected / found.n,
            "false_alarm_interval": found.false_alarm_interval,
            "alpha": self.output.alpha,
            "guarantee": self.output.guarantee.value,
            "calibration": self.output.calibration,
            "ambiguous_rate": None if rejection is None else rejection.n_ambiguous / found.n,
            "images_per_second": found.images_per_second,
            "evaluations_per_image": self.evaluations_per_image,
            "per_class": self._per_class(),
        }
        if found.coarse:
            document["coarse"] = [
                {"groups": level.n_groups, "accuracy": level.n_correct / found.n} for level in found.coarse
            ]
        if self.importance_weighted is not None:
            document["bits_per_dim_importance_weighted"] = metrics.bits_per_dim(self.importance_weighted, self.n_dims)
        if (unknown := found.unknown) is not None:
            document |= {
                "n_unknown": unknown.n,
                "n_unknown_groups": unknown.n_groups,
                "auroc": unknown.auroc,
                "auroc_interval": unknown.auroc_interval,
                "fpr_at_95_tpr": unknown.fpr_at_95_tpr,
                "unknown_rate": unknown.n_rejected / unknown.n,
            }
        return document

    def _coarse(self, level: Level) -> GroupMetrics:
        predicted = level.log_posterior(self.output.log_posterior).argmax(1)
        correct = predicted == level.group[torch.from_numpy(self.labels)]
        return GroupMetrics(len(level.names), int(correct.sum()))

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
        # The score, not the p-value, which has only as many values as there are calibration images.
        known_scores, unknown_scores = (-output.score.numpy() for output in (self.output, unknown))
        groups = self.groups, self.unknown.images.groups
        return OODMetrics(
            source=self.unknown.source,
            n=len(unknown.statuses),
            n_rejected=sum(s is Status.UNKNOWN for s in unknown.statuses),
            auroc=metrics.auroc(known_scores, unknown_scores),
            fpr_at_95_tpr=metrics.fpr_at_95_tpr(known_scores, unknown_scores),
            auroc_interval=metrics.auroc_interval(known_scores, unknown_scores, groups),
            n_groups=None if groups[1] is None else len(np.unique(groups[1])),
        )

    def _effective_size(self, values: NDArray[np.bool_]) -> float | None:
        return None if self.groups is None else metrics.effective_size(values, self.groups)


def evaluate(
    classifier: Predictor,
    images: LabeledImages,
    *,
    alpha: float,
    guarantee: Guarantee = Guarantee.OVERALL,
    skipped: int = 0,
    unknown: tuple[str, LabeledImages] | None = None,
    importance_samples: int | None = None,
) -> EvaluationResult:
    """Measure a classifier on labeled images, and on `unknown` images, a pair of their source and the images.

    The intervals of images in groups are those of images of new groups. `importance_samples` latent samples per image also
    give a tighter bound on log p(x); raise InvalidValueError if the family has no such bound.
    """

    def conformal_output(some: ImageDataset) -> ConformalOutput:
        return classifier.conformal_output(some, alpha=alpha, guarantee=guarantee)

    output, seconds = _timed(classifier, images.images, conformal_output)
    model = classifier.model
    return EvaluationResult(
        classes=classifier.labels,
        labels=images.labels,
        output=output,
        likelihood_type=model.likelihood_type if isinstance(model, GenerativeModel) else None,
        log_evidence=_log_evidence(classifier, images.images),
        n_dims=model.task.n_dims,
        seconds=seconds,
        evaluations_per_image=model.evaluations_per_image,
        skipped=skipped,
        unknown=None if unknown is None else _OODResult(*unknown, conformal_output(unknown[1].images)),
        importance_weighted=_importance_weighted(classifier, images.images, importance_samples)
        if importance_samples
        else None,
        groups=images.groups,
    )


def _timed(
    classifier: Predictor, images: ImageDataset, run: Callable[[ImageDataset], ConformalOutput]
) -> tuple[ConformalOutput, float]:
    """Return the output and the seconds that it takes; with cached features, extrapolate from a few uncached images."""
    start = time.perf_counter()
    output = run(images)
    seconds = time.perf_counter() - start
    if classifier.features is not None and classifier.features.is_cached and len(images):
        few = images.subset(np.arange(min(N_TIMED, len(images))))
        with classifier.features.caching(False):
            start = time.perf_counter()
            run(few)
            seconds = (time.perf_counter() - start) * len(images) / len(few)
    return output, seconds


def _log_evidence(classifier: Predictor, images: ImageDataset) -> Floats | None:
    """Return log p(x), (n,), or a sampled lower bound; None for models without bits/dim."""
    model = classifier.model
    if not isinstance(model, GenerativeModel) or not model.likelihood_type.has_bits_per_dim:
        return None
    rng = torch.Generator(classifier.device).manual_seed(SEED)
    return classifier.log_evidence(images, rng=rng)


def _importance_weighted(classifier: Predictor, images: ImageDataset, n_samples: int) -> Floats:
    model = classifier.model
    if not isinstance(model, ImportanceWeighted):
        raise InvalidValueError(
            f"--importance-samples: {classifier.family!r} has no bound by importance weighting; vae has one"
        )
    rng = torch.Generator(classifier.device).manual_seed(SEED)
    with torch.inference_mode():
        batches = classifier.input_pipeline.inputs(images)
        L = torch.cat([model.importance_weighted(x, n_samples, rng=rng).cpu() for x in batches])
    return log_evidence(L, classifier.log_prior).numpy()


def _number(value: float) -> float | None:
    """Return None for NaN, which JSON lacks: a class without images has no recall."""
    return None if np.isnan(value) else float(value)
