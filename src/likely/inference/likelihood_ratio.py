"""Contrast: whether an image is nearer to a class than to the others, as far as the class's own images are.

What differs from image to image whatever the class, the light and the shop, moves an image away from every class alike. It goes
when the class's likelihood is divided by that of all classes in the mean, a background (Ren 2019, Likelihood Ratios for
Out-of-Distribution Detection). Of Gaussians of one covariance that leaves what is linear in x.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from likely.inference.conformal import median_and_mad, with_new_class

DISTANCE_TOLERANCE = 1.0  # spreads that an image may lie further away than its contrast may be lower, and be as strange


def log_ratio(log_scores: Tensor, n_background: int) -> Tensor:
    """log p(x | c) − (1 / n) Σ_c' log p(x | c') over the first n classes c': (N, K) -> (N, K) nats."""
    return log_scores - log_scores[:, :n_background].mean(1, keepdim=True)


def combine_max(distance: Tensor, low_ratio: Tensor) -> Tensor:
    """max(distance − LENIENCE, low contrast), in spreads of a class's own images: strange by the one or by the other.

    What differs from image to image whatever the class is in the distance, and the contrast is what tells a class from one that
    nobody knows: so few known images are to be taken for strange by their distance, while what is none of the model's business
    lies many spreads away.
    """
    return torch.maximum(distance - DISTANCE_TOLERANCE, low_ratio)


@dataclass(frozen=True)
class LikelihoodRatioScore:
    """How low the contrast of an image with each class is: s_c(x) = (a_c − contrast_c(x)) / b_c.

    `middle` a and `spread` b (K,) are those of held-out images of the class. More contrast than they have is not strange.
    Classes after the first `n_rivals` came later, and are nobody's rivals: what was calibrated before them holds on.
    """

    median: Tensor
    mad: Tensor
    n_background: Tensor

    @classmethod
    def fit(cls, own: Tensor, y: Tensor, K: int) -> LikelihoodRatioScore:
        """From contrasts (N,) of held-out images with their own classes y (N,)."""
        middle, spread = median_and_mad(own, y, K)
        return cls(middle.float(), spread.float(), torch.tensor(K))

    def __call__(self, log_scores: Tensor) -> Tensor:
        """(N, K) -> (N, K)."""
        return (self.median - log_ratio(log_scores, int(self.n_background))) / self.mad

    def score_true_class(self, own: Tensor, y: Tensor) -> Tensor:
        """Of contrasts (N,) with the classes y (N,): (N,)."""
        return (self.median[y] - own) / self.mad[y]

    def with_new_class(self, log_scores: Tensor) -> tuple[LikelihoodRatioScore, Tensor]:
        """With a class besides, the last, from scores (N, K) of a few of its images; and each one's, (N,)."""
        own = log_ratio(log_scores, int(self.n_background))[:, -1]
        larger = LikelihoodRatioScore(*with_new_class(own, self.median, self.mad), self.n_background)
        return larger, larger.score_true_class(own, torch.full((len(own),), len(self.median)))

    def tensors(self) -> dict[str, Tensor]:
        """By name, for a checkpoint."""
        return {f.name: getattr(self, f.name) for f in fields(self)}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> LikelihoodRatioScore:
        """What `tensors` wrote."""
        return cls(**tensors)
