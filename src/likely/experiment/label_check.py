"""Folds: short trainings, each without a part of the training images, whose labels it then doubts."""

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
from likely.training.loop import Step
from likely.training.options import TrainingOptions

BASELINE_FAMILY = "softmax"  # the family that doubts labels and judges samples: quick, and not the one that drew them
N_SUSPECTS = 24  # pictures of training images whose label is in doubt


@dataclass(frozen=True, eq=False)
class LabelCheck:
    """The folds of a run's training images."""

    run: TrainConfig
    dataset: Dataset
    splits: Splits

    def fold_classifiers(self) -> Generator[Step, None, list[Predictor]]:
        """A classifier for each fold, which has not seen it."""
        judges = []
        for held_out in self._folds():
            spec = ModelSpec(
                BASELINE_FAMILY,
                training=_shortened(self.run.training),
                features=self.run.features,
                seed=self.run.seed,
            )
            rest = np.setdiff1d(np.arange(len(self.splits.train)), held_out)
            parts = replace(self.splits, train=self.splits.train.subset(rest))
            trainer = Trainer(spec, parts, self.dataset.classes, self.dataset.format)
            judges.append((yield from trainer.steps()))
            if trainer.features is not None:
                trainer.features.disable_cache()  # each would hold the features of all images
        return judges

    def label_issues(self, classifiers: Sequence[Predictor]) -> LabelIssues | None:
        """The training images whose labels the judges doubt, if there are any."""
        train = self.splits.train
        found = find_label_issues(self._held_out_posterior(classifiers), train.labels)[:N_SUSPECTS]
        if not found:
            return None
        indices = np.array([suspect.index for suspect in found], np.int64)
        names = tuple(train.images.name(int(i)) for i in indices)
        return LabelIssues(train.images.batch(indices).numpy(), found, names)

    def _held_out_posterior(self, classifiers: Sequence[Predictor]) -> NDArray[np.float64]:
        """p(c | x) of every training image by the judge that has not seen it, (N, K)."""
        posterior = np.zeros((len(self.splits.train), len(self.dataset.classes)))
        for held_out, judge in zip(self._folds(), classifiers, strict=True):
            if judge.features is not None:
                judge.features.enable_cache()
            posterior[held_out] = np.exp(judge.log_posterior(self.splits.train.subset(held_out).images))
        return posterior

    def _folds(self) -> list[NDArray[np.int64]]:
        """The training images dealt out, by their indices."""
        order = np.random.default_rng(self.run.seed).permutation(len(self.splits.train))
        return [np.sort(order[fold :: self.run.label_check_folds]) for fold in range(self.run.label_check_folds)]


def _shortened(training: TrainingOptions) -> TrainingOptions:
    """A training that is long enough to tell a wrong label from a right one, and no longer; the rest is as usual."""
    kept = {name: getattr(training, name) for name in ("batch_size", "device", "precision", "threads", "augment")}
    if training.minutes is not None:
        return TrainingOptions(minutes=FOLD_FRACTION * training.minutes, **kept)
    epochs = training.epochs and max(2, math.ceil(FOLD_FRACTION * training.epochs))
    return TrainingOptions(epochs=epochs or 10, **kept)
