"""Sight: how a model is shown images, a block at a time, as pixels or as features of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from likely.base import ModelOutputs, Scorer
from likely.classifier.scoring import masked_outputs, model_outputs
from likely.data.image_dataset import ImageDataset
from likely.features.feature_extraction import FeaturePipeline
from likely.features.model_input import ModelInput
from likely.networks.pixel_scaling import to_unit

BATCH_SIZE = 256  # images that go through a network together when nothing is learned


@dataclass(frozen=True)
class InputPipeline:
    """A model, and what makes the features that it is of; None for a model of pixels or of vectors."""

    model: Scorer
    features: FeaturePipeline | None

    @property
    def device(self) -> torch.device:
        """Where the model computes."""
        return next(t.device for t in (*self.model.parameters(), *self.model.buffers()))

    def inputs(self, images: ImageDataset) -> Iterator[Tensor]:
        """Batches as the model takes them."""
        for batch, features in self._batches(images):
            yield self.to_model(batch) if features is None else features.transform(batch)

    def model_inputs(self, images: ImageDataset) -> Iterator[ModelInput]:
        """The same, with all that is known of the images besides."""
        for batch, features in self._batches(images):
            yield ModelInput(self.to_model(batch)) if features is None else features.model_input(batch)

    def differentiable(self, x: Tensor) -> ModelInput:
        """What the model is shown of images x (B, C, H, W) in [0, 1], with gradients."""
        return ModelInput(x) if self.features is None else self.features.differentiable(x)

    @torch.inference_mode()
    def outputs(self, images: ImageDataset, masks: Tensor | None = None) -> ModelOutputs:
        """Every figure that a judgment takes; by the pixels alone that each image's mask shows, (N, H, W) bool."""
        if masks is None:
            return model_outputs(self.model, self.model_inputs(images))
        each = torch.split(masks.to(self.device), BATCH_SIZE) if len(masks) else ()
        return masked_outputs(self.model, zip(self.inputs(images), each, strict=True))

    def to_model(self, batch: Tensor) -> Tensor:
        """8-bit images in [0, 1], vectors as they are, on the device."""
        batch = batch.to(self.device)
        return to_unit(batch).contiguous(memory_format=torch.channels_last) if batch.ndim == 4 else batch

    def _batches(self, images: ImageDataset) -> Iterator[tuple[Tensor, FeaturePipeline | None]]:
        """Images or vectors, and what makes features of them: nothing if they are features already, or none are wanted."""
        for _, block in blocks(images):
            batch = block.batch(np.arange(len(block)))
            yield batch, self.features if batch.ndim == 4 else None


def blocks(images: ImageDataset) -> Iterator[tuple[int, ImageDataset]]:
    """A collection in pieces that fit through a network, and whose figures fit into memory, each with the number of its first
    image."""
    for start in range(0, len(images), BATCH_SIZE):
        yield start, images.subset(np.arange(start, min(start + BATCH_SIZE, len(images))))
