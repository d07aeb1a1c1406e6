"""Nonconformity score of a class: squared Mahalanobis distance between the statistics of an image and those of the class."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

import torch
from torch import Tensor

from likely.base import ModelOutputs


@dataclass(frozen=True)
class NonconformityOptions:
    """Constants of the nonconformity score.

    `shrinkage`: weight of the identity in the covariance of standardized statistics.
    `pseudo_count`: images by which the mean over all classes counts in the mean of a single class.
    `max_covariance_entries`, `max_classes`: limits beyond which all classes share the pooled covariance.
    `n_folds`: folds for the cross-validated scores of the images of a new class.
    `constant_tolerance`: a statistic whose deviation is below this fraction of its size is constant up to float32 rounding.
    """

    shrinkage: float = 0.1
    pseudo_count: float = 5.0
    max_covariance_entries: int = 1 << 23
    max_classes: int = 1000
    n_folds: int = 5
    constant_tolerance: float = 1e-6


DEFAULT_OPTIONS = NonconformityOptions()


@dataclass(frozen=True)
class Statistics:
    """Statistics of N images: `features` (N, F) do not depend on the class, `by_class` (N, K, n) do; D = F + n in total."""

    features: Tensor
    by_class: Tensor

    @classmethod
    def of(cls, outputs: ModelOutputs) -> Statistics:
        """Take the statistics from the outputs of a model."""
        statistics, features = outputs.statistics, outputs.features
        return cls(statistics.new_zeros(len(statistics), 0) if features is None else features, statistics)

    def of_true_class(self, y: Tensor) -> Tensor:
        """Return the statistics of each image under its class y (N,), shape (N, D)."""
        return torch.cat([self.features, self.by_class[torch.arange(len(y)), y]], 1)

    def first_classes(self, K: int) -> Statistics:
        """Return the statistics under the first K classes alone."""
        return Statistics(self.features, self.by_class[:, :K])


# Statistics of images under their true classes, (N, D), and these classes, (N,).
StatisticsOfTrueClass: TypeAlias = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class NonconformityScore:
    """Squared Mahalanobis distance s_c(x) = (v_c − mean_c)ᵀ Σ_c⁻¹ (v_c − mean_c) of the statistics v_c of an image.

    Lee 2018, A Simple Unified Framework for Detecting Out-of-Distribution Samples, eq. 2, here over all statistics and not
    the likelihood alone: an image that is too likely is as atypical as one that is too unlikely (Morningstar 2021).
    Covariances are regularized (Friedman 1989, Regularized Discriminant Analysis): for statistics in units of their pooled
    standard deviation,

    Σ_c = (1 − γ) (λ_c S_c + (1 − λ_c) S) + γ I,   λ_c = n_c / (n_c + D)

    with the covariance S_c of the n_c images of the class, the pooled covariance S and the shrinkage γ.

    `mean` is (K, D). `packed_root` (K, D (D + 1) / 2) holds the rows of lower triangular W with Wᵀ W = Σ⁻¹, or a single one
    if all classes share the pooled covariance.
    """

    mean: Tensor
    packed_root: Tensor

    @classmethod
    def fit(
        cls, images: StatisticsOfTrueClass, K: int, options: NonconformityOptions = DEFAULT_OPTIONS
    ) -> NonconformityScore:
        """Fit means and covariances of K classes to labeled images."""
        v, y = images[0].double(), images[1]
        n = torch.bincount(y, minlength=K).double()
        mean = _shrunk_mean(torch.zeros(K, v.shape[1]).double().index_add_(0, y, v), n, v.mean(0).nan_to_num(), options)
        residual = v - mean[y]
        sd, size = residual.square().mean(0).sqrt(), v.square().mean(0).sqrt()
        # A constant statistic is scaled by its size: in units of its deviation, rounding errors would look atypical.
        scale = torch.where(sd > options.constant_tolerance * size, sd, torch.where(size > 0, size, 1.0))
        covariances = _covariances(residual / scale, y, n, options)
        return cls(mean, _packed(_inverse_root(covariances) / scale))

    def __call__(self, statistics: Statistics) -> Tensor:
        """Return the scores of images under all classes, (B, K)."""
        if len(self.packed_root) == 1:
            return self._by_pooled_covariance(statistics)
        features = statistics.features[None].expand(len(self.mean), -1, -1)
        v = torch.cat([features, statistics.by_class.transpose(0, 1)], 2)  # (K, B, D)
        return (_difference(v, self.mean[:, None]) @ self._roots.mT).square().sum(2).mT

    def score_true_class(self, v: Tensor, y: Tensor) -> Tensor:
        """Return the scores (N,) of statistics (N, D) under the classes y (N,)."""
        found = torch.zeros(len(v))
        for c in set(y.tolist()):
            root = self._roots[c if len(self._roots) > 1 else 0]
            found[y == c] = (_difference(v[y == c], self.mean[c]) @ root.mT).square().sum(1)
        return found

    def with_new_class(
        self, v: Tensor, options: NonconformityOptions = DEFAULT_OPTIONS
    ) -> tuple[NonconformityScore, Tensor]:
        """Return the score with class K added, fitted to statistics v (n, D) of its images, and the score of each image, (n,).

        The covariance of the class is shrunk toward the mean covariance. The score of an image is cross-validated: its class
        is fitted to the other folds.
        """
        mean_covariance, n = self._mean_covariance(), len(v)
        fold, scores = torch.arange(n) % options.n_folds, torch.zeros(n)
        for k in range(min(options.n_folds, n) if n > 1 else 0):
            without = self._with_new_class(v[fold != k], mean_covariance, options)
            scores[fold == k] = without.score_true_class(v[fold == k], torch.full((n,), len(self.mean))[fold == k])
        return self._with_new_class(v, mean_covariance, options), scores

    def _with_new_class(self, v: Tensor, mean_covariance: Tensor, options: NonconformityOptions) -> NonconformityScore:
        v, (n, D) = v.double(), v.shape
        mean = _shrunk_mean(v.sum(0), torch.tensor(n), self.mean.mean(0), options)
        packed = self.packed_root
        if len(packed) > 1:
            covariance = (_scatter(v - mean) * n + mean_covariance * D) / (n + D)
            packed = torch.cat([packed, _packed(_inverse_root(covariance)[None])])
        return NonconformityScore(torch.cat([self.mean, mean[None]]), packed)

    def _mean_covariance(self) -> Tensor:
        return torch.stack([torch.cholesky_inverse(W.double().mT, upper=True) for W in self._roots]).mean(0)

    @cached_property
    def _roots(self) -> Tensor:
        """W, (K, D, D) or (1, D, D)."""
        D = self.mean.shape[1]
        roots = self.packed_root.new_zeros(len(self.packed_root), D, D)
        roots[:, *torch.tril_indices(D, D)] = self.packed_root
        return roots

    def _by_pooled_covariance(self, statistics: Statistics) -> Tensor:
        """Return scores, (B, K), as ‖A f‖² + ‖B f + C v_c‖²: products with the features f are the same for all classes."""
        F, W = statistics.features.shape[1], self._roots[0]
        origin = self.mean.mean(0)  # products of values far from zero would lose their significant digits
        f, by_class = _difference(statistics.features, origin[:F]), _difference(statistics.by_class, origin[F:])
        mean = _difference(self.mean, origin)
        first, class_first = f @ W[:F, :F].mT, mean[:, :F] @ W[:F, :F].mT
        squared = torch.cdist(first, class_first, compute_mode="donot_use_mm_for_euclid_dist").square()
        rest = (f @ W[F:, :F].mT)[:, None] + by_class @ W[F:, F:].mT - mean @ W[F:].mT
        return squared + rest.square().sum(2)


def _shrunk_mean(total: Tensor, n: Tensor, prior_mean: Tensor, options: NonconformityOptions) -> Tensor:
    """Return means (..., D) from sums (..., D) over n images (...), shrunk toward the mean over all classes (D,)."""
    return (total + options.pseudo_count * prior_mean) / (n + options.pseudo_count)[..., None]


def _covariances(residual: Tensor, y: Tensor, n: Tensor, options: NonconformityOptions) -> Tensor:
    """Return regularized covariances (K, D, D) of standardized residuals (N, D), or the pooled one, (1, D, D)."""
    K, D = len(n), residual.shape[1]
    pooled = _scatter(residual)[None]
    if options.max_covariance_entries >= K * D**2 and options.max_classes >= K:
        weight = (n / (n + D))[:, None, None]
        pooled = weight * torch.stack([_scatter(residual[y == c]) for c in range(K)]) + (1 - weight) * pooled
    return (1 - options.shrinkage) * pooled + options.shrinkage * torch.eye(D)


def _scatter(residual: Tensor) -> Tensor:
    """Return the mean outer product of residuals: (N, D) -> (D, D)."""
    return residual.mT @ residual / max(1, len(residual))


def _inverse_root(S: Tensor) -> Tensor:
    """Return lower triangular W with Wᵀ W = S⁻¹ for positive definite S (..., D, D), in float64."""
    inverse: Tensor = torch.linalg.solve_triangular(
        torch.linalg.cholesky(S), torch.eye(S.shape[-1], dtype=S.dtype), upper=False
    )
    return inverse


def _packed(root: Tensor) -> Tensor:
    """Return the rows of lower triangular matrices (P, D, D) one after another, (P, D (D + 1) / 2) in float32."""
    return root[:, *torch.tril_indices(*root.shape[1:])].float()


def _difference(v: Tensor, mean: Tensor) -> Tensor:
    """Subtract in float64, because means may be large against the deviations; return float32."""
    return (v.double() - mean).float()
