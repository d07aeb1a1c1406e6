"""Fitting: from divided images to a classifier's weights, step by step."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from likely import checkpoint, models
from likely.classifier.choosing import choice_of
from likely.classifier.featuring import Features, Progress
from likely.classifier.judging import not_too_many
from likely.classifier.sight import BATCH
from likely.contract import Measured, Scorer, Task
from likely.data.images import ImageFormat
from likely.data.parts import Part
from likely.data.splits import Parts
from likely.inference.calibration import fit_temperature, nll, weights
from likely.nets.features import FeatureOptions
from likely.training import hardware
from likely.training.feed import Batches
from likely.training.loop import Step, fit, measure
from likely.training.options import AugmentOptions, TrainingOptions
from likely.training.state import TrainingState

if TYPE_CHECKING:
    from likely.classifier.classifier import BayesClassifier

LESSON = 64  # images of a batch by which features are learned
Snapshot: TypeAlias = tuple[Mapping[str, Tensor], Mapping[str, Any]]


class Fitting:
    """The training of a classifier on some parts: first `learn_features`, then `see`, then `steps`, each of which does what
    comes before it unless that was done."""

    def __init__(self, classifier: BayesClassifier, parts: Parts) -> None:
        self.classifier, self.parts = classifier, parts
        self._has_learned = self._has_seen = False

    def learn_features(self) -> Iterator[Step]:
        """Train what makes the features, if that is learned; whoever has had enough may stop."""
        classifier, train = self.classifier, self.parts.train
        counts = train.class_counts(int(train.labels.max()) + 1)
        asked, shape = FeatureOptions.validated(classifier.features), train.images.shape
        classifier.choice_ = choice_of(classifier.model, asked, shape, counts)
        options = models.family(classifier.family).options_type.validated(classifier.options)
        features = None
        if len(shape) == 3:
            features = Features.chosen(classifier.choice_.features, options, shape, classifier.seed)
        classifier.features_ = features
        self._has_learned = True
        if features is None:
            return
        training = TrainingOptions.validated(classifier.training)
        hardware.placed(features, hardware.device(training.device))
        length = {"epochs": features.options.feature_epochs, "minutes": None}
        training = training.model_copy(update=length).resolved(len(train))
        lesson = features.map.lesson(features.options, len(counts), training.learning_rate)
        if lesson is None:
            return
        state = TrainingState(hardware.placed(lesson, features.device), training, seed=classifier.seed)
        try:
            feed = self._feed(train, min(training.batch_size or BATCH, LESSON), training.augment)
            yield from fit(state, feed.to(features.device))
        finally:
            state.use_best()
            features.requires_grad_(False).eval()

    def see(self, progress: Progress | None = None) -> None:
        """Make the features that the model is to be a density of, if it is one of features, and learn how to scale them."""
        if not self._has_learned:
            for _ in self.learn_features():
                pass
        if self.classifier.features_ is not None:
            self.classifier.features_.keep()
            self.classifier.features_.measure(self.parts.train.images, progress)
        self._has_seen = True

    def steps(
        self, classes: Sequence[str], format: ImageFormat | None, *, resume: Snapshot | None = None
    ) -> Iterator[Step]:
        """Train the model; `resume` is a snapshot of `training_state_`, from which the training goes on as it would have."""
        if not self._has_seen:
            self.see()
        lesson, validation = self._begin(classes, format)
        classifier = self.classifier
        state, options, device = classifier.training_state_, classifier.training_, classifier.device
        if resume is not None:
            self._restore(resume)
        elif isinstance(classifier.model_, Measured):
            for _ in measure(classifier.model_, self._feed(lesson, BATCH, None).to(device)):
                state.follow_model()
                if not state.objectives and not self._validate(validation):
                    break  # nobody can choose
        if state.objectives and device.type == "cpu":
            hardware.keep_memory()
        dtype = hardware.dtype(options, device, classifier.model_.task.shape)
        feed = self._feed(lesson, options.batch_size or BATCH, options.augment, options.labelled_share).to(device)
        if state.progress.stale >= options.patience:  # a resumed training may have been at its end
            return
        for step in fit(state, feed, dtype=dtype):
            yield replace(step, validation=self._validate(validation)) if step.ends_epoch else step
            if state.progress.stale >= options.patience:
                return

    def _begin(self, classes: Sequence[str], format: ImageFormat | None) -> tuple[Part, Part]:
        """An untrained model for the data at hand; what it learns from and the validation images, as it sees them."""
        classifier, parts, K = self.classifier, self.parts, len(classes)
        family = models.family(classifier.family)
        options = family.options_type.validated(classifier.options)
        crosses = classifier.crosses(parts.train.images.shape)
        photographed = parts.lesson(calibration=crosses, generated=False).class_counts(K)
        lesson, validation = parts.lesson(calibration=crosses), parts.validation
        asked = TrainingOptions.validated(classifier.training).suited(options.training_defaults)
        classifier.training_ = asked.resolved(len(lesson))
        classifier.classes_ = np.asarray(classes)
        classifier.format_ = format
        if classifier.features_ is not None:
            lesson, validation = classifier.features_.over(lesson), classifier.features_.over(validation)
        task = Task(lesson.images.shape, lesson.class_counts(K))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(classifier.seed)
            model = family(task, options)
        classifier.model_ = hardware.placed(model, hardware.device(classifier.training_.device))
        classifier.log_prior_ = replace(task, class_counts=photographed).log_prior
        classifier.training_state_ = TrainingState(classifier.model_, classifier.training_, seed=classifier.seed)
        return lesson, validation

    def _restore(self, snapshot: Snapshot) -> None:
        try:
            self.classifier.training_state_.restore(*snapshot)
        except (KeyError, RuntimeError, ValueError) as error:  # other names or shapes than this version's
            raise checkpoint.CheckpointError(
                f"the unfinished training is of another {self.classifier.family} than this version's; go on with the version "
                "of Likely that began it, or train anew"
            ) from error

    def _feed(
        self, part: Part, batch_size: int, augment: AugmentOptions | None, labelled_share: float = 0.0
    ) -> Batches:
        features = self.classifier.features_
        how: dict[str, Any] = {"batch_size": batch_size, "augment": augment, "labelled_share": labelled_share}
        how["noise"] = 0.0 if features is None or augment is None else features.noise
        return Batches(part.images, part.labels, seed=self.classifier.seed, **how)

    @torch.inference_mode()
    def _validate(self, part: Part) -> dict[str, float]:
        """Score the averaged weights on the validation images and keep them if they are the best so far."""
        if not len(part):
            return {}
        classifier = self.classifier
        part = not_too_many(part, len(classifier.labels), classifier.seed)
        labels, log_prior = torch.from_numpy(part.labels), classifier.log_prior_
        averaged = classifier.training_state_.averaged.eval()
        assert isinstance(averaged, Scorer)
        scores = torch.cat([averaged.log_scores(x).cpu() for x in classifier.sight.inputs(part.images)])
        T = fit_temperature(scores, labels, log_prior)
        right = (scores / T + log_prior).argmax(1) == labels
        figures = {
            "nll": nll(scores, labels, log_prior, T),
            "accuracy": (weights(labels, log_prior) * right).mean().item(),
        }
        classifier.training_state_.keep_if_better(figures["nll"])
        return figures
