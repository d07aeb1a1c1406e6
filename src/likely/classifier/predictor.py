"""Predictor: a trained model with its calibration, the contents of a model folder."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol, TypeAlias

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from likely.base import GenerativeModel, ModelOutputs, Scorer
from likely.classifier.inputs import BATCH_SIZE, InputPipeline, blocks, decoded_blocks, to_masks
from likely.classifier.scoring import masked_outputs, model_outputs, supports_missing_pixels
from likely.data import arrays
from likely.data.image_dataset import ImageBatch, ImageDataset
from likely.data.preprocessing import ImageFormat
from likely.exceptions import InvalidValueError, UnsupportedError, did_you_mean
from likely.features.feature_decoder import FeatureDecoder
from likely.features.feature_extraction import FeaturePipeline
from likely.inference.decision import ConformalOutput, DecisionRule
from likely.inference.posterior import log_evidence, log_posterior
from likely.inference.predictions import LabelNames, predictions
from likely.prediction import Guarantee, Prediction
from likely.training.options import TrainingOptions

Exemplars: TypeAlias = tuple[Tensor, Tensor]  # features of calibration images (N, F) and their classes (N,)


class Executor(Protocol):
    """Anything that runs the network on a batch of images."""

    def __call__(self, batch: Tensor) -> ModelOutputs:
        """Return the outputs for uint8 images (B, C, H, W), or vectors (B, D)."""


@dataclass(frozen=True, eq=False)
class Predictor:
    """p(c | x) = softmax(log p(x | c) / T + log π_c), with p(x | c) from one of the model families.

    `log_prior` (K,) is log π of the training. `format` is None for vectors, and `features` for models of pixels or
    vectors. `hashes` identify the images that the training used. `exemplars` serve to add classes later. `id` is the name
    and version of a saved model, such as "fashion@3f2a". `executor` replaces PyTorch for `outputs`.
    """

    model: Scorer
    family: str
    format: ImageFormat | None
    classes: NDArray[Any]
    log_prior: Tensor
    decision_rule: DecisionRule
    features: FeaturePipeline | None
    training: TrainingOptions
    seed: int
    hashes: NDArray[np.int64]
    exemplars: Exemplars | None = None
    feature_decoder: FeatureDecoder | None = None
    id: str | None = None
    executor: Executor | None = None

    @property
    def labels(self) -> tuple[str, ...]:
        """The names of the classes."""
        return tuple(map(str, self.classes))

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one input: an image (C, H, W), or a vector (D,)."""
        return self.model.task.shape if self.format is None else self.format.shape

    @property
    def device(self) -> torch.device:
        """The device of the model."""
        return self.input_pipeline.device

    @cached_property
    def input_pipeline(self) -> InputPipeline:
        """The steps from stored images to the model's inputs."""
        return InputPipeline(self.model, self.features)

    @property
    def generates_images(self) -> bool:
        """True if the model can sample images: of pixels, or by a feature decoder."""
        of_pixels = isinstance(self.model, GenerativeModel) and self.features is None
        return self.format is not None and (of_pixels or self.feature_decoder is not None)

    def index(self, label: Any) -> int:
        """Return the index of a class; InvalidValueError names the nearest one."""
        if str(label) not in self.labels:
            raise InvalidValueError(f"there is no class {str(label)!r}{did_you_mean(str(label), self.labels)}")
        return self.labels.index(str(label))

    def load_images(self, inputs: Any, names: Sequence[str] | None = None) -> ImageBatch:
        """Decode paths, bytes, Pillow images or an array in the model's format, or take vectors or a decoded batch."""
        if isinstance(inputs, ImageBatch):
            return inputs
        width = None if self.format is not None else self.model.task.n_dims
        return arrays.load_images(inputs, self.format, names, n_features=width)

    def outputs(self, images: ImageDataset, masks: Tensor | None = None) -> ModelOutputs:
        """Run the network on images, in batches; with `masks` (N, H, W) bool, on their observed pixels alone."""
        if masks is None:
            return self._concatenate([each for _, each in self.batches(images)])
        model = supports_missing_pixels(self.model, self.features)
        with torch.inference_mode():
            pairs = zip(self.input_pipeline.inputs(images), _mask_blocks(masks.to(self.device)), strict=True)
            return self._concatenate([masked_outputs(model, x, observed) for x, observed in pairs])

    def batches(self, images: ImageDataset) -> Iterator[tuple[ImageDataset, ModelOutputs]]:
        """Yield images in batches, each with its outputs: for collections whose outputs do not fit into memory."""
        run = self.executor or self._run
        for block, batch in decoded_blocks(images):
            with torch.inference_mode():
                found = run(batch)
            yield block, found

    def decide(
        self,
        outputs: ModelOutputs,
        log_prior: Tensor | None = None,
        alpha: float = 0.05,
        guarantee: Guarantee = Guarantee.OVERALL,
    ) -> ConformalOutput:
        """Return posteriors, p-values and prediction sets under log π (K,), by default that of the training."""
        return self.decision_rule(outputs, self.log_prior if log_prior is None else log_prior, alpha, guarantee)

    def predictions(
        self, names: Sequence[str], output: ConformalOutput, top_k: int | None = None
    ) -> Iterator[Prediction]:
        """Yield the prediction for each image, called by its name; `top_k` limits the classes that it lists."""
        return predictions(
            output, names, self._bits_per_dim(output.log_likelihood), LabelNames(self.labels, self.id, top_k)
        )

    def classify(
        self,
        inputs: Any,
        *,
        alpha: float = 0.05,
        guarantee: Guarantee | str = Guarantee.OVERALL,
        top_k: int | None = None,
        names: Sequence[str] | None = None,
        log_prior: Tensor | None = None,
        mask: ArrayLike | None = None,
        decision_rule: DecisionRule | None = None,
    ) -> list[Prediction]:
        """Return one prediction for each input, in order; an input that cannot be read gives one with an error.

        At most a fraction `alpha` of images exchangeable with the calibration images gets the status unknown, or with the
        `guarantee` "class" at most a fraction `alpha` of every class. `top_k` limits the classes that a prediction
        lists. `log_prior`, log π (K,), replaces the prior of the training.

        `mask`, (H, W) or (N, H, W) bool, is True where a pixel may be used; the others may hold anything. An image with
        missing pixels has no p-values, unless `decision_rule` was calibrated for the mask (`calibration.calibrate_for_mask`).
        """
        _validate(alpha, top_k)
        guarantee = to_guarantee(guarantee)
        batch = self.load_images(inputs, names)
        images, errors = batch.images, batch.errors

        def whole(images: ImageDataset) -> Iterator[Prediction]:
            for block, outputs in self.batches(images):
                yield from self.predictions(_names(block), self.decide(outputs, log_prior, alpha, guarantee), top_k)

        def masked(images: ImageDataset, masks: Tensor) -> Iterator[Prediction]:
            rule = decision_rule or DecisionRule.uncalibrated(len(self.labels), self.decision_rule.temperature)
            label_names = LabelNames(self.labels, self.id, top_k)
            for block, each in zip(blocks(images), _mask_blocks(masks), strict=True):
                prior = self.log_prior if log_prior is None else log_prior
                output = rule(self.outputs(block, each), prior, alpha, guarantee)
                yield from predictions(output, _names(block), None, label_names)

        if mask is None:
            found = whole(images)
        else:
            supports_missing_pixels(self.model, self.features)
            masks = to_masks(mask, len(errors), self.shape[1:]).expand(len(errors), -1, -1)
            masks = masks[torch.tensor([error is None for error in errors], dtype=torch.bool)]
            hidden = ~masks.flatten(1).all(1)
            a = whole(images.subset(np.flatnonzero(~hidden)))
            b = masked(images.subset(np.flatnonzero(hidden)), masks[hidden])
            found = (next(b if is_hidden else a) for is_hidden in hidden.tolist())
        failed = (None if e is None else Prediction.failed(e.source, e.message, model=self.id) for e in errors)
        return [prediction or next(found) for prediction in failed]

    def conformal_output(
        self, images: ImageDataset, *, alpha: float, guarantee: Guarantee = Guarantee.OVERALL
    ) -> ConformalOutput:
        """Return posteriors, p-values and prediction sets for a whole collection, under the prior of the training."""

        def decide(outputs: ModelOutputs) -> ConformalOutput:
            return self.decide(outputs, alpha=alpha, guarantee=guarantee)

        pieces = [decide(outputs) for _, outputs in self.batches(images)]
        return ConformalOutput.concatenate(pieces or [decide(self.outputs(images))])

    @torch.inference_mode()
    def log_posterior(self, images: ImageDataset) -> NDArray[np.float64]:
        """Return log p(c | x) under the prior of the training, (N, K)."""
        log_scores = torch.cat([self.model.log_scores(x).cpu() for x in self.input_pipeline.inputs(images)])
        return log_posterior(log_scores, self.log_prior, self.decision_rule.temperature).numpy()

    @torch.inference_mode()
    def log_evidence(self, images: ImageDataset, *, rng: torch.Generator | None = None) -> NDArray[np.float64]:
        """Return log p(x), (N,) nats; with `rng`, a lower bound is estimated by sampling. UnsupportedError without one."""
        model = generative_model(self, "log p(x)")
        L = torch.cat([model.log_likelihood(x, rng=rng).cpu() for x in self.input_pipeline.inputs(images)])
        return log_evidence(L, self.log_prior).numpy()

    def _run(self, batch: Tensor) -> ModelOutputs:
        return model_outputs(self.model, [self.input_pipeline.model_input(batch)])

    def _concatenate(self, batches: Sequence[ModelOutputs]) -> ModelOutputs:
        return ModelOutputs.concatenate(batches) if batches else ModelOutputs.empty(self.model.task.n_classes)

    def _bits_per_dim(self, L: Tensor | None) -> Tensor | None:
        """Return −log2 p(x) / D, (N,), from L = log p(x | c) (N, K); None unless it is a density of 8-bit pixels."""
        model = self.model
        if L is None or not isinstance(model, GenerativeModel) or not model.likelihood_type.has_bits_per_dim:
            return None
        return -log_evidence(L, self.log_prior) / (model.task.n_dims * math.log(2))


def generative_model(predictor: Predictor, what: str) -> GenerativeModel:
    """Return the model as a generative one; UnsupportedError names what needs it."""
    if not isinstance(predictor.model, GenerativeModel):
        raise UnsupportedError(f"{what} needs a generative model; {predictor.family!r} only separates classes")
    return predictor.model


def to_guarantee(value: Guarantee | str) -> Guarantee:
    """Return the guarantee of this name; InvalidValueError names the valid ones."""
    if value not in list(Guarantee):
        raise InvalidValueError(f"guarantee {value!r} is unknown; {' or '.join(Guarantee)} was expected")
    return Guarantee(value)


def require_level(alpha: float) -> None:
    """Raise InvalidValueError unless alpha is a significance level."""
    if not 0 < alpha < 1:
        raise InvalidValueError(f"alpha {alpha:g} is not a significance level; a number between 0 and 1 was expected")


def _validate(alpha: float, top_k: int | None) -> None:
    require_level(alpha)
    if top_k is not None and top_k < 1:
        raise InvalidValueError(f"top_k {top_k} lists no class; at least 1 was expected")


def _names(images: ImageDataset) -> list[str]:
    return [images.name(i) for i in range(len(images))]


def _mask_blocks(masks: Tensor) -> Sequence[Tensor]:
    """Split masks (N, H, W) like `blocks` splits their images: into no blocks at all if there are none."""
    return torch.split(masks, BATCH_SIZE) if len(masks) else ()
