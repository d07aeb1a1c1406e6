"""Trainer: from splits to a Predictor: features, model, closed-form fit, calibration."""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from likely import models
from likely.base import FamilyOptions, FitsInClosedForm, HasEmbedding, Scorer, Task
from likely.classifier.auto import choose_model
from likely.classifier.calibration import FitPlan, calibrate, fit_like, subsample
from likely.classifier.class_incremental import exemplar_features
from likely.classifier.inputs import BATCH_SIZE, InputPipeline
from likely.classifier.predictor import Predictor
from likely.data.dataset import LabeledImages
from likely.data.preprocessing import ImageFormat
from likely.data.splits import Splits
from likely.exceptions import CheckpointError, UnsupportedError
from likely.features.feature_extraction import FeaturePipeline, Progress, augmented_images
from likely.features.feature_extractors import FeatureOptions
from likely.inference.temperature_scaling import fit_temperature, nll, weights
from likely.options import DEFAULT_MODEL, Options
from likely.training.data_loader import ShuffledBatches
from likely.training.device import select_device, select_dtype, to_device, tune_malloc
from likely.training.loop import Step, fit, fit_closed_form
from likely.training.options import AugmentOptions, TrainingOptions
from likely.training.state import TrainingState

FEATURE_BATCH_SIZE = 64  # images in a batch of the training of features
Snapshot: TypeAlias = tuple[Mapping[str, Tensor], Mapping[str, Any]]


@dataclass(frozen=True)
class ModelSpec:
    """A model to be trained: its family, or "auto", and all options."""

    model: str = DEFAULT_MODEL
    options: Mapping[str, Any] | Options | None = None
    training: TrainingOptions = field(default_factory=TrainingOptions)
    features: FeatureOptions = field(default_factory=FeatureOptions)
    seed: int = 0


class Trainer:
    """Train a model on splits.

    `steps` goes through all phases. To show or to stop them, call `fit_features`, `extract_features`, `fit_model` and
    `finish` in this order.
    """

    # Once `finish` has been called, as `steps` does in the end: the result, and the same before it was fitted to validation
    # images, which may be evaluated on them.
    predictor: Predictor
    validation_predictor: Predictor
    state: TrainingState  # of the model, once its training has begun
    _model: Scorer
    _log_prior: Tensor

    def __init__(
        self,
        spec: ModelSpec,
        splits: Splits,
        classes: Sequence[str],
        format: ImageFormat | None,
        *,
        resume: Snapshot | None = None,
    ) -> None:
        """`resume` is a snapshot of `state`, from which the training goes on exactly as it would have."""
        self.spec, self.splits, self.classes, self.format, self.resume = spec, splits, tuple(classes), format, resume
        shape, counts = splits.train.images.shape, splits.train.class_counts(len(classes))
        self.choice = choose_model(spec.model, spec.features, shape, counts)
        if splits.unknown is not None and not issubclass(models.family(self.choice.family), HasEmbedding):
            able = models.families_with(HasEmbedding)
            raise UnsupportedError(f"{self.choice.family!r} embeds no images; families that use unknown images: {able}")
        self.features: FeaturePipeline | None = None
        self.plan = FitPlan.choose(self.choice.family, self.choice.features, splits, len(classes))
        self._has_features = self._has_scaler = False

    def steps(self) -> Generator[Step, None, Predictor]:
        """Yield the steps of all phases; the predictor is returned, and in `predictor`."""
        yield from self.fit_features()
        yield from self.fit_model()
        return self.finish()

    def fit_features(self) -> Iterator[Step]:
        """Train the feature extractor, if it learns; breaking off keeps the best weights so far."""
        if self._has_features:
            return
        self._has_features = True
        train, seed, shape = self.splits.train, self.spec.seed, self.splits.train.images.shape
        if len(shape) == 3:
            self.features = FeaturePipeline.from_options(self.choice.features, self._options, shape, seed)
        if self.features is None:
            return
        features, training = self.features, self.spec.training
        to_device(features, select_device(training.device))
        length = {"epochs": features.options.feature_epochs, "minutes": None}
        training = training.model_copy(update=length).resolve(len(train))
        module = features.extractor.training_module(features.options, len(self.classes), training.learning_rate)
        if module is None:
            return
        state = TrainingState(to_device(module, features.device), training, seed=seed)
        try:
            batch_size = min(training.batch_size or BATCH_SIZE, FEATURE_BATCH_SIZE)
            yield from fit(state, self._loader(train, batch_size, training.augment).to(features.device))
        finally:
            state.load_best()
            features.requires_grad_(False).eval()

    def extract_features(self, progress: Progress | None = None) -> None:
        """Compute the features of the training images and their copies, if the model uses any, and fit their scaling."""
        for _ in self.fit_features():
            pass
        if self.features is not None and not self._has_scaler:
            self.features.enable_cache()
            self.features.fit_scaler(self.splits.train.images, progress)
            self.plan = replace(self.plan, copies=tuple(self._copies(self.features, progress)))
        self._has_scaler = True

    def _copies(self, features: FeaturePipeline, progress: Progress | None) -> Iterator[LabeledImages]:
        """Yield the features of the augmented copies of all images that a model in closed form may be fitted to."""
        images = self.splits.training_images(calibration=True, validation=True, generated=False).labeled()
        for copy in range(features.options.n_copies(len(images)) if self.plan.refits else 0):
            augmented = replace(images, images=augmented_images(images, self.spec.seed, copy))
            yield features.transform_images(augmented, progress)

    def finish(self) -> Predictor:
        """Load the best weights so far, fit the model to all images with the selected options if planned, and calibrate."""
        self.state.load_best()
        evaluable, calibration = self._model.eval(), self.splits.calibration
        if self.plan.refits:
            evaluable = self._refitted(self.plan.evaluable_images(self.splits))
            has_validation = len(self.splits.validation) > 0
            self._model = self._refitted(self.plan.final_images(self.splits)) if has_validation else evaluable
        pipeline = self.pipeline
        splits = (self.splits.train, self.splits.validation, calibration)
        self.predictor = Predictor(
            model=self._model,
            family=self.choice.family,
            format=self.format,
            classes=np.asarray(self.classes),
            log_prior=self._log_prior,
            decision_rule=calibrate(pipeline, self.splits, self._log_prior, self.spec.seed, self.plan),
            features=self.features,
            training=self.state.options,
            seed=self.spec.seed,
            hashes=np.concatenate([images.hashes for images in splits]),
            exemplars=exemplar_features(
                self._model, pipeline.inputs(calibration.images), torch.from_numpy(calibration.labels)
            ),
        )
        self.validation_predictor = replace(self.predictor, model=evaluable)
        return self.predictor

    def _refitted(self, images: LabeledImages) -> Scorer:
        """Fit a model with the selected options to other images."""
        return fit_like(self.pipeline, self.pipeline.vectors(images), self.plan, len(self.classes), self.spec.seed)

    @property
    def pipeline(self) -> InputPipeline:
        """The steps from stored images to the inputs of the model."""
        return InputPipeline(self._model, self.features)

    def fit_model(self) -> Iterator[Step]:
        """Train the model; breaking off keeps the best weights so far."""
        self.extract_features()
        train, validation = self._begin()
        state, options, device = self.state, self.state.options, self.pipeline.device
        if self.resume is not None:
            self._restore(self.resume)
        elif isinstance(self._model, FitsInClosedForm):
            self._fit_candidates(self._model, train, validation)
        if state.objectives and device.type == "cpu":
            tune_malloc()
        loader = self._loader(train, options.batch_size or BATCH_SIZE, options.augment, options.labeled_fraction)
        if state.progress.stale >= options.patience:  # a resumed training may have been at its end
            return
        for step in fit(state, loader.to(device), dtype=select_dtype(options, device, self._model.task.shape)):
            yield replace(step, validation=self._validate(validation)) if step.ends_epoch else step
            if state.progress.stale >= options.patience:
                return

    def _fit_candidates(self, model: FitsInClosedForm, train: LabeledImages, held_out: LabeledImages) -> None:
        """Fit the candidates of a closed form, and keep the options of the one that held-out images select."""
        accuracies, candidates = [], []
        for _ in fit_closed_form(model, self._loader(train, BATCH_SIZE, None).to(self.pipeline.device)):
            self.state.reset_ema()
            found = {} if self.state.objectives else self._validate(held_out)
            if not found:
                break  # without held-out images, the first candidate is used
            accuracies.append(found["accuracy"])
            candidates.append(model.with_chosen(self._options))
        if self.plan.refits and candidates:
            self.plan = replace(self.plan, options=candidates[most_regularized(accuracies, len(held_out))])

    def _begin(self) -> tuple[LabeledImages, LabeledImages]:
        """Create the untrained model and its training state; return training and validation images as it takes them."""
        splits, K = self.splits, len(self.classes)
        options = self._options
        counts = self.plan.final_images(splits, generated=False).class_counts(K)
        train, validation = self.plan.selection_split(splits, self.spec.seed)
        training = self.spec.training.with_defaults(options.training_defaults).resolve(len(train))
        if self.features is not None:
            train, validation = self.features.transform_images(train), self.features.transform_images(validation)
        task = Task(train.images.shape, train.class_counts(K))
        train = self.plan.with_copies(train)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.spec.seed)
            model = models.family(self.choice.family)(task, options)
        self._model = to_device(model, select_device(training.device))
        self._log_prior = replace(task, class_counts=counts).log_prior
        self.state = TrainingState(self._model, training, seed=self.spec.seed)
        return train, validation

    def _restore(self, snapshot: Snapshot) -> None:
        try:
            self.state.restore(*snapshot)
        except (KeyError, RuntimeError, ValueError) as error:  # other names or shapes than this version's
            raise CheckpointError(
                f"the unfinished training is of another {self.choice.family} than this version's; go on with the version "
                "of Likely that began it, or start again"
            ) from error

    @property
    def _options(self) -> FamilyOptions:
        return models.family(self.choice.family).options_type.from_any(self.spec.options)

    def _loader(
        self, images: LabeledImages, batch_size: int, augment: AugmentOptions | None, labeled_fraction: float = 0.0
    ) -> ShuffledBatches:
        return ShuffledBatches(
            images.images,
            images.labels,
            seed=self.spec.seed,
            batch_size=batch_size,
            augment=augment,
            labeled_fraction=labeled_fraction,
            noise=0.0 if self.features is None or augment is None else self.features.options.training_noise,
        )

    @torch.inference_mode()
    def _validate(self, images: LabeledImages) -> dict[str, float]:
        """Score the averaged weights on the validation images and keep them if they are the best so far."""
        if not len(images) or not self.state.is_last_phase:
            return {}
        images = subsample(images, len(self.classes), self.spec.seed)
        labels, log_prior = torch.from_numpy(images.labels), self._log_prior
        averaged = self.state.ema_model.eval()
        assert isinstance(averaged, Scorer)
        scores = torch.cat([averaged.quick_log_scores(x).cpu() for x in self.pipeline.inputs(images.images)])
        T = fit_temperature(scores, labels, log_prior)
        correct = (scores / T + log_prior).argmax(1) == labels
        found = {
            "nll": nll(scores, labels, log_prior, T),
            "accuracy": (weights(labels, log_prior) * correct).mean().item(),
        }
        self.state.update_best(found["nll"])
        return found


def most_regularized(accuracies: Sequence[float], n: int) -> int:
    """Return the last candidate within one standard error of the best one, from accuracies on n images.

    Candidates are ordered from least to most regularized. One-standard-error rule (Breiman 1984, Classification and Regression
    Trees, section 3.4.3): a difference that held-out images do not show is not worth less regularization, which deployment
    images, other than the held-out ones, would need.
    """
    best = max(accuracies)
    tolerance = math.sqrt(max(0.0, best * (1 - best)) / n)  # weighted accuracies may exceed 1
    return max(i for i, accuracy in enumerate(accuracies) if accuracy >= best - tolerance)
