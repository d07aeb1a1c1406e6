"""Label check: cross-validated detection of label errors by short trainings of softmax classifiers."""

from __future__ import annotations

import math
from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from likely.classifier import Predictor
from likely.classifier.trainer import ModelSpec, Trainer
from likely.data.dataset import Dataset
from likely.data.splits import Splits
from likely.evaluation.label_errors import find_label_issues
from likely.experiment.config import FOLD_FRACTION, TrainConfig
from likely.reporting.html.content import LabelIssues
from likely.reporting.originals import originals, short_names
from likely.training.loop import Step
from likely.training.options import TrainingOptions

BASELINE_FAMILY = "softmax"  # trains quickly, and differs from the families that generate the samples it evaluates
N_ISSUES = 24  # label issues in a report


@dataclass(frozen=True, eq=False)
class LabelCheck:
    """Folds of the training images, each scored by a classifier that was trained without it."""

    config: TrainConfig
    dataset: Dataset
    splits: Splits

    def fold_classifiers(self) -> Generator[Step, None, list[Predictor]]:
        """Train a classifier for each fold, on the other folds."""
        predictors = []
        for held_out in self._folds():
            spec = ModelSpec(
                BASELINE_FAMILY,
                training=_shortened(self.config.training),
                features=self.config.features,
                seed=self.config.seed,
            )
            rest = np.setdiff1d(np.arange(len(self.splits.train)), held_out)
            splits = replace(self.splits, train=self.splits.train.subset(rest))
            trainer = Trainer(spec, splits, self.dataset.classes, self.dataset.format)
            predictors.append((yield from trainer.steps()))
            if trainer.features is not None:
                trainer.features.disable_cache()  # each would hold the features of all images
        return predictors

    def label_issues(self, classifiers: Sequence[Predictor]) -> LabelIssues | None:
        """Return the training images whose labels are probably wrong; None if there are none."""
        train = self.splits.train
        found = find_label_issues(self._held_out_posterior(classifiers), train.labels)[:N_ISSUES]
        if not found:
            return None
        indices = np.array([issue.index for issue in found], np.int64)
        return LabelIssues(originals(train.images, indices), found, short_names(train.images, indices))

    def _held_out_posterior(self, classifiers: Sequence[Predictor]) -> NDArray[np.float64]:
        """Return p(c | x) of every training image by the classifier that was trained without it, (N, K)."""
        posterior = np.zeros((len(self.splits.train), len(self.dataset.classes)))
        for held_out, predictor in zip(self._folds(), classifiers, strict=True):
            if predictor.features is not None:
                predictor.features.enable_cache()
            posterior[held_out] = np.exp(predictor.log_posterior(self.splits.train.subset(held_out).images))
        return posterior

    def _folds(self) -> list[NDArray[np.int64]]:
        """Return the indices of the training images in each fold."""
        order = np.random.default_rng(self.config.seed).permutation(len(self.splits.train))
        return [np.sort(order[fold :: self.config.label_check_folds]) for fold in range(self.config.label_check_folds)]


def _shortened(training: TrainingOptions) -> TrainingOptions:
    """Return options of a training that is just long enough to separate wrong labels from correct ones."""
    shared = {name: getattr(training, name) for name in ("batch_size", "device", "precision", "threads", "augment")}
    if training.minutes is not None:
        return TrainingOptions(minutes=FOLD_FRACTION * training.minutes, **shared)
    epochs = training.epochs and max(2, math.ceil(FOLD_FRACTION * training.epochs))
    return TrainingOptions(epochs=epochs or 10, **shared)
