"""Standardization of vectors to mean 0 and variance 1 over the training data."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from likely.base import Domain, FitsInClosedForm, Task


class Standardizer(nn.Module):
    """z = (x − location) / scale, per dimension, from `update_statistics` on every batch and `finalize_statistics`.

    With `n_dims` 0 it is the identity, for image models: pixels already have a common scale.
    """

    def __init__(self, n_dims: int) -> None:
        super().__init__()
        self.location: Tensor
        self.scale: Tensor
        self.n_dims = n_dims
        # float64 preserves small differences beside a large mean; image models may run on devices without float64.
        self.register_buffer("location", torch.zeros(n_dims, dtype=torch.float64 if n_dims else torch.float32))
        self.register_buffer("scale", torch.ones(n_dims))
        self._n = 0
        self._mean = torch.zeros(n_dims, dtype=torch.float64)
        self._sum_of_squares = torch.zeros(n_dims, dtype=torch.float64)

    @classmethod
    def of(cls, task: Task) -> Standardizer:
        """Build the standardizer of a task: all dimensions of vectors, none of images."""
        return cls(task.n_dims if task.domain is Domain.FEATURES else 0)

    def forward(self, x: Tensor) -> Tensor:
        """Standardize (B, D), rounding to float32 after subtracting the mean; images pass unchanged."""
        if not self.n_dims:
            return x
        return (x - self.location).float() / self.scale

    def inverse(self, z: Tensor) -> Tensor:
        """Return x = z scale + location in float64, which preserves a small scale beside a large location."""
        if not self.n_dims:
            return z
        return z * self.scale + self.location

    def update_statistics(self, x: Tensor) -> None:
        """Merge a batch (B, D) into the running mean and the sum of squared deviations from it.

        E x² − (E x)² cancels when the mean is large (Chan 1983, Algorithms for Computing the Sample Variance).
        """
        if not self.n_dims:
            return
        x = x.cpu().double()  # first to the CPU: not every device has float64
        n, mean = self._n + len(x), x.mean(0)
        delta = mean - self._mean
        self._sum_of_squares += (x - mean).square().sum(0) + delta.square() * self._n * len(x) / n
        self._mean += delta * len(x) / n
        self._n = n

    def finalize_statistics(self) -> None:
        """Set location and scale; constant dimensions keep the scale 1."""
        if not self.n_dims:
            return
        scale = (self._sum_of_squares / self._n).sqrt()
        is_constant = scale <= 1e-12 * self._mean.abs()  # rounding error of a constant
        self.location.copy_(self._mean)
        self.scale.copy_(torch.where(is_constant, 1.0, scale))
        self._n, self._mean, self._sum_of_squares = (
            0,
            torch.zeros_like(self._mean),
            torch.zeros_like(self._sum_of_squares),
        )


class Standardized(FitsInClosedForm):
    """Mixin of models that standardize vectors and may initialize their weights from the first batch."""

    standardizer: Standardizer
    _first_batch: Tensor | None = None

    def update_statistics(self, x: Tensor, y: Tensor) -> None:
        self.standardizer.update_statistics(x)
        self._first_batch = x if self._first_batch is None else self._first_batch

    @torch.no_grad()
    def finalize_statistics(self) -> None:
        self.standardizer.finalize_statistics()
        first_batch, self._first_batch = self._first_batch, None
        assert first_batch is not None  # the contract: update before finalize
        self.init_from_data(first_batch)

    def init_from_data(self, x: Tensor) -> None:  # most models need no such initialization
        """Initialize weights from the first batch (B, ...); the standardizer is already fitted."""
