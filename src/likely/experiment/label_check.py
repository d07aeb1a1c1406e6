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
from likely.data.splits import Splits, group_folds
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
            splits = replace(self.splits, train=self.splits.train.subset(rest), unknown=None)
            trainer = Trainer(spec, splits, self.dataset.classes, self.dataset.format)
            predictors.append((yield from trainer.steps()))
            if trainer.features is not None:
                trainer.features.disable_cache()  # each would hold the features of all images
        return predictors

    def label_issues(self, classifiers: Sequence[Predictor]) -> LabelIssues | None:
        """Return the training images whose labels are probably wrong; None if there are none."""
        train, indices = self.splits.train, np.concatenate(self._folds())
        issues = find_label_issues(self._held_out_posterior(classifiers), train.labels[indices])[:N_ISSUES]
        if not issues:
            return None
        found = tuple(replace(issue, index=int(indices[issue.index])) for issue in issues)
        chosen = np.array([issue.index for issue in found], np.int64)
        return LabelIssues(originals(train.images, chosen), found, short_names(train.images, chosen))

    def _held_out_posterior(self, classifiers: Sequence[Predictor]) -> NDArray[np.float64]:
        """Return p(c | x) of the images of each fold by the classifier that was trained without it, (n, K)."""
        found = []
        for held_out, predictor in zip(self._folds(), classifiers, strict=True):
            if predictor.features is not None:
                predictor.features.enable_cache()
            found.append(np.exp(predictor.log_posterior(self.splits.train.subset(held_out).images)))
        return np.concatenate(found)

    def _folds(self) -> list[NDArray[np.int64]]:
        """Return the indices of the training images in each fold that has any."""
        fold = group_folds(self.splits.train, self.config.label_check_folds, self.config.seed)
        return [np.flatnonzero(fold == k) for k in np.unique(fold[fold >= 0])]


def _shortened(training: TrainingOptions) -> TrainingOptions:
    """Return options of a training that is just long enough to separate wrong labels from correct ones."""
    shared = {name: getattr(training, name) for name in ("batch_size", "device", "precision", "threads", "augment")}
    if training.minutes is not None:
        return TrainingOptions(minutes=FOLD_FRACTION * training.minutes, **shared)
    epochs = training.epochs and max(2, math.ceil(FOLD_FRACTION * training.epochs))
    return TrainingOptions(epochs=epochs or 10, **shared)
