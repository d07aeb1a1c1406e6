"""Likelihood-ratio score: the log-likelihood of a class relative to a background, the mean over all classes.

Variation that does not depend on the class, such as lighting or background, lowers the likelihood of every class alike
and cancels in the ratio (Ren 2019, Likelihood Ratios for Out-of-Distribution Detection). For Gaussians with one
covariance this is the relative Mahalanobis distance (Ren 2021, A Simple Fix to Mahalanobis Distance), which is linear
in x.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from likely.inference.conformal import median_and_mad, with_new_class


@dataclass(frozen=True)
class LikelihoodRatioOptions:
    """Constants of the score. `distance_tolerance`: MADs by which a distance counts less than a low likelihood ratio."""

    distance_tolerance: float = 1.0


DEFAULT_OPTIONS = LikelihoodRatioOptions()


def log_ratio(log_scores: Tensor, n_background: int) -> Tensor:
    """Return log p(x | c) − 1/n Σ_c' log p(x | c') over the first n classes c': (N, K) -> (N, K) nats."""
    return log_scores - log_scores[:, :n_background].mean(1, keepdim=True)


def combine_max(distance: Tensor, low_ratio: Tensor) -> Tensor:
    """Return max(distance − tolerance, low_ratio), both standardized to MADs of the class: nonconforming by either score.

    The distance includes class-independent variation, the ratio does not. The tolerance keeps known images from being
    rejected for their distance, while images that resemble nothing the model knows lie many MADs away.
    """
    return torch.maximum(distance - DEFAULT_OPTIONS.distance_tolerance, low_ratio)


@dataclass(frozen=True)
class LikelihoodRatioScore:
    """Nonconformity score s_c(x) = (median_c − r_c(x)) / mad_c of a low log ratio r (`log_ratio`).

    `median` and `mad` (K,) are those of held-out images of the class. The background consists of the first `n_background` ()
    classes: classes added later do not change the scores of earlier ones.
    """

    median: Tensor
    mad: Tensor
    n_background: Tensor

    @classmethod
    def fit(cls, log_ratios: Tensor, y: Tensor, K: int) -> LikelihoodRatioScore:
        """Fit to the log ratios (N,) of held-out images under their true classes y (N,)."""
        median, mad = median_and_mad(log_ratios, y, K)
        return cls(median.float(), mad.float(), torch.tensor(K))

    def __call__(self, log_scores: Tensor) -> Tensor:
        """Return the scores of images under all classes: (N, K) -> (N, K)."""
        return (self.median - log_ratio(log_scores, int(self.n_background))) / self.mad

    def score_true_class(self, log_ratios: Tensor, y: Tensor) -> Tensor:
        """Return the scores (N,) of log ratios (N,) under the classes y (N,)."""
        return (self.median[y] - log_ratios) / self.mad[y]

    def with_new_class(self, log_scores: Tensor) -> tuple[LikelihoodRatioScore, Tensor]:
        """Return the score with class K added, from log_scores (n, K + 1) of its images, and the score of each image, (n,)."""
        log_ratios = log_ratio(log_scores, int(self.n_background))[:, -1]
        larger = LikelihoodRatioScore(*with_new_class(log_ratios, self.median, self.mad), self.n_background)
        return larger, larger.score_true_class(log_ratios, torch.full((len(log_ratios),), len(self.median)))

    def tensors(self) -> dict[str, Tensor]:
        """Return the tensors by name, for a checkpoint."""
        return {f.name: getattr(self, f.name) for f in fields(self)}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> LikelihoodRatioScore:
        """Restore from the result of `tensors`."""
        return cls(**tensors)
