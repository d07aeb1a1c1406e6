"""None of these: how strange an image is to each class, and the p-value that turns strangeness into a promise.

Split conformal prediction (Vovk 2012, Conditional validity of inductive conformal predictors): whatever the strangeness
score, as long as calibration images and new ones are exchangeable, P(p_c(x) ≤ α | class c) ≤ α.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from likely.answer import Calibration, Status

BORROWED = 5.0  # images' worth of trust in the mean of all classes when a class's own mean is estimated
RIDGE = 1e-3  # added to the statistics' correlation matrix: two statistics may say the same thing
CONSTANT = 1e-6  # of a statistic's size: what varies by less varies by the rounding of float32


@dataclass(frozen=True)
class Strangeness:
    """s_c(x) = (t_c(x) − m_c)ᵀ S⁻¹ (t_c(x) − m_c): how far the statistics of x lie from those of held-out images of c.

    Too likely is as strange as too unlikely (Morningstar 2021, Density of States Estimation). `mean` (K, n_statistics);
    `whitening` (n_statistics, n_statistics), Wᵀ W = S⁻¹, is shared by the classes.
    """

    mean: Tensor
    whitening: Tensor

    @classmethod
    def fit(cls, t: Tensor, y: Tensor) -> Strangeness:
        """From held-out images' statistics: t (N, K, n) of `stacked`, labels (N,)."""
        K = t.shape[1]
        own = t[torch.arange(len(y)), y].double()  # (N, n): each image's statistics under its own class
        n = torch.bincount(y, minlength=K).double()[:, None]
        total = torch.zeros(K, t.shape[2], dtype=torch.float64).index_add_(0, y, own)
        mean = (total + BORROWED * own.sum(0) / max(1, len(y))) / (n + BORROWED)
        return cls(mean, _whitening(own, mean[y]))

    def __call__(self, t: Tensor) -> Tensor:
        """(B, K, n) -> (B, K)."""
        return ((t.double() - self.mean) @ self.whitening.mT).square().sum(2)


def stacked(statistics: Mapping[str, Tensor], K: int) -> Tensor:
    """Named (B,) or (B, K) tensors as one, (B, K, n), in the order of their names."""
    columns = [statistics[name] for name in sorted(statistics)]
    return torch.stack([t if t.ndim == 2 else t[:, None].expand(-1, K) for t in columns], 2)


@dataclass(frozen=True)
class ConformalScores:
    """The calibration images' scores of one kind, each under its own class: (N,), with the labels (N,).

    `middle` and `spread` (K,) put the scores of different classes on one scale where a class has too few of its own. They
    come from other held-out images: from the calibration images themselves they would bend the promise.
    """

    scores: Tensor
    labels: Tensor
    middle: Tensor
    spread: Tensor

    @classmethod
    def fit(cls, calibration: Tensor, labels: Tensor, held_out: Tensor, held_out_labels: Tensor) -> ConformalScores:
        """From scores (N, K) of calibration images and of other held-out images, with their labels."""
        own, other = _own(calibration, labels), _own(held_out, held_out_labels)
        scales = [_middle_and_spread(other[held_out_labels == c], other) for c in range(calibration.shape[1])]
        middle, spread = torch.tensor(scales, dtype=torch.float64).unbind(1)
        return cls(own, labels, middle, spread)

    def calibration(self, alpha: float) -> tuple[Calibration, ...]:
        """What each class's p-values can promise at `alpha`: it takes 1/alpha images to be that sure of anything."""
        fallback = Calibration.POOLED if len(self.labels) >= 1 / alpha else Calibration.NONE
        return tuple(Calibration.PER_CLASS if n >= 1 / alpha else fallback for n in self._counts.tolist())

    def p_values(self, scores: Tensor, alpha: float) -> Tensor:
        """p_c = (1 + #{calibration scores of c at least as large}) / (n_c + 1): (B, K) -> (B, K); NaN without a promise."""
        scores = scores.double()
        standardised = (scores - self.middle) / self.spread
        kinds, pool = self.calibration(alpha), self._pool(alpha)
        p = torch.full_like(scores, torch.nan)
        for c, kind in enumerate(kinds):
            if kind is Calibration.PER_CLASS:
                p[:, c] = _conformal(scores[:, c], self._by_class[c])
            elif kind is Calibration.POOLED:
                p[:, c] = _conformal(standardised[:, c], pool)
        return p

    @cached_property
    def _counts(self) -> Tensor:
        return torch.bincount(self.labels, minlength=len(self.middle))

    @cached_property
    def _by_class(self) -> tuple[Tensor, ...]:
        """Each class's scores, ascending."""
        order = self.scores.argsort()
        order = order[self.labels[order].argsort(stable=True)]
        return torch.split(self.scores[order], self._counts.tolist())

    def _pool(self, alpha: float) -> Tensor:
        """Standardised scores of the classes that have too few of their own, ascending.

        Those alone: among the many images of large classes, which do not use the pool, small ones would drown, and with them
        the promise. Only where all small classes together are too few as well does every class lend its images.
        """
        few = self._counts[self.labels] < 1 / alpha
        chosen = few if few.sum() >= 1 / alpha else torch.ones_like(few)
        labels = self.labels[chosen]
        return ((self.scores[chosen] - self.middle[labels]) / self.spread[labels]).sort().values


def status(p_value: float, n_in_set: int, alpha: float) -> Status:
    """`unknown` if and only if no class finds the image typical at `alpha`; else by how many classes fit. NaN: no promise."""
    if math.isnan(p_value):
        return Status.UNCALIBRATED
    if p_value <= alpha:
        return Status.UNKNOWN
    return Status.KNOWN if n_in_set == 1 else Status.AMBIGUOUS


def prediction_set(log_posterior: Tensor, set_p_values: Tensor, alpha: float) -> Tensor:
    """Which classes an answer names: the argmax, and every class whose conformal p exceeds `alpha`: (B, K) bool."""
    best = torch.nn.functional.one_hot(log_posterior.argmax(1), log_posterior.shape[1]).bool()
    return best | (set_p_values > alpha)  # NaN compares false


def _own(scores: Tensor, labels: Tensor) -> Tensor:
    """Each image's score under its own class: (N, K), (N,) -> (N,)."""
    return scores.double().gather(1, labels[:, None])[:, 0]


def _conformal(scores: Tensor, ordered: Tensor) -> Tensor:
    """(1 + #{calibration ≥ score}) / (n + 1), from the calibration scores in ascending order."""
    n_below = torch.searchsorted(ordered, scores.contiguous())
    return (1 + len(ordered) - n_below).double() / (len(ordered) + 1)


def _middle_and_spread(own: Tensor, everyone: Tensor) -> tuple[float, float]:
    """Median and mean absolute deviation of a class's scores, borrowing from all classes where it has few."""
    if len(everyone) == 0:
        return 0.0, 1.0
    middle = everyone.median().item()
    spread = (everyone - middle).abs().mean().item()
    if len(own):
        weight = len(own) / (len(own) + BORROWED)
        own_middle = own.median().item()
        middle = weight * own_middle + (1 - weight) * middle
        spread = weight * (own - own_middle).abs().mean().item() + (1 - weight) * spread
    return middle, max(spread, 1e-12)


def _whitening(own: Tensor, mean: Tensor) -> Tensor:
    """W with Wᵀ W = S⁻¹, of statistics and their means (N, n) whose units may differ by orders of magnitude."""
    N = max(1, len(own))
    spread, size = ((t.square().sum(0) / N).sqrt() for t in (own - mean, own))
    # A statistic that was the same for every image is measured by its size: in units of its spread, rounding is strange.
    scale = torch.where(spread > CONSTANT * size, spread, torch.where(size > 0, size, 1.0))
    z = (own - mean) / scale
    correlation = z.mT @ z / N + RIDGE * torch.eye(len(scale), dtype=torch.float64)
    root: Tensor = torch.linalg.inv(torch.linalg.cholesky(correlation))
    return (root / scale).contiguous()  # as a file keeps it: in another order of memory a product's last bits differ
