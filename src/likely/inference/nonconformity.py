"""Nonconformity score: the standardized log distance between the statistics of an image and those of each class."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TypeAlias

import torch
from torch import Tensor

from likely.base import ModelOutputs
from likely.inference.conformal import median_and_mad, with_new_class
from likely.inference.gaussian_mixture import GaussianMixture, MixtureOptions, inverse_root
from likely.inference.posterior import grouped_logsumexp
from likely.inference.sinh_arcsinh import SinhArcsinh


@dataclass(frozen=True)
class NonconformityOptions:
    """Constants of the nonconformity score.

    `pseudo_count`: images by which the mean over all classes counts in the mean of a single class.
    `n_folds`: folds for the cross-validated scores of the images of a new class.
    `constant_tolerance`: a statistic whose deviation is below this fraction of its size is constant up to float32 rounding.
    `epsilon`: lower bound of squared distances before a logarithm is taken.
    `mixture`: constants of the mixtures of Gaussians.
    """

    pseudo_count: float = 5.0
    n_folds: int = 5
    constant_tolerance: float = 1e-6
    epsilon: float = 1e-12
    mixture: MixtureOptions = field(default_factory=MixtureOptions)


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
    """Standardized log distance between the statistics v_c of an image and those of class c, a mixture of Gaussians.

    s_c(x) = (log d_c − median_c) / mad_c
    d_c = −2 log Σ_j ρ_j exp(−‖W_j (t_c − center_j)‖² / 2)
    t_c = T((v_c − mean_c) / scale)

    with j over the components of class c and ρ_j = w_j |W_j| / max_i |W_i|. For one component d_c is the squared
    Mahalanobis distance (Lee 2018, A Simple Unified Framework for Detecting Out-of-Distribution Samples, eq. 2), here
    over all statistics and not the likelihood alone: an image that is too likely is as atypical as one that is too
    unlikely (Morningstar 2021).

    `mean` (K, D) and `scale` (D,) standardize the statistics. T is a sinh-arcsinh transform to normality with parameters
    `transform` (4, D), or (4, 0) for the identity. P components in total belong to the classes `component_class` (P,) and have
    `log_weight` log ρ (P,) and `center` (P, D). `packed_root` (P, D (D + 1) / 2) holds the rows of lower triangular W
    with Wᵀ W the inverse covariance, or a single one if all components share it. `median` and `mad` (K,) standardize
    log distances by class.
    """

    mean: Tensor
    scale: Tensor
    transform: Tensor
    component_class: Tensor
    log_weight: Tensor
    center: Tensor
    packed_root: Tensor
    median: Tensor
    mad: Tensor

    @classmethod
    def fit(
        cls,
        training: StatisticsOfTrueClass | None,
        held_out: StatisticsOfTrueClass,
        K: int,
        options: NonconformityOptions = DEFAULT_OPTIONS,
    ) -> NonconformityScore:
        """Fit means, transform and covariances to training images and choose hyperparameters by held-out likelihood.

        Held-out images choose the transform, one or two components per class, the weight of a class's own covariance
        and the shrinkage, and determine `median` and `mad`. Without training images everything is fitted to the
        held-out images, with one component per class and no transform, because images cannot choose the complexity of
        their own model.
        """
        held_out_v, held_out_y = held_out
        v, y = held_out if training is None else training
        mean, scale = _means_and_scale(v, y, K, options)
        z, held_out_z = ((t.double() - mean[c]).div_(scale).float() for t, c in ((v, y), (held_out_v, held_out_y)))
        training_z = None if training is None else (z, y)
        mixture = GaussianMixture.fit(training_z, (held_out_z, held_out_y), K, options.mixture)
        fitted = cls(
            mean,
            scale,
            mixture.curve.parameters,
            mixture.components.component_class,
            mixture.log_weight.float(),
            mixture.components.center.float(),
            _packed(mixture.root).float(),
            torch.zeros(K),
            torch.ones(K),
        )
        median, mad = median_and_mad(fitted.log_distance(held_out_v, held_out_y), held_out_y, K)
        return replace(fitted, median=median.float(), mad=mad.float())

    def __call__(self, statistics: Statistics) -> Tensor:
        """Return the scores of images under all classes, (B, K)."""
        is_tied = len(self.packed_root) == 1 and not self._curve.changes
        squared = self._squared_tied(statistics) if is_tied else self._squared_by_component(statistics)
        return (_safe_log(squared) - self.median) / self.mad

    def log_distance(self, v: Tensor, y: Tensor) -> Tensor:
        """Return log d of statistics (N, D) under the classes y (N,), not standardized: (N,)."""
        found = torch.zeros(len(v))
        for c in set(y.tolist()):
            found[y == c] = _safe_log(self._squared(v[y == c], c))
        return found

    def score_true_class(self, v: Tensor, y: Tensor) -> Tensor:
        """Return the scores (N,) of statistics (N, D) under the classes y (N,)."""
        return (self.log_distance(v, y) - self.median[y]) / self.mad[y]

    def with_new_class(
        self, v: Tensor, options: NonconformityOptions = DEFAULT_OPTIONS
    ) -> tuple[NonconformityScore, Tensor]:
        """Return the score with class K added, fitted to statistics v (n, D) of its images, and the score of each image, (n,).

        The covariance of the class is shrunk toward the mean covariance the more, the fewer images there are. The score
        of an image is cross-validated: its class is fitted to the other folds.
        """
        mean_covariance, n, K = self._mean_covariance(), len(v), len(self.mean)
        fold = torch.arange(n) % options.n_folds
        log_distance = torch.zeros(n)
        for k in range(min(options.n_folds, n) if n > 1 else 0):
            without = self._with_new_component(v[fold != k], mean_covariance, options)
            log_distance[fold == k] = _safe_log(without._squared(v[fold == k], K))
        larger = self._with_new_component(v, mean_covariance, options)
        median, mad = with_new_class(log_distance if n > 1 else log_distance[:0], self.median, self.mad)
        return replace(larger, median=median, mad=mad), (log_distance - median[-1]) / mad[-1]

    def _with_new_component(
        self, v: Tensor, mean_covariance: Tensor, options: NonconformityOptions
    ) -> NonconformityScore:
        """Add class K with one component, without its median and deviation."""
        n, pseudo_count = len(v), options.pseudo_count
        mean = (v.double().sum(0) + pseudo_count * self.mean.mean(0)) / (n + pseudo_count)
        t = self._curve(self._standardize(v, mean))
        center = (t.sum(0) + pseudo_count * self.center.mean(0)) / (n + pseudo_count)
        packed = self.packed_root
        if len(packed) > 1:
            weight = n / (n + len(mean_covariance))
            residual = (t - center).double()
            covariance = weight * (residual.mT @ residual / max(1, n)) + (1 - weight) * mean_covariance
            packed = torch.cat([packed, _packed(inverse_root(covariance)[None]).float()])
        return replace(
            self,
            mean=torch.cat([self.mean, mean[None]]),
            component_class=torch.cat([self.component_class, self.component_class.new_tensor([len(self.mean)])]),
            log_weight=torch.cat([self.log_weight, torch.zeros(1)]),
            center=torch.cat([self.center, center[None]]),
            packed_root=packed,
        )

    def _mean_covariance(self) -> Tensor:
        inverses = [
            torch.linalg.solve_triangular(W, torch.eye(len(W)).double(), upper=False) for W in self._roots.double()
        ]
        return torch.stack([root @ root.mT for root in inverses]).mean(0)

    @property
    def _curve(self) -> SinhArcsinh:
        return SinhArcsinh(self.transform)

    @cached_property
    def _roots(self) -> Tensor:
        """W, (P, D, D) or (1, D, D)."""
        D = len(self.scale)
        rows, columns = torch.tril_indices(D, D)
        roots = self.packed_root.new_zeros(len(self.packed_root), D, D)
        roots[:, rows, columns] = self.packed_root
        return roots

    def _standardize(self, v: Tensor, mean: Tensor) -> Tensor:
        """Subtract in float64, because means may be large against the scale; return float32."""
        return ((v.double() - mean) / self.scale).float()

    def _squared(self, v: Tensor, c: int) -> Tensor:
        """Return d_c of statistics under class c: (N, D) -> (N,)."""
        t = self._curve(self._standardize(v, self.mean[c]))
        squared = []
        for j in (self.component_class == c).nonzero()[:, 0].tolist():
            root = self._roots[j if len(self._roots) > 1 else 0]
            squared.append(((t - self.center[j]) @ root.mT).square().sum(1) - 2 * self.log_weight[j])
        return squared[0] if len(squared) == 1 else -2 * (-torch.stack(squared) / 2).logsumexp(0)

    def _squared_by_component(self, statistics: Statistics) -> Tensor:
        """Return d, (B, K), with the covariance of each component."""
        K = len(self.mean)
        features = statistics.features[None].expand(K, -1, -1)
        v = torch.cat([features, statistics.by_class.transpose(0, 1)], 2)  # (K, B, D)
        t = self._curve(self._standardize(v, self.mean[:, None]))
        residual = t[self.component_class] - self.center[:, None]  # (P, B, D)
        squared = (residual @ self._roots.mT).square().sum(2) - 2 * self.log_weight[:, None]
        return -2 * grouped_logsumexp(-squared / 2, self.component_class, K).mT

    def _squared_tied(self, statistics: Statistics) -> Tensor:
        """Return d, (B, K), as ‖W v‖² = ‖A f‖² + ‖B f + C v_c‖²: products with the features f are the same for all classes."""
        F, W = statistics.features.shape[1], self._roots[0]
        origin = self.mean.mean(0)  # products of values far from zero would lose their significant digits
        f = ((statistics.features.double() - origin[:F]) / self.scale[:F]).float()
        mean = ((self.mean - origin) / self.scale).float() + self.center
        first, class_first = f @ W[:F, :F].mT, mean[:, :F] @ W[:F, :F].mT
        squared = torch.cdist(first, class_first, compute_mode="donot_use_mm_for_euclid_dist").square()
        by_class = ((statistics.by_class.double() - origin[F:]) / self.scale[F:]).float()
        rest = (f @ W[F:, :F].mT)[:, None] + by_class @ W[F:, F:].mT - mean @ W[F:].mT
        return squared + rest.square().sum(2)


def _means_and_scale(v: Tensor, y: Tensor, K: int, options: NonconformityOptions) -> tuple[Tensor, Tensor]:
    """Return class means (K, D) of statistics (N, D) and the standard deviation about them (D,), in float64."""
    v, n = v.double(), torch.bincount(y, minlength=K).double()
    total = torch.zeros(K, v.shape[1], dtype=torch.float64).index_add_(0, y, v)
    mean = (total + options.pseudo_count * v.sum(0) / max(1, len(v))) / (n + options.pseudo_count)[:, None]
    sd, size = ((t.square().sum(0) / max(1, len(v))).sqrt() for t in (v - mean[y], v))
    # A constant statistic is scaled by its size: in units of its deviation, rounding errors would look atypical.
    return mean, torch.where(sd > options.constant_tolerance * size, sd, torch.where(size > 0, size, 1.0))


def _packed(root: Tensor) -> Tensor:
    """Return the rows of lower triangular matrices (P, D, D) one after another, (P, D (D + 1) / 2)."""
    rows, columns = torch.tril_indices(*root.shape[1:])
    return root[:, rows, columns].contiguous()


def _safe_log(squared: Tensor) -> Tensor:
    return squared.clamp_min(DEFAULT_OPTIONS.epsilon).log()
