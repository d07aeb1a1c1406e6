"""None of these: the p-value that turns how strange an image is into a promise.

Split conformal prediction (Vovk 2012, Conditional validity of inductive conformal predictors): whatever the nonconformity
score, as long as calibration images and new ones are exchangeable, P(p_c(x) ≤ α | class c) ≤ α.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from likely.prediction import CalibrationScope, Status

PSEUDO_COUNT = 5.0  # images' worth of trust in the mean of all classes when a class's own mean is estimated


@dataclass(frozen=True)
class ConformalCalibrator:
    """The calibration images' scores of one kind, each under its own class: (N,), with the labels (N,).

    `middle` and `spread` (K,) put the scores of different classes on one scale where a class has too few of its own. They
    come from other held-out images: from the calibration images themselves they would bend the promise. Of a class that came
    later there are no others, and while it has too few images for p-values of its own, theirs are approximate. Classes from
    `n_first` () on came later: their images calibrate no class that was there before.
    """

    scores: Tensor
    labels: Tensor
    median: Tensor
    mad: Tensor
    n_initial_classes: Tensor

    @classmethod
    def fit(cls, own: Tensor, labels: Tensor, held_out: Tensor, held_out_labels: Tensor, K: int) -> ConformalCalibrator:
        """From the scores (N,) that calibration images and other held-out images have under their own classes, of K."""
        middle, spread = median_and_mad(held_out.double(), held_out_labels, K)
        return cls(own.double(), labels, middle, spread, torch.tensor(K))

    def with_new_class(self, own: Tensor) -> ConformalCalibrator:
        """With a class besides, of which calibration images have these scores (N,)."""
        middle, spread = with_new_class(own, self.median, self.mad)
        labels = self.labels.new_full((len(own),), len(self.median))
        return ConformalCalibrator(
            torch.cat([self.scores, own]),
            torch.cat([self.labels, labels]),
            middle,
            spread,
            self.n_initial_classes,
        )

    def scope(self, alpha: float) -> tuple[CalibrationScope, ...]:
        """What each class's p-values can promise at `alpha`: it takes 1/alpha images to be that sure of anything."""
        n_first, lent = int(self.n_initial_classes), [int(self._in_pool(alpha, later).sum()) for later in (False, True)]
        kinds = [CalibrationScope.POOLED if n >= 1 / alpha else CalibrationScope.NONE for n in lent]
        return tuple(
            CalibrationScope.PER_CLASS if n >= 1 / alpha else kinds[c >= n_first]
            for c, n in enumerate(self._counts.tolist())
        )

    def n_missing(self, alpha: float) -> tuple[int, ...]:
        """How many calibration images more each class needs for a promise of its own at `alpha`; 0 where it has enough."""
        return tuple(max(0, math.ceil(1 / alpha - 1e-9) - n) for n in self._counts.tolist())

    def p_values(self, scores: Tensor, alpha: float) -> Tensor:
        """p_c = (1 + #{calibration scores of c at least as large}) / (n_c + 1): (B, K) -> (B, K); NaN without a promise."""
        scores = scores.double()
        standardized = (scores - self.median) / self.mad
        kinds, later = self.scope(alpha), torch.arange(len(self._counts)) >= self.n_initial_classes
        p = torch.full_like(scores, torch.nan)
        alone, pooled = (
            torch.tensor([k is kind for k in kinds]) for kind in (CalibrationScope.PER_CLASS, CalibrationScope.POOLED)
        )
        p[:, alone] = _conformal(scores[:, alone].mT, self._by_class[alone], self._counts[alone]).mT
        for late in (False, True):
            if (chosen := pooled & (later == late)).any():
                pool = self._pool(alpha, late)
                p[:, chosen] = _conformal(standardized[:, chosen], pool, torch.tensor([len(pool)]))
        return p

    @cached_property
    def _counts(self) -> Tensor:
        return torch.bincount(self.labels, minlength=len(self.median))

    @cached_property
    def _by_class(self) -> Tensor:
        """Each class's scores, ascending, and then as many times infinity as the largest class has more: (K, n)."""
        order = self.scores.argsort()
        order = order[self.labels[order].argsort(stable=True)]
        own = list(torch.split(self.scores[order], self._counts.tolist()))
        return torch.nn.utils.rnn.pad_sequence(own, batch_first=True, padding_value=torch.inf)

    def _pool(self, alpha: float, later: bool) -> Tensor:
        """Standardized scores that classes with too few of their own share, ascending."""
        chosen = self._in_pool(alpha, later)
        labels = self.labels[chosen]
        return ((self.scores[chosen] - self.median[labels]) / self.mad[labels]).sort().values

    def _in_pool(self, alpha: float, later: bool) -> Tensor:
        """Which scores these are, (N,) bool: those of the classes that have too few, for classes that came later or did not.

        Those alone: among the many images of large classes, which do not use the pool, small ones would drown, and with them
        the promise. Only where all small classes together are too few as well does every class lend its images.
        """
        there = torch.ones_like(self.labels, dtype=torch.bool) if later else self.labels < self.n_initial_classes
        few = there & (self._counts[self.labels] < 1 / alpha)
        return few if few.sum() >= 1 / alpha else there


def status(p_value: float, n_in_set: int, alpha: float) -> Status:
    """`unknown` if and only if no class finds the image typical at `alpha`; else by how many classes fit. NaN: no promise."""
    if math.isnan(p_value):
        return Status.UNCALIBRATED
    if p_value <= alpha:
        return Status.UNKNOWN
    return Status.KNOWN if n_in_set == 1 else Status.AMBIGUOUS


def prediction_set(log_posterior: Tensor, posterior_p_values: Tensor, alpha: float) -> Tensor:
    """Which classes an answer names: the argmax, and every class whose conformal p exceeds `alpha`: (B, K) bool."""
    best = torch.nn.functional.one_hot(log_posterior.argmax(1), log_posterior.shape[1]).bool()
    return best | (posterior_p_values > alpha)  # NaN compares false


def _conformal(scores: Tensor, ordered: Tensor, n: Tensor) -> Tensor:
    """(1 + #{calibration ≥ score}) / (n + 1) of scores (R, B), from rows (R, m) of calibration scores in ascending order, or
    one row (m,) for all, of which the first n (R,) or (1,) are there."""
    n_below = torch.searchsorted(ordered, scores.contiguous()).clamp_max(n[:, None])
    return (1 + n[:, None] - n_below).double() / (n[:, None] + 1)


def median_and_mad(scores: Tensor, labels: Tensor, K: int) -> tuple[Tensor, Tensor]:
    """Median and mean absolute deviation of each class's scores, borrowing from all classes where it has few: (N,) -> (K,)."""
    if len(scores) == 0:
        return torch.zeros(K, dtype=torch.float64), torch.ones(K, dtype=torch.float64)
    scores = scores.double()
    middle = scores.median().item()
    usual = middle, (scores - middle).abs().mean().item()
    order = labels.argsort(stable=True)
    own = torch.split(scores[order], torch.bincount(labels, minlength=K).tolist())
    found = torch.tensor([shrunk_median_and_mad(each, *usual) for each in own], dtype=torch.float64).reshape(-1, 2)
    return found[:, 0].contiguous(), found[:, 1].clamp_min(1e-12)


def with_new_class(own: Tensor, median: Tensor, mad: Tensor) -> tuple[Tensor, Tensor]:
    """Medians and mean deviations of K classes (K,) and of one more, the last, of which a few images have the scores (n,):
    (K + 1,)."""
    of_last, spread_of_last = shrunk_median_and_mad(own, median.mean().item(), mad.mean().item())
    return torch.cat([median, median.new_tensor([of_last])]), torch.cat([mad, mad.new_tensor([spread_of_last])])


def shrunk_median_and_mad(own: Tensor, median: float, mad: float) -> tuple[float, float]:
    """Median and mean absolute deviation of a class's scores (n,), drawn to what is usual by as much as BORROWED images."""
    if not len(own):
        return median, mad
    weight, own_middle = len(own) / (len(own) + PSEUDO_COUNT), own.median().item()
    own_spread = (own - own_middle).abs().mean().item()
    return weight * own_middle + (1 - weight) * median, weight * own_spread + (1 - weight) * mad
