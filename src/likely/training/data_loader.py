"""Batches for the loop: shuffled, augmented and moved to the device, each a function of the seed, its epoch and its place."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from likely.networks.pixel_scaling import to_unit
from likely.training.augment import N_UNIFORMS, augment
from likely.training.options import AugmentOptions
from likely.training.rng import hash_uniforms, permutation

Indices = NDArray[np.int64]


class BatchSource(Protocol):
    """Anything that has images by their number."""

    def __len__(self) -> int: ...

    def batch(self, indices: Indices, /) -> Tensor:
        """uint8 (B, C, H, W), or float vectors (B, D)."""


class ShuffledBatches:
    """A Feed of one part of the data; the same epoch and position always give the same batch.

    An epoch shows every image once. Where fewer than `labeled_fraction` of them have a label, every batch is filled up to that
    share with labeled images, which then come round more than once an epoch, each time augmented anew. `noise` is the
    standard deviation of what is added to vectors.
    """

    def __init__(
        self,
        images: BatchSource,
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
        self.rare = _rare(labels, labeled_fraction)
        self.common = np.flatnonzero(labels < 0) if len(self.rare) else np.arange(len(labels))
        self.n_rare = min(max(1, round(labeled_fraction * batch_size)), batch_size - 1) if len(self.rare) else 0

    def to(self, device: torch.device) -> ShuffledBatches:
        """Send the batches to a device from now on."""
        self.device = device
        return self

    @property
    def n_batches(self) -> int:
        """A single image left over joins the last batch: alone it would have no variance to normalize by."""
        full, rest = divmod(len(self.common), self.batch_size - self.n_rare)
        return max(1, full + (rest > 1))

    def __call__(self, epoch: int, position: int) -> Iterator[tuple[Tensor, Tensor]]:
        shuffled = self.common[permutation(self.seed, epoch, len(self.common))]
        step = self.batch_size - self.n_rare
        for i in range(position, self.n_batches):
            end = (i + 1) * step if i + 1 < self.n_batches else None
            rare, rounds = self._rare_ones(epoch, i)
            indices = np.concatenate([rare, shuffled[i * step : end]])
            rounds = np.concatenate([rounds, np.zeros(len(indices) - len(rare), np.int64)])
            if len(rare):  # a model that looks at the first few of a batch would see labeled ones alone
                mixed = permutation(self.seed, epoch, len(indices), i, len(self.labels))
                indices, rounds = indices[mixed], rounds[mixed]
            yield self._images(epoch, indices, rounds), self.labels[indices].to(self.device)

    def _rare_ones(self, epoch: int, i: int) -> tuple[Indices, Indices]:
        """The labeled images of batch i, and how often each has been round before; every round in another order."""
        rounds, places = np.divmod(np.arange(i * self.n_rare, (i + 1) * self.n_rare), max(1, len(self.rare)))
        orders = {r: permutation(self.seed, epoch, len(self.rare), r) for r in set(rounds.tolist())}
        return self.rare[[orders[r][place] for r, place in zip(rounds.tolist(), places, strict=True)]], rounds

    def _images(self, epoch: int, indices: Indices, rounds: Indices) -> Tensor:
        images = self.images.batch(indices)
        if images.dtype != torch.uint8:
            return (self._noisy(images, epoch, indices, rounds) if self.noise else images).to(self.device)
        images = images.to(self.device)
        if self.augment is not None:
            seen = indices + len(self.images) * rounds
            images = augment(images, hash_uniforms(self.seed, epoch, seen, N_UNIFORMS), self.augment)
        return to_unit(images).contiguous(memory_format=torch.channels_last)

    def _noisy(self, vectors: Tensor, epoch: int, indices: Indices, rounds: Indices) -> Tensor:
        """With normal noise, drawn anew for every vector and epoch."""
        u = hash_uniforms(self.seed, epoch, indices + len(self.images) * rounds, vectors.shape[1])
        inner = u.double() + 2**-25  # of (0, 1), whose ends no normal number has
        noise: Tensor = torch.special.ndtri(inner).to(vectors)
        return vectors + self.noise * noise


def _rare(labels: Indices, fraction: float) -> Indices:
    """The labeled images, if they are fewer than their share beside unlabeled ones; else none."""
    labeled = np.flatnonzero(labels >= 0)
    return labeled if len(labeled) < fraction * len(labels) else labeled[:0]
