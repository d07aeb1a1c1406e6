"""Class means and covariances accumulated batch by batch, their shrinkage and inversion, and marginal densities."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from likely.networks.likelihoods import BIN


@dataclass
class ScatterStatistics:
    """Sufficient statistics of Gaussians in float64: count (K,), mean (K, D) and the scatter about the means.

    The scatter is (K, D) for variances, (K, D, D) for class covariances, (1, D, D) for a tied one. Batches are merged by
    their means because E x² − (E x)² cancels when the mean is large (Chan 1983, Algorithms for Computing the Sample Variance).
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
        """Degrees of freedom of the tied scatter: the images less one per observed class, if that leaves any."""
        n, spent = self.count.sum(), (self.count > 0).sum()
        return torch.where(n > spent, n - spent, n).clamp_min(1)

    def class_variances(self, pseudo_count: float) -> Tensor:
        """Return class variances (K, D) shrunk toward the pooled variances, more for classes with fewer images."""
        pooled = self.scatter.sum(0) / self.freedom
        weight = (self.count / (self.count + pseudo_count))[:, None]
        return weight * self.scatter / self.count.clamp_min(1)[:, None] + (1 - weight) * pooled

    def update(self, x: Tensor, y: Tensor) -> None:
        """Merge a batch x (B, D) of classes y (B,), into the statistics."""
        present, index, n = torch.unique(y, return_inverse=True, return_counts=True)  # (k,), (B,), (k,)
        before = self.count[present]
        mean = x.new_zeros(len(present), x.shape[1]).index_add_(0, index, x) / n[:, None]
        offset, total = mean - self.mean[present], before + n
        self._scatter(x - mean[index], index, offset * (before * n / total).sqrt()[:, None], present)
        self.mean[present] += offset * (n / total)[:, None]
        self.count[present] = total

    def _scatter(self, within: Tensor, index: Tensor, between: Tensor, present: Tensor) -> None:
        """Add the scatter within the batch (B, D) and between batch and running means (k, D)."""
        if self.scatter.ndim == 2:
            self.scatter[present] += between.square().index_add_(0, index, within.square())
        elif len(self.scatter) == 1:
            repeated = within[torch.bincount(index)[index] > 1]  # a single image of a class coincides with its mean
            rows = torch.cat([repeated, between])
            self.scatter[0].addmm_(rows.mT, rows)
        else:
            for i, c in enumerate(present.tolist()):
                own = within[index == i]
                self.scatter[c] += own.mT @ own + torch.outer(between[i], between[i])


@dataclass(frozen=True)
class MarginalNormal:
    """Marginal N(mean, Σ) of n observed values: mean (n,), whitening W (n, n) with Wᵀ W = Σ⁻¹, or its diagonal (n,)."""

    mean: Tensor
    whitening: Tensor

    def log_density(self, x: Tensor, *, noisy: bool) -> Tensor:
        """Return the log density (B,) of (B, n) in nats; `noisy` adds bin volume and dequantization noise of 8-bit pixels."""
        W, n = self.whitening, len(self.mean)
        scale = W if W.ndim == 1 else W.diagonal()
        log_normalizer = scale.log().sum() - 0.5 * n * math.log(2 * math.pi)
        if noisy:
            log_normalizer = log_normalizer + n * math.log(BIN) - W.square().sum() * BIN**2 / 24
        offsets = x - self.mean
        return log_normalizer - 0.5 * (offsets * W if W.ndim == 1 else offsets @ W.mT).square().sum(1)


def inverse_root(covariance: Tensor) -> Tensor:
    """Return the whitening matrix W of a covariance Σ (D, D): lower triangular, Wᵀ W = Σ⁻¹."""
    return inverse(torch.linalg.cholesky(covariance))


def inverse(lower: Tensor) -> Tensor:
    """Invert a lower triangular matrix (D, D)."""
    from scipy.linalg.lapack import dtrtri  # takes a third of the time of a solution with the identity

    upper, _ = dtrtri(lower.double().cpu().numpy().T)
    return torch.from_numpy(upper.T).to(lower)


def oracle_shrinkage(S: Tensor, n: Tensor) -> Tensor:
    """Return the oracle approximating shrinkage ρ of the sample covariance (D, D) of n images (Chen 2010, eq. 23)."""
    D = len(S)
    squared, trace = S.square().sum(), S.diagonal().sum()
    numerator = (1 - 2 / D) * squared + trace.square()
    denominator = (n + 1 - 2 / D) * (squared - trace.square() / D)
    rho = numerator / denominator.clamp_min(torch.finfo(S.dtype).tiny)
    return rho.clamp(0, 1)
