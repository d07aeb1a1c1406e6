"""Vectors of any unit to vectors of mean 0 and variance 1, by their training images' own figures."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from likely.base import Domain, FitsInClosedForm, Task


class Standardizer(nn.Module):
    """z = (x − location) / scale, dimension by dimension; `measure` every batch, then `conclude`.

    Of 0 dimensions it stands before an image model and changes nothing: pixels have a scale of their own.
    """

    def __init__(self, n_dims: int) -> None:
        super().__init__()
        self.location: Tensor
        self.scale: Tensor
        self.n_dims = n_dims
        # A large offset needs every digit. Image models, of 0 dimensions here, may go where there is no float64.
        self.register_buffer("location", torch.zeros(n_dims, dtype=torch.float64 if n_dims else torch.float32))
        self.register_buffer("scale", torch.ones(n_dims))
        self._n = 0
        self._mean = torch.zeros(n_dims, dtype=torch.float64)
        self._scatter = torch.zeros(n_dims, dtype=torch.float64)

    @classmethod
    def of(cls, task: Task) -> Standardizer:
        """What stands before a network of the task: of its dimensions for vectors, of none for pixels."""
        return cls(task.n_dims if task.domain is Domain.FEATURES else 0)

    def forward(self, x: Tensor) -> Tensor:
        """(B, D) of any precision -> float32, rounded only once the offset has gone; pixels as they are."""
        if not self.n_dims:
            return x
        return (x - self.location).float() / self.scale

    def inverse(self, z: Tensor) -> Tensor:
        """x = z scale + location, in float64: a small scale is not lost beside a large location."""
        if not self.n_dims:
            return z
        return z * self.scale + self.location

    def update_statistics(self, x: Tensor) -> None:
        """Take a batch (B, D) into the running mean and the sum of squares about it.

        E x² − (E x)² would lose a small variance beside a large mean (Chan 1983, Algorithms for Computing the Sample Variance).
        """
        if not self.n_dims:
            return
        x = x.cpu().double()  # in this order: not every device has float64
        n, mean = self._n + len(x), x.mean(0)
        apart = mean - self._mean
        self._scatter += (x - mean).square().sum(0) + apart.square() * self._n * len(x) / n
        self._mean += apart * len(x) / n
        self._n = n

    def finalize_statistics(self) -> None:
        """Set location and scale; a dimension that never changes keeps the scale 1."""
        if not self.n_dims:
            return
        scale = (self._scatter / self._n).sqrt()
        still = scale <= 1e-12 * self._mean.abs()  # what rounding leaves of a constant
        self.location.copy_(self._mean)
        self.scale.copy_(torch.where(still, 1.0, scale))
        self._n, self._mean, self._scatter = 0, torch.zeros_like(self._mean), torch.zeros_like(self._scatter)


class Standardized(FitsInClosedForm):
    """A model that looks at its vectors through `standardize`, and may begin where its first images are."""

    standardizer: Standardizer
    _first: Tensor | None = None

    def update_statistics(self, x: Tensor, y: Tensor) -> None:
        self.standardizer.update_statistics(x)
        self._first = x if self._first is None else self._first

    @torch.no_grad()
    def finalize_statistics(self) -> None:
        self.standardizer.finalize_statistics()
        first, self._first = self._first, None
        assert first is not None  # the contract: measured before concluded
        self.init_from_data(first)

    def init_from_data(self, x: Tensor) -> None:  # most models begin anywhere
        """Set what depends on the first batch (B, ...), once `standardize` is ready."""
