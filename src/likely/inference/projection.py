"""A plane through a space of many dimensions in which classes lie as far apart as they can: a map to look at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor


@dataclass(frozen=True)
class PCAProjection:
    """z -> (z − origin) A, with orthonormal axes A (d, 2): (N, d) -> (N, 2)."""

    origin: Tensor
    axes: Tensor

    @classmethod
    def fit(cls, places: Tensor) -> Self:
        """The first two principal axes of the classes' places (K, d) about their mean, each pointing to where its largest
        number is positive. Of one or two classes, or in one dimension, what is left is filled up with axes of the space.
        """
        origin = places.double().mean(0)
        d = len(origin)
        _, size, axes = torch.linalg.svd(places.double() - origin, full_matrices=False)
        found = axes[size > 1e-9 * size[:1].clamp_min(1e-300)][:2]
        filled = torch.cat([found, torch.eye(d, dtype=torch.float64)])
        q, _ = torch.linalg.qr(filled.mT)
        q = q[:, :2]
        largest = q.gather(0, q.abs().argmax(0, keepdim=True))
        q = q * largest.sign()
        return cls(origin, torch.cat([q, q.new_zeros(d, 2 - q.shape[1])], 1))

    def __call__(self, places: Tensor) -> Tensor:
        """(N, d) -> (N, 2)."""
        return (places.double() - self.origin) @ self.axes
