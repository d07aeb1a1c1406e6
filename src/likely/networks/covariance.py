"""Means and covariances of classes, gathered batch by batch, and what it takes to invert them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass
class ScatterStatistics:
    """What is kept of the images seen so far, in float64: count (K,), mean (K, D), and the scatter about the means.

    The scatter is (K, D) for variances, (K, D, D) for a covariance a class, (1, D, D) for one of all. E x² − (E x)² would
    lose a small variance beside a large mean (Chan 1983, Algorithms for Computing the Sample Variance).
    """

    count: Tensor
    mean: Tensor
    scatter: Tensor

    @classmethod
    def empty(cls, mean: torch.Size, scatter: torch.Size) -> ScatterStatistics:
        zeros = (torch.zeros(shape, dtype=torch.float64) for shape in (mean[:1], mean, scatter))
        return cls(*zeros)

    @property
    def freedom(self) -> Tensor:
        """How many images a scatter of all classes rests on: all, less one a class for its mean if any are left then."""
        n, spent = self.count.sum(), (self.count > 0).sum()
        return torch.where(n > spent, n - spent, n).clamp_min(1)

    def update(self, x: Tensor, y: Tensor) -> None:
        """Take in a batch, x (B, D) and y (B,): its scatter about its own means, and that of its means about those so far."""
        there, place, n = torch.unique(y, return_inverse=True, return_counts=True)  # (k,), (B,), (k,)
        before = self.count[there]
        mean = x.new_zeros(len(there), x.shape[1]).index_add_(0, place, x) / n[:, None]
        apart, total = mean - self.mean[there], before + n
        self._scatter(x - mean[place], place, apart * (before * n / total).sqrt()[:, None], there)
        self.mean[there] += apart * (n / total)[:, None]
        self.count[there] = total

    def _scatter(self, within: Tensor, place: Tensor, between: Tensor, there: Tensor) -> None:
        """Add the outer products, or squares, of (B, D) and of (k, D) of the classes that are `there` (k,)."""
        if self.scatter.ndim == 2:
            self.scatter[there] += between.square().index_add_(0, place, within.square())
        elif len(self.scatter) == 1:
            several = within[torch.bincount(place)[place] > 1]  # one image of a class lies at its own mean
            rows = torch.cat([several, between])
            self.scatter[0].addmm_(rows.mT, rows)
        else:
            for i, c in enumerate(there.tolist()):
                own = within[place == i]
                self.scatter[c] += own.mT @ own + torch.outer(between[i], between[i])


def inverse_root(covariance: Tensor) -> Tensor:
    """W, lower triangular, with Wᵀ W = Σ⁻¹."""
    return inverse(torch.linalg.cholesky(covariance))


def inverse(lower: Tensor) -> Tensor:
    """That of a lower triangular matrix, (D, D)."""
    identity = torch.eye(len(lower), dtype=lower.dtype, device=lower.device)
    found: Tensor = torch.linalg.solve_triangular(lower, identity, upper=False)
    return found


def oracle_shrinkage(S: Tensor, n: Tensor) -> Tensor:
    """ρ of oracle approximating shrinkage from the sample covariance (D, D) of n images (Chen 2010, eq. 23)."""
    D = len(S)
    squared, trace = S.square().sum(), S.diagonal().sum()
    numerator = (1 - 2 / D) * squared + trace.square()
    denominator = (n + 1 - 2 / D) * (squared - trace.square() / D)
    rho = numerator / denominator.clamp_min(torch.finfo(S.dtype).tiny)
    return rho.clamp(0, 1)
