"""Another mix of the same classes: p(c) has changed, p(x | c) has not, and p(c) alone is estimated anew.

The likelihood of N unlabeled images, Π_i Σ_c π_c p(x_i | c), is log-concave in the mix π, and EM climbs it (Saerens 2002,
Adjusting the outputs of a classifier to new a priori probabilities, eq. 2.9). Three things keep the estimate honest: offsets
from labeled calibration images take out the scores' own bias, a test keeps the training mix where nothing refutes it, and
intervals and `Identifiability` say how much such images can tell at all.
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

PSEUDO_COUNT = 1.0  # images' worth of trust in the training mix: no share becomes nought because its class was not seen
TOLERANCE = 1e-6  # nats: how far from its largest value an objective may stay, all images together
MAX_STEPS = 10_000
PRIOR_SD = 3.0  # nats: how large a class's offset is thought to be before any calibration image is seen
MIN_CURVATURE = 1e-10  # of the largest curvature: what is below it is rounding
SUM_TOLERANCE = 0.02  # by how much shares that a person has rounded may miss a sum of 1


@dataclass(frozen=True)
class BiasCorrection:
    """b with p(c | x) ∝ π_c exp(s_c(x) + b_c), (K,), and its covariance (K, K): the bias of scores s, learned from labels.

    At the best b the shares predicted for calibration images are the shares of their labels (Alexandari 2020, Maximum
    likelihood with bias-corrected calibration), so that in images of the training mix EM has nothing to find.
    """

    values: Tensor
    covariance: Tensor

    def with_new_class(self) -> BiasCorrection:
        """With a class besides, of which no bias is known."""
        K = len(self.values)
        if not len(self.covariance):
            return BiasCorrection.unavailable(K + 1)
        covariance = self.covariance.new_zeros(K + 1, K + 1)
        covariance[:K, :K] = self.covariance
        covariance[K, K] = PRIOR_SD**2
        return BiasCorrection(torch.cat([self.values, self.values.new_zeros(1)]), covariance)

    @classmethod
    def identity(cls, K: int) -> BiasCorrection:
        """Scores taken as they are."""
        nothing = torch.zeros(K, dtype=torch.float64)
        return cls(nothing, nothing.diag())

    @classmethod
    def unavailable(cls, K: int) -> BiasCorrection:
        """Of so many classes that their covariance is not kept, and no mix of theirs estimated."""
        return cls(torch.zeros(K, dtype=torch.float64), torch.zeros(0, 0, dtype=torch.float64))

    @classmethod
    def fit(cls, log_scores: Tensor, y: Tensor, log_prior: Tensor, temperature: float = 1.0) -> BiasCorrection:
        """b that minimizes −Σ_i w_i log p(y_i | x_i) + |b|² / 2 OFFSET²: (n, K), (n,), (K,); convex, by Newton's method.

        The weights w make the images speak for the training mix. The covariance is White's (1982, Maximum likelihood
        estimation of misspecified models, theorem 3.2): scores need not be right for it, only images exchangeable. Its
        normal theory takes about thirty images a class.
        """
        if not len(y):  # all that is known of a bias is how large one may be
            nothing = torch.zeros(len(log_prior), dtype=torch.float64)
            return cls(nothing, torch.full_like(nothing, PRIOR_SD**2).diag())
        there = torch.bincount(y, minlength=len(log_prior)) > 0
        images = _LabeledImages(
            log_scores.double() / temperature,
            y,
            torch.where(there, log_prior.double(), -torch.inf),  # a class without images keeps its offset of 0
            weights(y, log_prior),
        )
        b, slopes, curvature = images.fit()
        noise = _within_classes(slopes, y)
        inverse = torch.linalg.inv(curvature)
        return cls(b, inverse @ (noise.mT @ noise + _stiffness(len(b))) @ inverse)


@dataclass(frozen=True)
class Identifiability:
    """How well unlabeled images tell a mix.

    `told` is what they tell of it in the direction that they tell least of, as a fraction of what their labels
    would: next to 0 where the scores of some classes are a mixture of others'. `confused` are pairs of classes that are surely
    there together, while either of the two might be all of it: their shares cannot be told apart.
    """

    information_fraction: float
    confused: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class PriorEstimate:
    """The class shares of `n_used` unlabeled images: the estimate with an interval for each class, (K,) each.

    `log_prior` (K,) is what to classify with: the estimate if the mix has `shifted`, else the training prior itself.
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
    """π that maximizes Σ_i log Σ_c π_c exp(s_ic) + TRUST Σ_c π_train,c log π_c: (N, K), log π_train (K,) -> ClassMix.

    s = log_scores / T + b. An interval holds its class's share with probability 1 − alpha, and the training mix is taken for
    another one with probability alpha, as far as s is log p(x | c): without offsets, the scores' bias passes for a shift.
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
    mix, z = images.fit(), NormalDist().inv_cdf(1 - alpha / 2)
    p_value, told = _compare(images, mix)
    covariance = _covariance(images, mix, z)
    low, high = _interval(mix, covariance.diagonal(), images.N, z)
    shifted = p_value <= alpha
    return PriorEstimate(
        log_prior=mix.log() if shifted else log_prior.double(),
        estimate=mix,
        low=low,
        high=high,
        p_value=p_value,
        shifted=shifted,
        n_used=images.N,
        identifiability=Identifiability(told, _confused(mix, covariance, images.N, z)),
    )


def log_prior_from_fractions(fractions: Sequence[float], labels: Sequence[str]) -> Tensor:
    """log π, (K,), from one share a class as a person wrote them. ValueError unless each is from 0 to 1 and all sum to 1."""
    if len(fractions) != len(labels):
        named = ", ".join(labels)
        raise InvalidValueError(f"{len(fractions)} shares for {len(labels)} classes: expected one for each of {named}")
    for share, label in zip(fractions, labels, strict=True):
        if not 0 <= share <= 1:
            raise InvalidValueError(f"the share of {label!r} is {share:g}: expected a number from 0 to 1")
    total = math.fsum(fractions)
    if total == 0:
        raise InvalidValueError("the shares sum to 0: expected 1")
    if abs(total - 1) > SUM_TOLERANCE:
        scaled = ", ".join(f"{label} {share / total:.4g}" for share, label in zip(fractions, labels, strict=True))
        raise InvalidValueError(f"the shares sum to {total:g}: expected 1, as in {scaled}")
    return (torch.tensor(fractions, dtype=torch.float64) / total).log()


@dataclass(frozen=True)
class _LabeledImages:
    """Calibration images whose offsets are sought: scores (n, K), labels (n,), log prior (K,), weights (n,)."""

    scores: Tensor
    y: Tensor
    log_prior: Tensor
    weights: Tensor

    def fit(self) -> tuple[Tensor, Tensor, Tensor]:
        """b (K,) with each image's slope (n, K) and the curvature (K, K) there, once a step promises less than GAP."""
        b = torch.zeros_like(self.log_prior)
        for _ in range(MAX_STEPS):
            slopes, curvature = self._derivatives(b)
            slope = slopes.sum(0) + b / PRIOR_SD**2
            step = torch.linalg.solve(curvature, slope)
            promise = (slope @ step).item()
            if promise <= TOLERANCE:
                break
            b = self._along(b, step, promise)
        return b, slopes, curvature

    def _derivatives(self, b: Tensor) -> tuple[Tensor, Tensor]:
        p = log_posterior(self.scores + b, self.log_prior).exp()
        weighted = self.weights[:, None] * p
        own = self.weights[:, None] * torch.nn.functional.one_hot(self.y, len(b))
        return weighted - own, weighted.sum(0).diag() - weighted.mT @ p + _stiffness(len(b))

    def _along(self, b: Tensor, step: Tensor, promise: float) -> Tensor:
        """b − step, or as much of the step as lowers the objective by a tenth of what the slope promises (Armijo 1966)."""
        before, size = self._objective(b), 1.0
        while self._objective(b - size * step) > before - 0.1 * size * promise and size > MIN_CURVATURE:
            size /= 2
        return b - size * step

    def _objective(self, b: Tensor) -> float:
        own = log_posterior(self.scores + b, self.log_prior).gather(1, self.y[:, None])[:, 0]
        return (b.square().sum() / (2 * PRIOR_SD**2) - self.weights @ own).item()


def _stiffness(K: int) -> Tensor:
    return torch.eye(K, dtype=torch.float64) / PRIOR_SD**2


def _within_classes(slopes: Tensor, y: Tensor) -> Tensor:
    """What of the slopes (n, K) is chance: the weights fix how much each class counts for, not which images stand for it."""
    K = slopes.shape[1]
    n = torch.bincount(y, minlength=K).double()[:, None]
    mean = torch.zeros(K, K, dtype=torch.float64).index_add_(0, y, slopes) / n
    centerd = (slopes - mean[y]) * (n / (n - 1)).sqrt()[y]
    return torch.where(n[y] > 1, centerd, slopes)


@dataclass(frozen=True)
class _UnlabeledImages:
    """Images whose mix is sought: p(x_i | c) (N, K) in units of each image's largest, π_train (K,), the offsets' covariance."""

    likelihood: Tensor
    prior: Tensor
    bias_covariance: Tensor

    @classmethod
    def of(cls, scores: Tensor, prior: Tensor, bias_correction: BiasCorrection | None) -> _UnlabeledImages:
        known = bias_correction or BiasCorrection.identity(len(prior))
        scores = scores + known.values
        return cls((scores - scores.amax(1, keepdim=True)).exp(), prior, known.covariance)

    @property
    def N(self) -> int:
        return len(self.likelihood)

    def fit(self) -> Tensor:
        """The best mix (K,), by steps of EM that go on in their direction where that helps (Varadhan 2008, SQUAREM).

        The objective is concave, so no mix is better by more than the steepest slope toward a class: below GAP it ends.
        """
        mix, total = self.prior, self.N + PSEUDO_COUNT
        floor = PSEUDO_COUNT * self.prior / total  # no step of EM leads below it
        for _ in range(MAX_STEPS):
            first = self._step(mix)
            if total * ((first / mix).max() - 1) <= TOLERANCE:
                break
            second = self._step(first)
            r, v = first - mix, second - 2 * first + mix
            length = (r.norm() / v.norm()).clamp(min=1)
            leap = (mix + 2 * length * r + length.square() * v).maximum(floor)
            leap = leap / leap.sum()
            mix = leap if self._objective(leap) > self._objective(second) else second
        return mix

    def slope(self, mix: Tensor) -> Tensor:
        """g_c = 1/N Σ_i p(x_i | c) / p(x_i), (K,): 1 where the mix is the likelihood's best, less for a class not there."""
        return (self.likelihood @ mix).reciprocal() @ self.likelihood / self.N

    def products(self, mix: Tensor, other: Tensor) -> Tensor:
        """Σ_i p(x_i | c) p(x_i | k) / p(x_i) p'(x_i), (K, K), with p(x) under one mix and p'(x) under the other."""
        weight = ((self.likelihood @ mix) * (self.likelihood @ other)).reciprocal()
        return (self.likelihood * weight[:, None]).mT @ self.likelihood

    def _step(self, mix: Tensor) -> Tensor:
        return (self.N * mix * self.slope(mix) + PSEUDO_COUNT * self.prior) / (self.N + PSEUDO_COUNT)

    def _objective(self, mix: Tensor) -> float:
        return ((self.likelihood @ mix).log().sum() + PSEUDO_COUNT * self.prior @ mix.log()).item()


def _compare(images: _UnlabeledImages, mix: Tensor) -> tuple[float, float]:
    """The p-value of the training mix, and what images of that mix tell in the worst direction.

    Rao's score test (1948): u = slope − 1 at the training mix, uᵀ S⁻¹ u against χ². Its limit is that of twice the difference
    of log-likelihoods, with few images it is nearer to χ² (Pearson's X² where scores are certain), and S has room for what
    calibration images leave open of the offsets. All of it is in units of √π, in which labels tell 1 in every direction.
    """
    root = images.prior.sqrt()
    # Images of this mix, weighted by p_train(x) / p(x), stand for images of the training mix; where a class has none to be
    # weighted, certain ones do.
    told = torch.outer(root, root) * images.products(images.prior, mix) / images.N + _missing(images, mix).diag()
    values, vectors = torch.linalg.eigh(told)
    enough = images.N * values >= 1  # all images together must tell one label's worth before they are evidence
    axes = vectors[:, enough]
    untold = axes.mT @ (torch.eye(len(root), dtype=torch.float64) - told) * root
    S = (values[enough] / images.N).diag() + untold @ images.bias_covariance @ untold.mT
    u = axes.mT @ (root * (images.slope(images.prior) - 1))
    p_value = _chi_squared_tail(u @ torch.linalg.solve(S, u), len(u) - 1)
    return p_value, max(0.0, values[0].item())


def _missing(images: _UnlabeledImages, mix: Tensor) -> Tensor:
    """1 − slope, (K,), or 0: what part of each class's share in a mix no image accounts for."""
    return (1 - images.slope(mix)).clamp(min=0)


def _chi_squared_tail(value: Tensor, degrees: int) -> float:
    """P(χ² ≥ value); 1 without degrees of freedom."""
    if degrees < 1:
        return 1.0
    tail: float = torch.special.gammaincc(torch.tensor(degrees / 2, dtype=torch.float64), value / 2).item()
    return tail


def _covariance(images: _UnlabeledImages, mix: Tensor, z: float) -> Tensor:
    """(K, K) of the estimate: the inverse of the observed information on the simplex, and the offsets' noise.

    No bootstrap: the inverse of one K × K matrix is cheaper, and images drawn anew never hold a class that was not seen.
    """
    information = images.products(mix, mix)
    C = _inverse_on_simplex(information)
    carry = C @ (images.N * images.slope(mix).diag() - information * mix)
    C = C + carry @ images.bias_covariance @ carry.mT
    # Where a share is next to 0 the log-likelihood falls from there, and by z²/2 sooner than its curvature says.
    sd, fall = C.diagonal().sqrt(), images.N * _missing(images, mix)
    shrink = z / (fall * sd + ((fall * sd).square() + z**2).sqrt())
    return C * torch.outer(shrink, shrink)


def _inverse_on_simplex(information: Tensor) -> Tensor:
    """H⁻¹ among changes that sum to 0; where H is flat, as large as can be told from rounding."""
    K = len(information)
    center = torch.eye(K, dtype=torch.float64) - 1 / K
    values, vectors = torch.linalg.eigh(center @ information @ center)
    axes = center @ vectors[:, 1:]  # the first is the direction that does not sum to 0
    inverse: Tensor = axes / values[1:].clamp(min=MIN_CURVATURE * information.diagonal().max().item()) @ axes.mT
    return inverse


def _interval(mix: Tensor, variance: Tensor, N: int, z: float) -> tuple[Tensor, Tensor]:
    """All t with (π − t)² ≤ z² (t (1 − t) / N + e): Wilson's interval (1927), with e the variance that labels would spare."""
    e = (variance - mix * (1 - mix) / N).clamp(min=0)
    middle, scale = mix + z**2 / (2 * N), 1 + z**2 / N
    half = (middle.square() - scale * (mix.square() - z**2 * e)).sqrt()
    return ((middle - half) / scale).clamp(min=0), ((middle + half) / scale).clamp(max=1)


def _confused(mix: Tensor, covariance: Tensor, N: int, z: float) -> tuple[tuple[int, int], ...]:
    """Pairs whose sum is z standard deviations from 0, and whose difference is not that far from being all of the sum."""
    variance, both = covariance.diagonal(), mix[:, None] + mix
    sum_sd, difference_sd = (
        (variance[:, None] + variance + sign * 2 * covariance).clamp(min=0).sqrt() for sign in (1, -1)
    )
    there = (both > z * sum_sd) & (both > z**2 / N)  # with fewer images than z² labels would leave it open as well
    undecided = 2 * torch.maximum(mix[:, None], mix) <= z * difference_sd
    return tuple((a, b) for a, b in (there & undecided).triu(1).nonzero().tolist())
