"""Shuffled, augmented batches on the device, each a function of seed, epoch and position."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from likely.base import to_unit
from likely.training.augment import N_UNIFORMS, augment
from likely.training.options import AugmentOptions
from likely.training.rng import hash_uniforms, permutation

Indices = NDArray[np.int64]


class _BatchSource(Protocol):
    """Random access to images."""

    def __len__(self) -> int: ...

    def batch(self, indices: Indices, /) -> Tensor:
        """Return uint8 images (B, C, H, W) or float vectors (B, D)."""


class ShuffledBatches:
    """Batches (x, y) of a training split; the same epoch and position always give the same batch.

    An epoch contains every image once. If fewer than `labeled_fraction` of the images are labeled, labeled images are
    oversampled to this fraction of every batch, with a different augmentation each time. `noise` is the standard deviation of
    normal noise added to vectors.
    """

    def __init__(
        self,
        images: _BatchSource,
        labels: Indices,
        *,
        batch_size: int,
        seed: int,
        augment: AugmentOptions | None,
        labeled_fraction: float = 0.0,
        noise: float = 0.0,
    ) -> None:
        self.images = images
        self.labels = torch.from_numpy(labels)
        self.batch_size = batch_size
        self.seed = seed
        self.augment = augment
        self.noise = noise
        self.device = torch.device("cpu")
        self.oversampled = _oversampled(labels, labeled_fraction)
        self.main_indices = np.flatnonzero(labels < 0) if len(self.oversampled) else np.arange(len(labels))
        self.n_oversampled = (
            min(max(1, round(labeled_fraction * batch_size)), batch_size - 1) if len(self.oversampled) else 0
        )

    def to(self, device: torch.device) -> ShuffledBatches:
        """Send batches to a device from now on."""
        self.device = device
        return self

    @property
    def n_batches(self) -> int:
        """Batches per epoch; a single remaining image joins the last batch, since batch normalization needs two."""
        n_full, n_left = divmod(len(self.main_indices), self.batch_size - self.n_oversampled)
        return max(1, n_full + (n_left > 1))

    def __call__(self, epoch: int, position: int) -> Iterator[tuple[Tensor, Tensor]]:
        shuffled = self.main_indices[permutation(self.seed, epoch, len(self.main_indices))]
        step = self.batch_size - self.n_oversampled
        for i in range(position, self.n_batches):
            end = (i + 1) * step if i + 1 < self.n_batches else None
            oversampled, repeats = self._oversampled_batch(epoch, i)
            indices = np.concatenate([oversampled, shuffled[i * step : end]])
            repeats = np.concatenate([repeats, np.zeros(len(indices) - len(oversampled), np.int64)])
            if len(oversampled):  # a model that uses only the first images of a batch must see both kinds
                order = permutation(self.seed, epoch, len(indices), i, len(self.labels))
                indices, repeats = indices[order], repeats[order]
            yield self._load_images(epoch, indices, repeats), self.labels[indices].to(self.device)

    def _oversampled_batch(self, epoch: int, i: int) -> tuple[Indices, Indices]:
        """Return the labeled images of batch i and how often each occurred before; every pass has its own order."""
        repeats, positions = np.divmod(
            np.arange(i * self.n_oversampled, (i + 1) * self.n_oversampled), max(1, len(self.oversampled))
        )
        permutations = {r: permutation(self.seed, epoch, len(self.oversampled), r) for r in set(repeats.tolist())}
        return self.oversampled[[permutations[r][j] for r, j in zip(repeats.tolist(), positions, strict=True)]], repeats

    def _load_images(self, epoch: int, indices: Indices, repeats: Indices) -> Tensor:
        images = self.images.batch(indices)
        if images.dtype != torch.uint8:
            return (self._add_noise(images, epoch, indices, repeats) if self.noise else images).to(self.device)
        images = images.to(self.device)
        if self.augment is not None:
            image_ids = indices + len(self.images) * repeats
            images = augment(images, hash_uniforms(self.seed, epoch, image_ids, N_UNIFORMS), self.augment)
        return to_unit(images).contiguous(memory_format=torch.channels_last)

    def _add_noise(self, vectors: Tensor, epoch: int, indices: Indices, repeats: Indices) -> Tensor:
        """Add normal noise that depends on seed, epoch and image."""
        u = hash_uniforms(self.seed, epoch, indices + len(self.images) * repeats, vectors.shape[1])
        u_open = u.double() + 2**-25  # in the open interval (0, 1)
        noise: Tensor = torch.special.ndtri(u_open).to(vectors)
        return vectors + self.noise * noise


def _oversampled(labels: Indices, fraction: float) -> Indices:
    """Return the labeled images if they are less than this fraction; else none."""
    labeled = np.flatnonzero(labels >= 0)
    return labeled if len(labeled) < fraction * len(labels) else labeled[:0]
