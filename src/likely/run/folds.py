"""Folds: short trainings, each without a part of the training images, whose labels it then doubts."""

from __future__ import annotations

import math
from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from likely.classifier import BayesClassifier
from likely.data.parts import Dataset
from likely.data.splits import Parts
from likely.evaluation.label_noise import suspects
from likely.evaluation.report.content import Mislabelled
from likely.run.options import FOLD_SHARE, Run
from likely.training.loop import Step
from likely.training.options import TrainingOptions

JUDGE = "discriminative"  # the family that doubts labels and judges samples: quick, and not the one that drew them
N_SUSPECTS = 24  # pictures of training images whose label is in doubt


@dataclass(frozen=True, eq=False)
class Folds:
    """The folds of a run's training images."""

    run: Run
    dataset: Dataset
    parts: Parts

    def judges(self) -> Generator[Step, None, list[BayesClassifier]]:
        """A classifier for each fold, which has not seen it."""
        judges = []
        for held_out in self._dealt():
            classifier = BayesClassifier(
                JUDGE,
                training=_shortened(self.run.training),
                images=self.run.images,
                features=self.run.features,
                random_state=self.run.seed,
            )
            rest = np.setdiff1d(np.arange(len(self.parts.train)), held_out)
            parts = replace(self.parts, train=self.parts.train.subset(rest))
            yield from classifier.fit_steps(parts, self.dataset.classes, self.dataset.format)
            classifier.finish(parts)
            classifier.forget_features()  # all judges' together would be many times one's
            judges.append(classifier)
        return judges

    def doubted(self, judges: Sequence[BayesClassifier]) -> Mislabelled | None:
        """The training images whose labels the judges doubt, if there are any."""
        train = self.parts.train
        found = suspects(self._held_out_posterior(judges), train.labels)[:N_SUSPECTS]
        if not found:
            return None
        indices = np.array([suspect.index for suspect in found], np.int64)
        names = tuple(train.images.name(int(i)) for i in indices)
        return Mislabelled(train.images.batch(indices).numpy(), found, names)

    def _held_out_posterior(self, judges: Sequence[BayesClassifier]) -> NDArray[np.float64]:
        """p(c | x) of every training image by the judge that has not seen it, (N, K)."""
        posterior = np.zeros((len(self.parts.train), len(self.dataset.classes)))
        for held_out, judge in zip(self._dealt(), judges, strict=True):
            judge.keep_features()
            posterior[held_out] = np.exp(judge.log_posterior(self.parts.train.subset(held_out).images))
        return posterior

    def _dealt(self) -> list[NDArray[np.int64]]:
        """The training images dealt out, by their indices."""
        order = np.random.default_rng(self.run.seed).permutation(len(self.parts.train))
        return [np.sort(order[fold :: self.run.folds]) for fold in range(self.run.folds)]


def _shortened(training: TrainingOptions) -> TrainingOptions:
    """A training that is long enough to tell a wrong label from a right one, and no longer; the rest is as usual."""
    kept = {name: getattr(training, name) for name in ("batch_size", "device", "precision", "threads", "augment")}
    if training.minutes is not None:
        return TrainingOptions(minutes=FOLD_SHARE * training.minutes, **kept)
    epochs = training.epochs and max(2, math.ceil(FOLD_SHARE * training.epochs))
    return TrainingOptions(epochs=epochs or 10, **kept)
