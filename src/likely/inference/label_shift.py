"""Label shift: estimation of a new class prior π from unlabeled images, while p(x | c) stays the same.

The likelihood of N unlabeled images, Π_i Σ_c π_c p(x_i | c), is log-concave in π and maximized by EM (Saerens 2002,
Adjusting the outputs of a classifier to new a priori probabilities, eq. 2.9). A bias correction fitted to labeled
calibration images removes the bias of the scores, a test retains the training prior unless the images refute it, and
confidence intervals and `Identifiability` state how much the images can determine.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import torch
from torch import Tensor

from likely.exceptions import InvalidValueError
from likely.inference.posterior import log_posterior
from likely.inference.temperature_scaling import weights


@dataclass(frozen=True)
class LabelShiftOptions:
    """Constants of the estimate.

    `pseudo_count`: images by which the training prior counts, so that no unseen class gets probability 0.
    `tolerance`: largest distance of an objective from its optimum, nats over all images.
    `max_steps`: of EM and of Newton's method.
    `prior_sd`: standard deviation of the Gaussian prior of a class's bias, nats.
    `min_curvature`: curvatures below this fraction of the largest are rounding errors.
    `sum_tolerance`: tolerated deviation of user-supplied class fractions from a sum of 1.
    """

    pseudo_count: float = 1.0
    tolerance: float = 1e-6
    max_steps: int = 10_000
    prior_sd: float = 3.0
    min_curvature: float = 1e-10
    sum_tolerance: float = 0.02


DEFAULT_OPTIONS = LabelShiftOptions()


@dataclass(frozen=True)
class BiasCorrection:
    """Bias b of the scores s, `values` (K,) with p(c | x) ∝ π_c exp(s_c(x) + b_c), and its `covariance` (K, K).

    With the fitted b, the mean posterior of the calibration images equals the class fractions of their labels (Alexandari 2020,
    Maximum likelihood with bias-corrected calibration), so that EM finds no shift in images from the training prior.
    """

    values: Tensor
    covariance: Tensor

    def with_new_class(self) -> BiasCorrection:
        """Return the correction with class K added, of unknown bias."""
        K = len(self.values)
        if not len(self.covariance):
            return BiasCorrection.unavailable(K + 1)
        covariance = self.covariance.new_zeros(K + 1, K + 1)
        covariance[:K, :K] = self.covariance
        covariance[K, K] = DEFAULT_OPTIONS.prior_sd**2
        return BiasCorrection(torch.cat([self.values, self.values.new_zeros(1)]), covariance)

    @classmethod
    def identity(cls, K: int) -> BiasCorrection:
        """Return the correction that changes nothing."""
        zeros = torch.zeros(K, dtype=torch.float64)
        return cls(zeros, zeros.diag())

    @classmethod
    def unavailable(cls, K: int) -> BiasCorrection:
        """Return a placeholder for too many classes to store a covariance; no prior can be estimated with it."""
        return cls(torch.zeros(K, dtype=torch.float64), torch.zeros(0, 0, dtype=torch.float64))

    @classmethod
    def fit(cls, log_scores: Tensor, y: Tensor, log_prior: Tensor, temperature: float = 1.0) -> BiasCorrection:
        """Minimize −Σ_i w_i log p(y_i | x_i) + ‖b‖² / (2 prior_sd²) by Newton's method: scores (n, K), labels (n,), log π (K,).

        The weights w make the images represent the training prior. The covariance is the sandwich estimator (White
        1982, Maximum likelihood estimation of misspecified models, theorem 3.2): it holds for wrong scores too, if
        images are exchangeable, and its normal approximation needs about thirty images per class.
        """
        if not len(y):
            zeros = torch.zeros(len(log_prior), dtype=torch.float64)
            return cls(zeros, torch.full_like(zeros, DEFAULT_OPTIONS.prior_sd**2).diag())
        is_present = torch.bincount(y, minlength=len(log_prior)) > 0
        images = _LabeledImages(
            log_scores.double() / temperature,
            y,
            torch.where(is_present, log_prior.double(), -torch.inf),  # a class without images has bias 0
            weights(y, log_prior),
        )
        b, gradients, hessian = images.fit()
        residuals = _within_classes(gradients, y)
        inverse = torch.linalg.inv(hessian)
        return cls(b, inverse @ (residuals.mT @ residuals + _prior_precision(len(b))) @ inverse)


@dataclass(frozen=True)
class Identifiability:
    """Information of unlabeled images about the class prior.

    `information_fraction` is their Fisher information in the least informative direction, relative to that of their
    labels: near 0 if the likelihood of some class is a mixture of others. `confused` are pairs of classes whose summed
    probability is significantly positive while that of either class may be zero: the images cannot separate the two.
    """

    information_fraction: float
    confused: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class PriorEstimate:
    """Class prior of `n_used` unlabeled images: `estimate` with confidence limits `low` and `high`, (K,) each.

    `log_prior` (K,) is the prior to classify with: the estimate if the prior has `shifted` (`p_value` ≤ alpha), else
    the training prior.
    """

    log_prior: Tensor
    estimate: Tensor
    low: Tensor
    high: Tensor
    p_value: float
    shifted: bool
    n_used: int
    identifiability: Identifiability


def estimate_prior(
    log_scores: Tensor,
    log_prior: Tensor,
    temperature: float = 1.0,
    bias_correction: BiasCorrection | None = None,
    alpha: float = 0.01,
) -> PriorEstimate:
    """Return π that maximizes Σ_i log Σ_c π_c exp(s_ic) + pseudo_count Σ_c π_train,c log π_c: (N, K), (K,) -> (K,).

    s = log_scores / T + b. If s is log p(x | c), each interval covers with probability 1 − alpha and a shift is
    reported wrongly with probability alpha; without a bias correction, the bias of the scores looks like a shift. Raise
    InvalidValueError without images, with too many classes, or for a training prior with a zero.
    """
    if len(log_scores) == 0:
        raise InvalidValueError("0 images say nothing about a class mix: expected at least one")
    if bias_correction is not None and not len(bias_correction.covariance):
        raise InvalidValueError(
            f"a mix of {len(log_prior):,} classes has too many shares to be estimated; give it as a file, or use uniform"
        )
    if not log_prior.isfinite().all():
        raise InvalidValueError(
            f"the training shares are {log_prior.exp().tolist()}: expected more than 0 for every class"
        )
    images = _UnlabeledImages.of(log_scores.double() / temperature, log_prior.double().exp(), bias_correction)
    prior, z = images.fit(), NormalDist().inv_cdf(1 - alpha / 2)
    p_value, information_fraction = _score_test(images, prior)
    covariance = _covariance(images, prior, z)
    low, high = _interval(prior, covariance.diagonal(), images.N, z)
    shifted = p_value <= alpha
    return PriorEstimate(
        log_prior=prior.log() if shifted else log_prior.double(),
        estimate=prior,
        low=low,
        high=high,
        p_value=p_value,
        shifted=shifted,
        n_used=images.N,
        identifiability=Identifiability(information_fraction, _confused(prior, covariance, images.N, z)),
    )


def log_prior_from_fractions(fractions: Sequence[float], labels: Sequence[str]) -> Tensor:
    """Return log π (K,) from user-supplied class fractions. Raise InvalidValueError unless they are in [0, 1] and sum to 1."""
    if len(fractions) != len(labels):
        named = ", ".join(labels)
        raise InvalidValueError(f"{len(fractions)} shares for {len(labels)} classes: expected one for each of {named}")
    for fraction, label in zip(fractions, labels, strict=True):
        if not 0 <= fraction <= 1:
            raise InvalidValueError(f"the share of {label!r} is {fraction:g}: expected a number from 0 to 1")
    total = math.fsum(fractions)
    if total == 0:
        raise InvalidValueError("the shares sum to 0: expected 1")
    if abs(total - 1) > DEFAULT_OPTIONS.sum_tolerance:
        scaled = ", ".join(f"{label} {fraction / total:.4g}" for fraction, label in zip(fractions, labels, strict=True))
        raise InvalidValueError(f"the shares sum to {total:g}: expected 1, as in {scaled}")
    return (torch.tensor(fractions, dtype=torch.float64) / total).log()


@dataclass(frozen=True)
class _LabeledImages:
    """Calibration images whose bias is fitted: scores (n, K), labels (n,), log prior (K,), weights (n,)."""

    scores: Tensor
    y: Tensor
    log_prior: Tensor
    weights: Tensor

    def fit(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return the optimal b (K,), the gradient of each image there (n, K) and the Hessian (K, K)."""
        b = torch.zeros_like(self.log_prior)
        for _ in range(DEFAULT_OPTIONS.max_steps):
            gradients, hessian = self._derivatives(b)
            gradient = gradients.sum(0) + b / DEFAULT_OPTIONS.prior_sd**2
            step = torch.linalg.solve(hessian, gradient)
            decrement = (gradient @ step).item()
            if decrement <= DEFAULT_OPTIONS.tolerance:
                break
            b = self._line_search(b, step, decrement)
        return b, gradients, hessian

    def _derivatives(self, b: Tensor) -> tuple[Tensor, Tensor]:
        p = log_posterior(self.scores + b, self.log_prior).exp()
        weighted = self.weights[:, None] * p
        target = self.weights[:, None] * torch.nn.functional.one_hot(self.y, len(b))
        return weighted - target, weighted.sum(0).diag() - weighted.mT @ p + _prior_precision(len(b))

    def _line_search(self, b: Tensor, step: Tensor, decrement: float) -> Tensor:
        """Return b − size · step, halving the size until the objective falls by a tenth of the prediction (Armijo 1966)."""
        before, size = self._objective(b), 1.0
        while (
            self._objective(b - size * step) > before - 0.1 * size * decrement and size > DEFAULT_OPTIONS.min_curvature
        ):
            size /= 2
        return b - size * step

    def _objective(self, b: Tensor) -> float:
        log_p = log_posterior(self.scores + b, self.log_prior).gather(1, self.y[:, None])[:, 0]
        return (b.square().sum() / (2 * DEFAULT_OPTIONS.prior_sd**2) - self.weights @ log_p).item()


def _prior_precision(K: int) -> Tensor:
    return torch.eye(K, dtype=torch.float64) / DEFAULT_OPTIONS.prior_sd**2


def _within_classes(gradients: Tensor, y: Tensor) -> Tensor:
    """Center gradients (n, K) by class: class weights are fixed, so only the variation within classes is random."""
    K = gradients.shape[1]
    n = torch.bincount(y, minlength=K).double()[:, None]
    mean = torch.zeros(K, K, dtype=torch.float64).index_add_(0, y, gradients) / n
    centered = (gradients - mean[y]) * (n / (n - 1)).sqrt()[y]
    return torch.where(n[y] > 1, centered, gradients)


@dataclass(frozen=True)
class _UnlabeledImages:
    """Images whose class prior is estimated.

    `likelihood` (N, K) is p(x_i | c) relative to the largest of each image, `training_prior` (K,) is π_train.
    """

    likelihood: Tensor
    training_prior: Tensor
    bias_covariance: Tensor

    @classmethod
    def of(cls, scores: Tensor, training_prior: Tensor, bias_correction: BiasCorrection | None) -> _UnlabeledImages:
        bias = bias_correction or BiasCorrection.identity(len(training_prior))
        scores = scores + bias.values
        return cls((scores - scores.amax(1, keepdim=True)).exp(), training_prior, bias.covariance)

    @property
    def N(self) -> int:
        return len(self.likelihood)

    def fit(self) -> Tensor:
        """Return the maximum a posteriori prior (K,) by accelerated EM (SQUAREM, Varadhan 2008).

        The objective is concave, so its distance from the optimum is at most the steepest slope toward a class.
        """
        prior, total = self.training_prior, self.N + DEFAULT_OPTIONS.pseudo_count
        floor = DEFAULT_OPTIONS.pseudo_count * self.training_prior / total  # lower bound of every EM step
        for _ in range(DEFAULT_OPTIONS.max_steps):
            first = self._em_step(prior)
            if total * ((first / prior).max() - 1) <= DEFAULT_OPTIONS.tolerance:
                break
            second = self._em_step(first)
            r, v = first - prior, second - 2 * first + prior
            length = (r.norm() / v.norm()).clamp(min=1)
            extrapolated = (prior + 2 * length * r + length.square() * v).maximum(floor)
            extrapolated = extrapolated / extrapolated.sum()
            prior = extrapolated if self._objective(extrapolated) > self._objective(second) else second
        return prior

    def slope(self, prior: Tensor) -> Tensor:
        """Return g_c = 1/N Σ_i p(x_i | c) / p(x_i), (K,): 1 at the maximum likelihood, less for classes at 0."""
        return (self.likelihood @ prior).reciprocal() @ self.likelihood / self.N

    def products(self, prior: Tensor, other: Tensor) -> Tensor:
        """Return Σ_i p(x_i | c) p(x_i | k) / (p(x_i) p'(x_i)), (K, K), with p(x) under `prior` and p'(x) under `other`."""
        weight = ((self.likelihood @ prior) * (self.likelihood @ other)).reciprocal()
        return (self.likelihood * weight[:, None]).mT @ self.likelihood

    def _em_step(self, prior: Tensor) -> Tensor:
        pseudo_count = DEFAULT_OPTIONS.pseudo_count
        return (self.N * prior * self.slope(prior) + pseudo_count * self.training_prior) / (self.N + pseudo_count)

    def _objective(self, prior: Tensor) -> float:
        log_likelihood = (self.likelihood @ prior).log().sum()
        return (log_likelihood + DEFAULT_OPTIONS.pseudo_count * self.training_prior @ prior.log()).item()


def _score_test(images: _UnlabeledImages, prior: Tensor) -> tuple[float, float]:
    """Return the p-value of the training prior by Rao's score test (1948), and the smallest information fraction.

    With u = slope − 1 at the training prior, uᵀ S⁻¹ u is compared with χ². Asymptotically it equals the
    likelihood-ratio statistic and with few images it is closer to χ² (it is Pearson's X² if the scores are certain). S
    includes the uncertainty of the bias correction. All values are in units of √π, in which the information of labels
    is the identity.
    """
    root = images.training_prior.sqrt()
    # Images from `prior`, weighted by p_train(x) / p(x), represent the training prior; a class without images to weight is
    # represented by certain ones.
    information = torch.outer(root, root) * images.products(images.training_prior, prior) / images.N
    information = information + _deficit(images, prior).diag()
    values, vectors = torch.linalg.eigh(information)
    is_informative = images.N * values >= 1  # the information of one label at least
    axes = vectors[:, is_informative]
    missing = axes.mT @ (torch.eye(len(root), dtype=torch.float64) - information) * root
    S = (values[is_informative] / images.N).diag() + missing @ images.bias_covariance @ missing.mT
    u = axes.mT @ (root * (images.slope(images.training_prior) - 1))
    p_value = _chi_squared_tail(u @ torch.linalg.solve(S, u), len(u) - 1)
    return p_value, max(0.0, values[0].item())


def _deficit(images: _UnlabeledImages, prior: Tensor) -> Tensor:
    """Return 1 − slope, (K,), at least 0: the fraction of each class's probability that no image accounts for."""
    return (1 - images.slope(prior)).clamp(min=0)


def _chi_squared_tail(value: Tensor, degrees: int) -> float:
    """Return P(χ² ≥ value); 1 without degrees of freedom."""
    if degrees < 1:
        return 1.0
    tail: float = torch.special.gammaincc(torch.tensor(degrees / 2, dtype=torch.float64), value / 2).item()
    return tail


def _covariance(images: _UnlabeledImages, prior: Tensor, z: float) -> Tensor:
    """Return the covariance (K, K) of the estimate: inverse observed information on the simplex plus the noise of the bias.

    A bootstrap would cost more than inverting one K × K matrix, and its samples never contain an unseen class.
    """
    information = images.products(prior, prior)
    C = _inverse_on_simplex(information)
    sensitivity = C @ (images.N * images.slope(prior).diag() - information * prior)
    C = C + sensitivity @ images.bias_covariance @ sensitivity.mT
    # At a probability near 0 the log-likelihood falls linearly, and by z²/2 sooner than its curvature implies.
    sd, fall = C.diagonal().sqrt(), images.N * _deficit(images, prior)
    shrink = z / (fall * sd + ((fall * sd).square() + z**2).sqrt())
    return C * torch.outer(shrink, shrink)


def _inverse_on_simplex(information: Tensor) -> Tensor:
    """Return the inverse of H among changes that sum to 0, with eigenvalues bounded below by rounding errors."""
    K = len(information)
    center = torch.eye(K, dtype=torch.float64) - 1 / K
    values, vectors = torch.linalg.eigh(center @ information @ center)
    axes = center @ vectors[:, 1:]  # the first is the direction that does not sum to 0
    smallest = DEFAULT_OPTIONS.min_curvature * information.diagonal().max().item()
    inverse: Tensor = axes / values[1:].clamp(min=smallest) @ axes.mT
    return inverse


def _interval(prior: Tensor, variance: Tensor, N: int, z: float) -> tuple[Tensor, Tensor]:
    """Return all t with (π − t)² ≤ z² (t (1 − t) / N + e): Wilson's interval (1927), e the excess variance over labels."""
    e = (variance - prior * (1 - prior) / N).clamp(min=0)
    middle, scale = prior + z**2 / (2 * N), 1 + z**2 / N
    half = (middle.square() - scale * (prior.square() - z**2 * e)).sqrt()
    return ((middle - half) / scale).clamp(min=0), ((middle + half) / scale).clamp(max=1)


def _confused(prior: Tensor, covariance: Tensor, N: int, z: float) -> tuple[tuple[int, int], ...]:
    """Return the pairs whose sum differs significantly from 0 while their difference may equal plus or minus the sum."""
    variance, both = covariance.diagonal(), prior[:, None] + prior
    sum_sd, difference_sd = (
        (variance[:, None] + variance + sign * 2 * covariance).clamp(min=0).sqrt() for sign in (1, -1)
    )
    is_present = (both > z * sum_sd) & (both > z**2 / N)  # with fewer than z² images, labels would not decide either
    is_undecided = 2 * torch.maximum(prior[:, None], prior) <= z * difference_sd
    return tuple((a, b) for a, b in (is_present & is_undecided).triu(1).nonzero().tolist())
