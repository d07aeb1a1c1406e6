"""Vectors of any unit to vectors of mean 0 and variance 1, by their training images' own figures."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Standardise(nn.Module):
    """z = (x − location) / scale, dimension by dimension; `measure` every batch, then `conclude`."""

    def __init__(self, n_dims: int) -> None:
        super().__init__()
        self.location: Tensor
        self.scale: Tensor
        self.register_buffer("location", torch.zeros(n_dims))
        self.register_buffer("scale", torch.ones(n_dims))
        self._n = 0
        self._sum = torch.zeros(n_dims, dtype=torch.float64)
        self._square = torch.zeros(n_dims, dtype=torch.float64)

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.location) / self.scale

    def inverse(self, z: Tensor) -> Tensor:
        """x = z scale + location."""
        return z * self.scale + self.location

    def measure(self, x: Tensor) -> None:
        """Take a batch (B, D) into the running sums."""
        x = x.double().cpu()
        self._n += len(x)
        self._sum += x.sum(0)
        self._square += x.square().sum(0)

    def conclude(self) -> None:
        """Set location and scale; a dimension that never changes keeps the scale 1."""
        location = self._sum / self._n
        variance = self._square / self._n - location.square()
        still = variance <= 1e-12 * (self._square / self._n)
        self.location.copy_(location)
        self.scale.copy_(torch.where(still, 1.0, variance.clamp_min(0).sqrt()))
        self._n, self._sum, self._square = 0, torch.zeros_like(self._sum), torch.zeros_like(self._square)
