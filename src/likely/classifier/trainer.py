"""Fitting: from divided images to a classifier's weights, step by step."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from likely import checkpoint, models
from likely.base import FitsInClosedForm, Scorer, Task
from likely.classifier.auto import choose_model
from likely.classifier.calibration import subsample
from likely.classifier.inputs import BATCH_SIZE
from likely.data.dataset import LabeledImages
from likely.data.preprocessing import ImageFormat
from likely.data.splits import Splits
from likely.features.feature_extraction import FeaturePipeline, Progress
from likely.features.feature_extractors import FeatureOptions
from likely.inference.temperature_scaling import fit_temperature, nll, weights
from likely.training.data_loader import ShuffledBatches
from likely.training.device import select_device, select_dtype, to_device, tune_malloc
from likely.training.loop import Step, fit, fit_closed_form
from likely.training.options import AugmentOptions, TrainingOptions
from likely.training.state import TrainingState

if TYPE_CHECKING:
    from likely.classifier.predictor import Predictor

FEATURE_BATCH_SIZE = 64  # images of a batch by which features are learned
Snapshot: TypeAlias = tuple[Mapping[str, Tensor], Mapping[str, Any]]


class Trainer:
    """The training of a classifier on some parts: first `learn_features`, then `see`, then `steps`, each of which does what
    comes before it unless that was done."""

    def __init__(self, classifier: Predictor, parts: Splits) -> None:
        self.classifier, self.parts = classifier, parts
        self._has_learned = self._has_seen = False

    def fit_features(self) -> Iterator[Step]:
        """Train what makes the features, if that is learned; whoever has had enough may stop."""
        classifier, train = self.classifier, self.parts.train
        counts = train.class_counts(int(train.labels.max()) + 1)
        asked, shape = FeatureOptions.from_any(classifier.features), train.images.shape
        classifier.choice_ = choose_model(classifier.model, asked, shape, counts)
        options = models.family(classifier.family).options_type.from_any(classifier.options)
        features = None
        if len(shape) == 3:
            features = FeaturePipeline.from_options(classifier.choice_.features, options, shape, classifier.seed)
        classifier.features_ = features
        self._has_learned = True
        if features is None:
            return
        training = TrainingOptions.from_any(classifier.training)
        to_device(features, select_device(training.device))
        length = {"epochs": features.options.feature_epochs, "minutes": None}
        training = training.model_copy(update=length).resolve(len(train))
        lesson = features.extractor.training_module(features.options, len(counts), training.learning_rate)
        if lesson is None:
            return
        state = TrainingState(to_device(lesson, features.device), training, seed=classifier.seed)
        try:
            feed = self._feed(train, min(training.batch_size or BATCH_SIZE, FEATURE_BATCH_SIZE), training.augment)
            yield from fit(state, feed.to(features.device))
        finally:
            state.load_best()
            features.requires_grad_(False).eval()

    def extract_features(self, progress: Progress | None = None) -> None:
        """Make the features that the model is to be a density of, if it is one of features, and learn how to scale them."""
        if not self._has_learned:
            for _ in self.fit_features():
                pass
        if self.classifier.features_ is not None:
            self.classifier.features_.enable_cache()
            self.classifier.features_.fit_scaler(self.parts.train.images, progress)
        self._has_seen = True

    def steps(
        self, classes: Sequence[str], format: ImageFormat | None, *, resume: Snapshot | None = None
    ) -> Iterator[Step]:
        """Train the model; `resume` is a snapshot of `training_state_`, from which the training goes on as it would have."""
        if not self._has_seen:
            self.extract_features()
        lesson, validation = self._begin(classes, format)
        classifier = self.classifier
        state, options, device = classifier.training_state_, classifier.training_, classifier.device
        if resume is not None:
            self._restore(resume)
        elif isinstance(classifier.model_, FitsInClosedForm):
            for _ in fit_closed_form(classifier.model_, self._feed(lesson, BATCH_SIZE, None).to(device)):
                state.reset_ema()
                if not state.objectives and not self._validate(validation):
                    break  # nobody can choose
        if state.objectives and device.type == "cpu":
            tune_malloc()
        dtype = select_dtype(options, device, classifier.model_.task.shape)
        feed = self._feed(lesson, options.batch_size or BATCH_SIZE, options.augment, options.labeled_fraction).to(
            device
        )
        if state.progress.stale >= options.patience:  # a resumed training may have been at its end
            return
        for step in fit(state, feed, dtype=dtype):
            yield replace(step, validation=self._validate(validation)) if step.ends_epoch else step
            if state.progress.stale >= options.patience:
                return

    def _begin(self, classes: Sequence[str], format: ImageFormat | None) -> tuple[LabeledImages, LabeledImages]:
        """An untrained model for the data at hand; what it learns from and the validation images, as it sees them."""
        classifier, parts, K = self.classifier, self.parts, len(classes)
        family = models.family(classifier.family)
        options = family.options_type.from_any(classifier.options)
        crosses = classifier.uses_cross_conformal(parts.train.images.shape)
        photographed = parts.training_images(calibration=crosses, generated=False).class_counts(K)
        lesson, validation = parts.training_images(calibration=crosses), parts.validation
        asked = TrainingOptions.from_any(classifier.training).with_defaults(options.training_defaults)
        classifier.training_ = asked.resolve(len(lesson))
        classifier.classes_ = np.asarray(classes)
        classifier.format_ = format
        if classifier.features_ is not None:
            lesson, validation = (
                classifier.features_.transform_images(lesson),
                classifier.features_.transform_images(validation),
            )
        task = Task(lesson.images.shape, lesson.class_counts(K))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(classifier.seed)
            model = family(task, options)
        classifier.model_ = to_device(model, select_device(classifier.training_.device))
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
        self, part: LabeledImages, batch_size: int, augment: AugmentOptions | None, labeled_fraction: float = 0.0
    ) -> ShuffledBatches:
        features = self.classifier.features_
        how: dict[str, Any] = {"batch_size": batch_size, "augment": augment, "labeled_fraction": labeled_fraction}
        how["noise"] = 0.0 if features is None or augment is None else features.noise
        return ShuffledBatches(part.images, part.labels, seed=self.classifier.seed, **how)

    @torch.inference_mode()
    def _validate(self, part: LabeledImages) -> dict[str, float]:
        """Score the averaged weights on the validation images and keep them if they are the best so far."""
        if not len(part):
            return {}
        classifier = self.classifier
        part = subsample(part, len(classifier.labels), classifier.seed)
        labels, log_prior = torch.from_numpy(part.labels), classifier.log_prior_
        averaged = classifier.training_state_.ema_model.eval()
        assert isinstance(averaged, Scorer)
        scores = torch.cat([averaged.log_scores(x).cpu() for x in classifier.input_pipeline.inputs(part.images)])
        T = fit_temperature(scores, labels, log_prior)
        right = (scores / T + log_prior).argmax(1) == labels
        figures = {
            "nll": nll(scores, labels, log_prior, T),
            "accuracy": (weights(labels, log_prior) * right).mean().item(),
        }
        classifier.training_state_.update_best(figures["nll"])
        return figures
