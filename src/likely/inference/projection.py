"""Projection of an embedding to two dimensions by principal component analysis of the class embeddings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor


@dataclass(frozen=True)
class PCAProjection:
    """z -> (z − origin) A with orthonormal axes A (d, 2): (N, d) -> (N, 2)."""

    origin: Tensor
    axes: Tensor

    @classmethod
    def fit(cls, embeddings: Tensor) -> Self:
        """Fit to class embeddings (K, d): their mean and first two principal axes.

        Signs are such that the largest entry of an axis is positive.         With fewer than three classes or in one
        dimension, coordinate axes or zeros complete the axes.
        """
        origin = embeddings.double().mean(0)
        d = len(origin)
        _, singular_values, axes = torch.linalg.svd(embeddings.double() - origin, full_matrices=False)
        principal = axes[singular_values > 1e-9 * singular_values[:1].clamp_min(1e-300)][:2]
        complete = torch.cat([principal, torch.eye(d, dtype=torch.float64)])
        q, _ = torch.linalg.qr(complete.mT)
        q = q[:, :2]
        largest = q.gather(0, q.abs().argmax(0, keepdim=True))
        q = q * largest.sign()
        return cls(origin, torch.cat([q, q.new_zeros(d, 2 - q.shape[1])], 1))

    def __call__(self, embeddings: Tensor) -> Tensor:
        """Project (N, d) -> (N, 2), in float64."""
        return (embeddings.double() - self.origin) @ self.axes
