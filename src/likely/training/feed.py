"""Batches for the loop: shuffled, augmented and moved to the device, each a function of the seed, its epoch and its place."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from likely.nets.scaling import to_unit
from likely.training.augment import N_UNIFORMS, augment
from likely.training.options import AugmentOptions
from likely.training.randomness import order, uniforms

Indices = NDArray[np.int64]


class ImageStore(Protocol):
    """Anything that has images by their number."""

    def __len__(self) -> int: ...

    def batch(self, indices: Indices, /) -> Tensor:
        """uint8 (B, C, H, W), or float vectors (B, D)."""


class Batches:
    """A Feed of one part of the data; the same epoch and position always give the same batch."""

    def __init__(
        self, images: ImageStore, labels: Indices, *, batch_size: int, seed: int, augment: AugmentOptions | None
    ) -> None:
        self.images = images
        self.labels = torch.from_numpy(labels)
        self.batch_size = batch_size
        self.seed = seed
        self.augment = augment
        self.device = torch.device("cpu")

    def to(self, device: torch.device) -> Batches:
        """Send the batches to a device from now on."""
        self.device = device
        return self

    @property
    def n_batches(self) -> int:
        """A single image left over joins the last batch: alone it would have no variance to normalise by."""
        full, rest = divmod(len(self.images), self.batch_size)
        return max(1, full + (rest > 1))

    def __call__(self, epoch: int, position: int) -> Iterator[tuple[Tensor, Tensor]]:
        shuffled = order(self.seed, epoch, len(self.images))
        for i in range(position, self.n_batches):
            end = (i + 1) * self.batch_size if i + 1 < self.n_batches else None
            indices = shuffled[i * self.batch_size : end]
            yield self._images(epoch, indices), self.labels[indices].to(self.device)

    def _images(self, epoch: int, indices: Indices) -> Tensor:
        images = self.images.batch(indices)
        if images.dtype != torch.uint8:
            return images.to(self.device)
        images = images.to(self.device)
        if self.augment is not None:
            images = augment(images, uniforms(self.seed, epoch, indices, N_UNIFORMS), self.augment)
        return to_unit(images).contiguous(memory_format=torch.channels_last)
