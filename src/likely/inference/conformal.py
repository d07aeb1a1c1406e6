"""Split conformal prediction: p-values for "the image is like the images of class c", and prediction sets.

Vovk 2012, Conditional validity of inductive conformal predictors: for any nonconformity score, if calibration and test
images are exchangeable, P(p_c(x) ≤ α | class c) ≤ α. Class-conditional (Mondrian) p-values rank an image among the
calibration images of the class alone; classes with too few of them share a pool, and their guarantee is marginal over
these classes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from likely.prediction import CalibrationScope, Status


@dataclass(frozen=True)
class ConformalOptions:
    """Constants of the standardization of nonconformity scores.

    `pseudo_count` is the number of images by which the median and the deviation over all classes count in the estimates of a
    single class; `min_mad` bounds a class's deviation from below.
    """

    pseudo_count: float = 5.0
    min_mad: float = 1e-12


DEFAULT_OPTIONS = ConformalOptions()


@dataclass(frozen=True)
class ConformalCalibrator:
    """Conformal p-values: the rank of a score under class c among the scores of calibration images of class c.

    p_c(x) = (1 + #{i : y_i = c, s_i ≥ s_c(x)}) / (n_c + 1). The scores s_i of N calibration images under their true classes
    y_i are `scores` (N,) and `labels` (N,); a high score means an atypical image.

    `median` and `mad` (K,), the median and the mean absolute deviation of each class, put the scores of different
    classes on one scale in the pool. They are estimated from other held-out images, because estimates from the
    calibration images themselves would invalidate the guarantee. Classes from index `n_initial_classes` () on were added
    later: they are never pooled, and have no p-value until they have enough images of their own.
    """

    scores: Tensor
    labels: Tensor
    median: Tensor
    mad: Tensor
    n_initial_classes: Tensor

    @classmethod
    def fit(
        cls, scores: Tensor, labels: Tensor, held_out_scores: Tensor, held_out_labels: Tensor, K: int
    ) -> ConformalCalibrator:
        """Calibrate K classes with the true-class scores of calibration images (N,) and of other held-out images (M,)."""
        median, mad = median_and_mad(held_out_scores.double(), held_out_labels, K)
        return cls(scores.double(), labels, median, mad, torch.tensor(K))

    def with_new_class(self, scores: Tensor) -> ConformalCalibrator:
        """Return a calibrator with class K added, calibrated with the scores (n,) of its images."""
        median, mad = with_new_class(scores, self.median, self.mad)
        labels = self.labels.new_full((len(scores),), len(self.median))
        return ConformalCalibrator(
            torch.cat([self.scores, scores]), torch.cat([self.labels, labels]), median, mad, self.n_initial_classes
        )

    def with_more_images(self, scores: Tensor, c: int) -> ConformalCalibrator:
        """Return a calibrator that also ranks among the scores (n,) of further images of class c."""
        labels = self.labels.new_full((len(scores),), c)
        return replace(self, scores=torch.cat([self.scores, scores.double()]), labels=torch.cat([self.labels, labels]))

    def with_other_images(self, scores: Tensor, labels: Tensor) -> ConformalCalibrator:
        """Return a calibrator that ranks in the classes `labels` (n,) among the scores (n,) of other images instead."""
        stays = ~torch.isin(self.labels, labels)
        return replace(
            self,
            scores=torch.cat([self.scores[stays], scores.double()]),
            labels=torch.cat([self.labels[stays], labels]),
        )

    def scope(self, alpha: float) -> tuple[CalibrationScope, ...]:
        """Return the scope of each class's guarantee at `alpha`; p ≤ α is possible with at least 1/α calibration images."""
        pool_size = int(self._in_pool(alpha).sum())
        pooled = CalibrationScope.POOLED if pool_size >= 1 / alpha else CalibrationScope.NONE
        others = (
            pooled if c < int(self.n_initial_classes) else CalibrationScope.NONE for c in range(len(self._counts))
        )
        return tuple(
            CalibrationScope.PER_CLASS if n >= 1 / alpha else other
            for n, other in zip(self._counts.tolist(), others, strict=True)
        )

    def n_missing(self, alpha: float) -> tuple[int, ...]:
        """Return the number of further calibration images that each class needs for a class-conditional guarantee."""
        return tuple(max(0, math.ceil(1 / alpha - 1e-9) - n) for n in self._counts.tolist())

    def p_values(self, scores: Tensor, alpha: float) -> Tensor:
        """Return p_c = (1 + #{calibration scores of c ≥ score}) / (n_c + 1), (B, K) -> (B, K); NaN without a guarantee."""
        scores = scores.double()
        standardized = (scores - self.median) / self.mad
        scope = self.scope(alpha)
        p = torch.full_like(scores, torch.nan)
        per_class, pooled = (
            torch.tensor([s is wanted for s in scope])
            for wanted in (CalibrationScope.PER_CLASS, CalibrationScope.POOLED)
        )
        p[:, per_class] = _rank_p_values(
            scores[:, per_class].mT, self._sorted_by_class[per_class], self._counts[per_class]
        ).mT
        pool = self._pool(alpha)
        p[:, pooled] = _rank_p_values(standardized[:, pooled], pool, torch.tensor([len(pool)]))
        return p

    @cached_property
    def _counts(self) -> Tensor:
        return torch.bincount(self.labels, minlength=len(self.median))

    @cached_property
    def _sorted_by_class(self) -> Tensor:
        """Scores of each class in ascending order, padded with infinity to the largest class, (K, n)."""
        order = self.scores.argsort()
        order = order[self.labels[order].argsort(stable=True)]
        by_class = list(torch.split(self.scores[order], self._counts.tolist()))
        return torch.nn.utils.rnn.pad_sequence(by_class, batch_first=True, padding_value=torch.inf)

    def _pool(self, alpha: float) -> Tensor:
        """Standardized scores of the pool in ascending order."""
        chosen = self._in_pool(alpha)
        labels = self.labels[chosen]
        return ((self.scores[chosen] - self.median[labels]) / self.mad[labels]).sort().values

    def _in_pool(self, alpha: float) -> Tensor:
        """Mask (N,) of the scores in the pool of the initial classes.

        The pool holds the classes with too few images only: among the many images of large classes, which do not use it, the
        small classes would lose their guarantee. If all small classes together are too few as well, all classes are pooled.
        """
        eligible = self.labels < self.n_initial_classes
        small = eligible & (self._counts[self.labels] < 1 / alpha)
        return small if small.sum() >= 1 / alpha else eligible


def n_for_level(alpha: float) -> int:
    """Return the number of calibration images from which on a p-value, at least 1 / (n + 1), can reach `alpha`."""
    return math.ceil(1 / alpha - 1 - 1e-9)


@dataclass(frozen=True)
class ImageCalibrator:
    """Conformal p-value of an image: the rank of its score among calibration images of all classes (Bates 2021).

    p(x) = (1 + Σ_i w_i [s_i ≥ s(x)]) / (1 + Σ_i w_i)

    with `scores` s and `weights` w, (N,) each: 1 for the images of the training, so that P(p ≤ α) ≤ α if test and
    calibration images are exchangeable. The images of a class that were added later weigh together as much as its prior
    (weighted conformal p-values, Tibshirani 2019), and each at most 1: few images do not represent a class.
    """

    scores: Tensor
    weights: Tensor

    @classmethod
    def fit(cls, scores: Tensor) -> ImageCalibrator:
        """Calibrate with the scores (N,) of calibration images."""
        return cls(scores.double(), torch.ones(len(scores), dtype=torch.float64))

    def with_class_images(self, scores: Tensor, prior_odds: float) -> ImageCalibrator:
        """Return a calibrator with the scores (n,) of later images of one class, whose prior odds are π / (1 − π)."""
        weight = min(1.0, prior_odds * float(self.weights.sum()) / max(1, len(scores)))
        return ImageCalibrator(
            torch.cat([self.scores, scores.double()]),
            torch.cat([self.weights, self.weights.new_full((len(scores),), weight)]),
        )

    def n_missing(self, alpha: float) -> int:
        """Return the number of further calibration images for which p ≤ α is possible."""
        return max(0, n_for_level(alpha) - math.floor(float(self.weights.sum()) + 1e-9))

    def p_values(self, scores: Tensor, alpha: float) -> Tensor:
        """Return the p-values of images from their scores, (N,) -> (N,); NaN if no p ≤ α is possible."""
        if self.n_missing(alpha):
            return torch.full_like(scores, torch.nan, dtype=torch.float64)
        calibration, weight_from = self._weight_from
        at_least = weight_from[torch.searchsorted(calibration, scores.double().contiguous())]
        return (1 + at_least) / (1 + weight_from[0])

    def leave_one_out_p_values(self) -> Tensor:
        """Return the p-value of each calibration image among the others, (N,)."""
        calibration, weight_from = self._weight_from
        at_least = weight_from[torch.searchsorted(calibration, self.scores)] - self.weights
        return (1 + at_least) / (1 + weight_from[0] - self.weights)

    @cached_property
    def _weight_from(self) -> tuple[Tensor, Tensor]:
        """Ascending scores (N,), and the total weight of the scores from each index on, (N + 1,)."""
        scores, order = self.scores.sort()
        weight_from = self.weights[order].flip(0).cumsum(0).flip(0)
        return scores, torch.cat([weight_from, weight_from.new_zeros(1)])


def status(p_value: float, set_size: int, alpha: float) -> Status:
    """Return `unknown` if and only if p ≤ α, else `known` or `ambiguous` by the set's size; NaN means `uncalibrated`."""
    if math.isnan(p_value):
        return Status.UNCALIBRATED
    if p_value <= alpha:
        return Status.UNKNOWN
    return Status.KNOWN if set_size == 1 else Status.AMBIGUOUS


def prediction_set(log_posterior: Tensor, posterior_p_values: Tensor, alpha: float) -> Tensor:
    """Return the mask (B, K) of the argmax of the posterior and of every class whose conformal p-value exceeds `alpha`."""
    best = torch.nn.functional.one_hot(log_posterior.argmax(1), log_posterior.shape[1]).bool()
    return best | (posterior_p_values > alpha)  # NaN compares false


def _rank_p_values(scores: Tensor, calibration: Tensor, n: Tensor) -> Tensor:
    """Return (1 + #{calibration ≥ score}) / (n + 1) for scores (R, B).

    `calibration` holds ascending scores, one row (R, m) for each row of `scores` or one row (m,) for all; the first n, (R,) or
    (1,), of a row count.
    """
    n_below = torch.searchsorted(calibration, scores.contiguous()).clamp_max(n[:, None])
    return (1 + n[:, None] - n_below).double() / (n[:, None] + 1)


def median_and_mad(scores: Tensor, labels: Tensor, K: int) -> tuple[Tensor, Tensor]:
    """Return each class's median and mean absolute deviation of scores (N,), (K,) each, shrunk toward those of all scores."""
    if len(scores) == 0:
        return torch.zeros(K, dtype=torch.float64), torch.ones(K, dtype=torch.float64)
    scores = scores.double()
    median = scores.median().item()
    overall = median, (scores - median).abs().mean().item()
    order = labels.argsort(stable=True)
    by_class = torch.split(scores[order], torch.bincount(labels, minlength=K).tolist())
    found = torch.tensor([_shrunk_median_and_mad(each, *overall) for each in by_class], dtype=torch.float64)
    found = found.reshape(-1, 2)
    return found[:, 0].contiguous(), found[:, 1].clamp_min(DEFAULT_OPTIONS.min_mad)


def with_new_class(scores: Tensor, median: Tensor, mad: Tensor) -> tuple[Tensor, Tensor]:
    """Append the median and the deviation of a new class with scores (n,) to those of K classes: (K + 1,) each."""
    new_median, new_mad = _shrunk_median_and_mad(scores, median.mean().item(), mad.mean().item())
    return torch.cat([median, median.new_tensor([new_median])]), torch.cat([mad, mad.new_tensor([new_mad])])


def _shrunk_median_and_mad(scores: Tensor, median: float, mad: float) -> tuple[float, float]:
    """Return median and mean absolute deviation of scores (n,), shrunk toward `median` and `mad`."""
    if not len(scores):
        return median, mad
    weight, own_median = len(scores) / (len(scores) + DEFAULT_OPTIONS.pseudo_count), scores.median().item()
    own_mad = (scores - own_median).abs().mean().item()
    return weight * own_median + (1 - weight) * median, weight * own_mad + (1 - weight) * mad
