"""Model inputs: images in batches, as pixels in [0, 1] or as features, and masks of observed pixels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from likely.base import Scorer, to_unit
from likely.data.dataset import LabeledImages
from likely.data.image_dataset import ImageDataset, prefetch
from likely.exceptions import InvalidValueError
from likely.features.feature_extraction import FeaturePipeline, ModelInput

BATCH_SIZE = 256  # images in one pass through a network without gradients


@dataclass(frozen=True)
class InputPipeline:
    """The steps from stored images to a model's inputs; `features` is None for a model of pixels or of vectors."""

    model: Scorer
    features: FeaturePipeline | None

    @property
    def device(self) -> torch.device:
        """The device of the model."""
        return next(t.device for t in chain(self.model.parameters(), self.model.buffers()))

    def inputs(self, images: ImageDataset) -> Iterator[Tensor]:
        """Yield batches as the model takes them: (B, C, H, W) in [0, 1], or features or vectors (B, D)."""
        for batch, features in self._batches(images):
            yield self.to_model(batch) if features is None else features.transform(batch)

    def model_inputs(self, images: ImageDataset) -> Iterator[ModelInput]:
        """Yield batches as the model takes them, with the statistics that features leave out."""
        for _, batch in decoded_blocks(images):
            yield self.model_input(batch)

    def model_input(self, batch: Tensor) -> ModelInput:
        """Return a batch, uint8 (B, C, H, W) or vectors (B, D), as the model takes it, with the extra statistics."""
        if self.features is None or batch.ndim != 4:
            return ModelInput(self.to_model(batch))
        return self.features.model_input(batch)

    def vectors(self, images: LabeledImages) -> LabeledImages:
        """Replace images by their features; a model of vectors, or of pixels, takes them as they are."""
        return images if self.features is None else self.features.transform_images(images)

    def differentiable(self, x: Tensor) -> ModelInput:
        """Return the model's inputs for images x (B, C, H, W) in [0, 1], with gradients."""
        return ModelInput(x) if self.features is None else self.features.differentiable(x)

    def to_model(self, batch: Tensor) -> Tensor:
        """Move a batch to the device: 8-bit images in [0, 1], vectors unchanged."""
        batch = batch.to(self.device)
        return to_unit(batch).contiguous(memory_format=torch.channels_last) if batch.ndim == 4 else batch

    def _batches(self, images: ImageDataset) -> Iterator[tuple[Tensor, FeaturePipeline | None]]:
        for _, batch in decoded_blocks(images):
            yield batch, self.features if batch.ndim == 4 else None


def blocks(images: ImageDataset) -> Iterator[ImageDataset]:
    """Yield consecutive batches of at most BATCH_SIZE images."""
    for start in range(0, len(images), BATCH_SIZE):
        yield images.subset(np.arange(start, min(start + BATCH_SIZE, len(images))))


def decoded_blocks(images: ImageDataset) -> Iterator[tuple[ImageDataset, Tensor]]:
    """Yield the blocks with their images or vectors (B, ...); the next block is decoded while one is used."""
    return prefetch(lambda block: (block, block.batch(np.arange(len(block)))), blocks(images))


def to_masks(mask: ArrayLike, n: int, size: Sequence[int]) -> Tensor:
    """Return one mask (H, W), or n of them (n, H, W), as bool (1, H, W) or (n, H, W); InvalidValueError otherwise."""
    masks, size = torch.from_numpy(np.array(mask, dtype=bool)), tuple(size)
    if len(size) != 2 or masks.shape not in (size, (n, *size)):
        raise InvalidValueError(f"mask has the shape {tuple(masks.shape)}; {size} was expected, or {(n, *size)}")
    return masks.reshape(-1, *size)
