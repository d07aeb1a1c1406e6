"""Classification and detection metrics, their confidence intervals, and the metrics of one evaluation.

Arithmetic on numpy arrays in float64: `log_posterior` is (N, K) in nats, `labels` is (N,) class indices. Functions import
scikit-learn and scipy.stats themselves, so that commands that only classify do not load them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]
Ints = NDArray[np.integer[Any]]
Bools = NDArray[np.bool_]


class Interval(NamedTuple):
    """A closed interval from `low` to `high`."""

    low: float
    high: float


@dataclass(frozen=True, eq=False)
class Reliability:
    """Confidence and accuracy in M equal bins of [0, 1]: (M,) each, nan where a bin is empty.

    `n_groups` (M,) counts the groups with images in each bin, if there are groups.
    """

    counts: Ints
    confidence: Floats
    accuracy: Floats
    n_groups: Ints | None = None

    @property
    def ece(self) -> float:
        """Σ_m n_m / N · |accuracy_m − confidence_m| (Guo 2017, On Calibration of Modern Neural Networks, eq. 3)."""
        gaps = np.abs(self.accuracy - self.confidence)
        return float(np.nansum(self.counts * gaps) / self.counts.sum())


@dataclass(frozen=True, eq=False)
class PerClass:
    """Metrics per class, (K,) each; nan for a class without images or without predictions."""

    n: Ints
    recall: Floats
    precision: Floats
    f1: Floats


# --- one evaluation -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class RejectionMetrics:
    """Rejected and ambiguous images among the n known test images, counted at one false-alarm rate alpha.

    `n_effective` is the number of independent images that would determine the rejection rate as precisely, n by default.
    """

    alpha: float
    n_rejected: int
    n_ambiguous: int
    n_effective: float | None = None


@dataclass(frozen=True)
class OODMetrics:
    """Detection of n out-of-distribution images, which come from `source`."""

    source: str
    n: int
    n_rejected: int
    auroc: float
    fpr_at_95_tpr: float
    auroc_interval: Interval | None = None
    n_groups: int | None = None


@dataclass(frozen=True)
class GroupMetrics:
    """Images assigned to the right group of classes, at one depth of the class hierarchy."""

    n_groups: int
    n_correct: int


@dataclass(frozen=True)
class Metrics:
    """One evaluation of n images of a `split` in numbers; None where a metric does not exist.

    Units: nll in nats per image, bits_per_dim in bits per pixel value, ece and brier in [0, 1] and [0, 2]. If the images are
    in groups, `n_effective` is the number of independent images that would determine the accuracy as precisely.
    """

    n: int
    n_correct: int
    balanced_accuracy: float
    nll: float
    ece: float
    brier: float
    skipped: int = 0
    bits_per_dim: float | None = None
    images_per_second: float | None = None
    evaluations_per_image: int = 1  # passes through the network
    rejection: RejectionMetrics | None = None
    unknown: OODMetrics | None = None
    split: str = "test"
    coarse: tuple[GroupMetrics, ...] = ()
    n_groups: int | None = None
    n_effective: float | None = None

    @property
    def accuracy(self) -> float:
        return self.n_correct / self.n

    @property
    def accuracy_interval(self) -> Interval:
        return _interval_of(self.n_correct, self.n, self.n_effective)

    @property
    def false_alarm_interval(self) -> Interval | None:
        """Interval of the rejection rate of known images; None without calibration."""
        rejection = self.rejection
        return None if rejection is None else _interval_of(rejection.n_rejected, self.n, rejection.n_effective)


# --- predictions against labels -----------------------------------------------------------------------------------------


def accuracy(log_posterior: Floats, labels: Ints) -> float:
    """Return the fraction of images whose most probable class is their label."""
    from sklearn.metrics import accuracy_score

    return float(accuracy_score(labels, log_posterior.argmax(axis=1)))


def balanced_accuracy(log_posterior: Floats, labels: Ints) -> float:
    """Return the mean recall over the classes that occur among the labels."""
    return float(np.nanmean(per_class(log_posterior, labels).recall))


def nll(log_posterior: Floats, labels: Ints) -> float:
    """−1/N Σ log p(label | x), in nats; infinite where a label has probability 0, which scikit-learn's log_loss clips."""
    return float(-np.mean(log_posterior[np.arange(len(labels)), labels], dtype=np.float64))


def brier(log_posterior: Floats, labels: Ints) -> float:
    """1/N Σ_i Σ_k (p(k | x_i) − 1[k = label_i])², from 0 to 2 (Brier 1950, Verification of Forecasts, eq. 2)."""
    # scikit-learn's brier_score_loss rejects probabilities that sum to 1 in single precision only.
    truth = np.eye(log_posterior.shape[1])[labels]
    return float(np.mean(np.sum((_probability(log_posterior) - truth) ** 2, axis=1)))


def ece(log_posterior: Floats, labels: Ints, bins: int = 15) -> float:
    """Return the expected calibration error of the most probable class, in equal bins (Guo 2017, eq. 3)."""
    return reliability(log_posterior, labels, bins).ece


def reliability(log_posterior: Floats, labels: Ints, bins: int = 15, groups: Ints | None = None) -> Reliability:
    """Return the bins of a reliability diagram: bin m holds images whose highest probability is in ((m − 1)/M, m/M].

    `groups` (N,) has equal numbers for images that depend on each other.
    """
    confidence = _probability(log_posterior).max(axis=1)
    index = np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)
    counts = np.bincount(index, minlength=bins)
    correct = np.bincount(index, log_posterior.argmax(axis=1) == labels, minlength=bins)
    n_groups = None
    if groups is not None:
        n_groups = np.bincount(np.unique(np.column_stack([index, groups]), axis=0)[:, 0], minlength=bins)
    mean_confidence = _ratio(np.bincount(index, confidence, minlength=bins), counts)
    return Reliability(counts, mean_confidence, _ratio(correct, counts), n_groups)


def confusion(log_posterior: Floats, labels: Ints) -> Ints:
    """Return the confusion matrix: (K, K) counts, true classes in the rows, predicted classes in the columns."""
    from sklearn.metrics import confusion_matrix

    table: Ints = confusion_matrix(labels, log_posterior.argmax(axis=1), labels=np.arange(log_posterior.shape[1]))
    return table


def per_class(log_posterior: Floats, labels: Ints) -> PerClass:
    """Return images, recall, precision and F1 of each class."""
    from sklearn.metrics import precision_recall_fscore_support

    predicted, classes = log_posterior.argmax(axis=1), np.arange(log_posterior.shape[1])
    precision, recall, f1, n = precision_recall_fscore_support(labels, predicted, labels=classes, zero_division=np.nan)
    return PerClass(n.astype(np.int64), recall, precision, f1)


# --- known against unknown ------------------------------------------------------------------------------------------


def auroc(known_scores: Floats, unknown_scores: Floats) -> float:
    """P(known > unknown) + ½ P(known = unknown), for scores that are high for the known (Mann & Whitney 1947)."""
    # scikit-learn's roc_auc_score rejects infinite scores, which an image of likelihood 0 has.
    from scipy.stats import mannwhitneyu

    pairs = mannwhitneyu(known_scores, unknown_scores, method="asymptotic").statistic
    return float(pairs / (len(known_scores) * len(unknown_scores)))


def fpr_at_95_tpr(known_scores: Floats, unknown_scores: Floats) -> float:
    """Return the false-positive rate at the strictest threshold that detects at least 95 % of the unknown images.

    Positive is *unknown*: a false positive is a false alarm on a known image (Hendrycks 2019, Deep Anomaly Detection
    with Outlier Exposure, section 4.2). Scores are high for known images; an image is detected if its score is at most the
    threshold. Much of the literature has the known images as the positives instead.
    """
    return float(np.mean(known_scores <= np.quantile(unknown_scores, 0.95, method="inverted_cdf")))


def bits_per_dim(log_likelihood: Floats, n_dims: int) -> float:
    """−1/N Σ log p(x) / (D ln 2): (N,) nats of 8-bit images with D values each, as bits for each value."""
    return float(-np.mean(log_likelihood, dtype=np.float64) / (n_dims * math.log(2)))


# --- intervals and bounds -----------------------------------------------------------------------------------------


def clopper_pearson(k: float, n: float, level: float = 0.95) -> Interval:
    """Return the exact binomial interval for k of n: coverage is at least `level` for any rate (Clopper & Pearson 1934).

    The bounds are quantiles of beta distributions, and so defined for effective numbers of images as well.
    """
    from scipy.stats import beta

    tail = (1 - level) / 2
    low = float(beta.ppf(tail, k, n - k + 1)) if k > 0 else 0.0
    return Interval(low, float(beta.isf(tail, k + 1, n - k)) if k < n else 1.0)


def wilson(k: int, n: int, level: float = 0.95) -> Interval:
    """Return the rates p with |k/n − p| ≤ z √(p (1 − p) / n): average coverage is about `level` (Wilson 1927)."""
    from scipy.stats import binomtest

    return Interval(*map(float, binomtest(k, n).proportion_ci(level, "wilson")))


def effective_size(values: Bools, groups: Ints | None = None) -> float:
    """Return the number of independent images that would determine the mean of `values` (N,) as precisely; N without groups.

    n_eff = p (1 − p) / var(p) · (t_{N−1} / t_{G−1})², at most N, for the quantiles t at 95 % and the variance over groups of
    `variance_of_mean` (Korn & Graubard 1998, Confidence intervals for proportions with small expected number of positive
    counts estimated from survey data). Equal values show no variance: then images of a group count as copies of one,
    n_eff = N² / Σ_g n_g² (Kish 1965, Survey Sampling).
    """
    N = len(values)
    sizes = np.ones(N) if groups is None else np.unique(groups, return_counts=True)[1]
    if len(sizes) == N:
        return float(N)
    p, G = float(np.mean(values)), len(sizes)
    if p in (0, 1) or G == 1:
        return float(N**2 / np.square(sizes, dtype=np.float64).sum())
    from scipy.stats import t

    freedom, variance = t.ppf(0.975, N - 1) / t.ppf(0.975, G - 1), variance_of_mean(values, groups)
    return float(min(N, p * (1 - p) / variance * freedom**2)) if variance > 0 else float(N)


def variance_of_mean(values: NDArray[Any], groups: Ints | None = None) -> float:
    """G / (G − 1) Σ_g (Σ_{i ∈ g} (v_i − mean))² / N²: the variance of the mean of N values in G independent groups.

    Without groups each value is one, and this is the usual variance. Infinite for a single group.
    """
    deviations: NDArray[np.float64] = values - np.mean(values, dtype=np.float64)
    if groups is not None:
        deviations = np.bincount(np.unique(groups, return_inverse=True)[1], deviations).astype(np.float64)
    G = len(deviations)
    return float(G / (G - 1) * np.square(deviations).sum() / len(values) ** 2) if G > 1 else math.inf


def auroc_interval(
    known_scores: Floats,
    unknown_scores: Floats,
    groups: tuple[Ints | None, Ints | None] = (None, None),
    level: float = 0.95,
) -> Interval:
    """Return the interval of the AUROC, logit A ± z √var(A) / (A (1 − A)); `groups` are those of known and unknown images.

    var(A) is the sum of the variances of the mean placements of known and of unknown images (DeLong 1988, Comparing the
    Areas under Two or More Correlated ROC Curves), over groups (Obuchowski 1997, Nonparametric Analysis of Clustered ROC
    Curve Data). Separable scores show no variance: their interval is the exact one of as many pairs of independent images.
    """
    from scipy.special import expit, logit
    from scipy.stats import norm

    A = auroc(known_scores, unknown_scores)
    if A in (0, 1):
        pairs = zip((known_scores, unknown_scores), groups, strict=True)
        n = min(len(scores) if of is None else len(np.unique(of)) for scores, of in pairs)
        return clopper_pearson(A * n, n, level)
    placements = _placements(known_scores, unknown_scores), _placements(-unknown_scores, -known_scores)
    variance = sum(variance_of_mean(each, of) for each, of in zip(placements, groups, strict=True))
    half = norm.isf((1 - level) / 2) * math.sqrt(variance) / (A * (1 - A))
    return Interval(float(expit(logit(A) - half)), float(expit(logit(A) + half)))


def beta_binomial_bound(n_test: int, n_calibration: int, alpha: float, level: float = 0.95) -> int:
    """Return the number of false alarms that a split-conformal rule exceeds with probability at most 1 − level.

    The `level` quantile of BetaBinomial(n_test; k, n_calibration + 1 − k), k = ⌊alpha (n_calibration + 1)⌋, because the
    false-alarm rate depends on the calibration set (Vovk 2012, Conditional Validity of Inductive Conformal Predictors;
    Angelopoulos & Bates 2021, A Gentle Introduction to Conformal Prediction, section 3.2).
    """
    # The tolerance makes 0.29 · 100 equal to 29, consistent with the comparison p = 29/100 <= 0.29.
    k = math.floor(alpha * (n_calibration + 1) + 1e-9)
    if k == 0:
        return 0
    if k > n_calibration:
        return n_test
    from scipy.stats import betabinom

    return int(betabinom.ppf(level, n_test, k, n_calibration + 1 - k))


def paired_bootstrap(
    correct_a: Bools, correct_b: Bools, rng: np.random.Generator, n: int = 10_000, groups: Ints | None = None
) -> Interval:
    """Return the 95 % percentile interval of accuracy(a) − accuracy(b) over n resamples of the images, or of their groups.

    The counts of groups with equal sizes and sums of differences are multinomial in a resample, so that no group needs to
    be resampled (Efron & Tibshirani 1993, An Introduction to the Bootstrap, section 13.3; Davison & Hinkley 1997,
    Bootstrap Methods and their Application, section 3.8).
    """
    difference = correct_a.astype(np.int64) - correct_b.astype(np.int64)
    index = np.arange(len(difference)) if groups is None else np.unique(groups, return_inverse=True)[1]
    sums = np.column_stack([np.bincount(index, difference), np.bincount(index)])  # (G, 2)
    kinds, counts = np.unique(sums, axis=0, return_counts=True)
    draws = rng.multinomial(len(sums), counts / len(sums), size=n)
    low, high = np.quantile(draws @ kinds[:, 0] / (draws @ kinds[:, 1]), [0.025, 0.975])
    return Interval(float(low), float(high))


# --- helpers --------------------------------------------------------------------------------------------------------


def _probability(log_posterior: Floats) -> Floats:
    return np.exp(log_posterior, dtype=np.float64)


def _ratio(numerator: NDArray[Any], denominator: NDArray[Any]) -> Floats:
    """Return numerator / denominator, nan where the denominator is 0."""
    ratio: Floats = np.divide(numerator, denominator, out=np.full(len(denominator), np.nan), where=denominator > 0)
    return ratio


def _interval_of(k: int, n: int, n_effective: float | None) -> Interval:
    """Return the interval for k of n images that are as precise as `n_effective` independent ones."""
    return clopper_pearson(k, n) if n_effective is None else clopper_pearson(k / n * n_effective, n_effective)


def _placements(scores: Floats, others: Floats) -> Floats:
    """Return P(s > other) + ½ P(s = other) for each score, (N,)."""
    ordered = np.sort(others)
    ranks = np.searchsorted(ordered, scores, "left") + np.searchsorted(ordered, scores, "right")
    found: Floats = ranks / (2 * len(others))
    return found
