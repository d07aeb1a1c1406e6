from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics as reference

from likely.evaluation import metrics
from likely.evaluation.metrics import Floats, Ints

Case = tuple[Floats, Ints]


def case(seed: int, n: int = 80, k: int = 5) -> Case:
    """Log posteriors that are right more often than not, with labels of all classes but the last."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, k - 1, n)
    logits = rng.normal(size=(n, k)) + 1.5 * np.eye(k)[labels]
    return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True)), labels


cases = st.builds(case, st.integers(0, 10_000), st.integers(1, 40), st.integers(2, 6))


def test_nll_and_brier_agree_with_scikit_learn() -> None:
    """They are computed here because scikit-learn's own clip or reject some posteriors."""
    log_posterior, labels = case(0)
    p, classes = np.exp(log_posterior), range(5)
    assert metrics.nll(log_posterior, labels) == pytest.approx(reference.log_loss(labels, p, labels=classes))
    expected = reference.brier_score_loss(labels, p, labels=classes, scale_by_half=False)
    assert metrics.brier(log_posterior, labels) == pytest.approx(expected)


def test_a_label_of_probability_0_has_an_infinite_nll() -> None:
    assert metrics.nll(np.array([[0.0, -np.inf]]), np.array([1])) == math.inf


def test_three_classes_by_hand() -> None:
    with np.errstate(divide="ignore"):
        log_posterior = np.log(np.eye(3)[[0, 0, 1, 1, 1, 0]])  # answers, all certain
    labels = np.array([0, 0, 0, 1, 2, 2])
    assert metrics.accuracy(log_posterior, labels) == pytest.approx(3 / 6)
    assert metrics.balanced_accuracy(log_posterior, labels) == pytest.approx((2 / 3 + 1 + 0) / 3)
    assert metrics.confusion(log_posterior, labels).tolist() == [[2, 1, 0], [0, 1, 0], [1, 1, 0]]
    table = metrics.per_class(log_posterior, labels)
    assert table.n.tolist() == [3, 1, 2]
    assert table.recall == pytest.approx([2 / 3, 1, 0])
    assert table.precision == pytest.approx([2 / 3, 1 / 3, np.nan], nan_ok=True)
    assert table.f1 == pytest.approx([2 / 3, 1 / 2, 0])


def test_balanced_accuracy_ignores_classes_without_labels() -> None:
    log_posterior = np.log([[0.7, 0.2, 0.1], [0.2, 0.1, 0.7], [0.7, 0.2, 0.1]])
    assert metrics.balanced_accuracy(log_posterior, np.array([0, 0, 0])) == pytest.approx(2 / 3)


def test_absent_class_has_nan_metrics() -> None:
    table = metrics.per_class(np.log([[0.7, 0.2, 0.1]]), np.array([0]))
    assert math.isnan(table.recall[2])
    assert math.isnan(table.precision[2])
    assert math.isnan(table.f1[2])


def test_agrees_with_torchmetrics() -> None:
    classification = pytest.importorskip("torchmetrics.functional.classification")
    torch = pytest.importorskip("torch")
    log_posterior, labels = case(2, n=200)
    p, y = torch.tensor(np.exp(log_posterior)), torch.tensor(labels)
    theirs = classification.multiclass_calibration_error(p, y, num_classes=5, n_bins=15, norm="l1")
    assert metrics.ece(log_posterior, labels) == pytest.approx(float(theirs), abs=1e-6)


def test_brier_of_certain_and_of_uniform_predictions() -> None:
    labels = np.array([0, 1, 2, 3])
    with np.errstate(divide="ignore"):
        certain = np.log(np.eye(4))
    assert metrics.brier(certain, labels) == pytest.approx(0)
    assert metrics.brier(np.roll(certain, 1, axis=1), labels) == pytest.approx(2)
    assert metrics.brier(np.full((4, 4), -math.log(4)), labels) == pytest.approx(3 / 4)


def test_nll_of_uniform_predictions_is_the_log_of_the_number_of_classes() -> None:
    assert metrics.nll(np.full((6, 4), -math.log(4)), np.zeros(6, dtype=int)) == pytest.approx(math.log(4))


def test_single_precision_is_computed_in_double() -> None:
    log_posterior, labels = case(3)
    single = metrics.nll(log_posterior.astype(np.float32), labels)
    assert single == pytest.approx(metrics.nll(log_posterior, labels), abs=1e-6)


def test_ece_by_hand() -> None:
    log_posterior = np.log([[0.9, 0.1], [0.9, 0.1], [0.4, 0.6], [0.4, 0.6]])
    labels = np.array([0, 1, 1, 1])  # half of those at 0.9 are right, all of those at 0.6
    assert metrics.ece(log_posterior, labels, bins=10) == pytest.approx((0.4 + 0.4) / 2)


def test_bins_are_closed_on_the_right() -> None:
    bins = metrics.reliability(np.log([[0.5, 0.5], [1 - 1e-12, 1e-12]]), np.array([0, 0]), bins=2)
    assert bins.counts.tolist() == [1, 1]


@given(cases)
def test_bounds(case: Case) -> None:
    log_posterior, labels = case
    for metric in (metrics.accuracy, metrics.balanced_accuracy, metrics.ece):
        assert 0 <= metric(log_posterior, labels) <= 1
    assert 0 <= metrics.brier(log_posterior, labels) <= 2
    assert metrics.nll(log_posterior, labels) >= 0
    assert metrics.confusion(log_posterior, labels).sum() == len(labels)
    assert metrics.reliability(log_posterior, labels).counts.sum() == len(labels)


@pytest.mark.parametrize(
    "metric", [metrics.accuracy, metrics.balanced_accuracy, metrics.nll, metrics.ece, metrics.brier]
)
@given(cases, st.integers(0, 1000))
def test_order_does_not_matter(metric: Callable[[Floats, Ints], float], case: Case, seed: int) -> None:
    (log_posterior, labels), rng = case, np.random.default_rng(seed)
    images, classes = rng.permutation(len(labels)), rng.permutation(log_posterior.shape[1])
    renamed = np.argsort(classes)[labels[images]]
    assert metric(log_posterior[images][:, classes], renamed) == pytest.approx(metric(log_posterior, labels))


scores = st.lists(st.integers(0, 6), min_size=1, max_size=30).map(np.array)


@given(scores, scores)
def test_auroc_counts_pairs(known: Ints, unknown: Ints) -> None:
    pairs = (known[:, None] > unknown).mean() + 0.5 * (known[:, None] == unknown).mean()
    assert metrics.auroc(known, unknown) == pytest.approx(float(pairs))
    assert metrics.auroc(known, unknown) + metrics.auroc(unknown, known) == pytest.approx(1)


def test_auroc_takes_infinite_scores() -> None:
    assert metrics.auroc(np.array([-np.inf, 1.0]), np.array([-np.inf, 0.0])) == pytest.approx(5 / 8)


def test_fpr_at_95_tpr_by_hand() -> None:
    unknown = np.arange(100) / 100  # 95 of them are at most 0.94
    known = np.array([0.93, 0.94, 0.95, 2.0])
    assert metrics.fpr_at_95_tpr(known, unknown) == pytest.approx(1 / 2)
    assert metrics.fpr_at_95_tpr(known + 1, unknown) == 0


@given(scores, scores)
def test_fpr_at_95_tpr_is_minimal_over_thresholds(known: Ints, unknown: Ints) -> None:
    enough = [t for t in np.unique(unknown) if (unknown <= t).mean() >= 0.95 - 1e-12]
    assert metrics.fpr_at_95_tpr(known, unknown) == min((known <= t).mean() for t in enough)


def test_bits_per_dim_of_uniform_noise_is_eight() -> None:
    assert metrics.bits_per_dim(np.full(3, -12 * math.log(256)), 12) == pytest.approx(8)


@pytest.mark.parametrize(("k", "n"), [(1, 1), (3, 20), (20, 20), (951, 1000), (59_000, 60_000)])
@pytest.mark.parametrize("level", [0.8, 0.95, 0.999])
def test_clopper_pearson_agrees_with_binomial_tails(k: int, n: int, level: float) -> None:
    low, high = metrics.clopper_pearson(k, n, level)
    assert stats.binom.sf(k - 1, n, low) == pytest.approx((1 - level) / 2)
    assert high == 1 if k == n else stats.binom.cdf(k, n, high) == pytest.approx((1 - level) / 2)
    assert metrics.clopper_pearson(n - k, n, level) == pytest.approx((1 - high, 1 - low))


@pytest.mark.parametrize(("k", "n"), [(0, 1), (1, 1), (0, 20), (3, 20), (951, 1000)])
@pytest.mark.parametrize("level", [0.8, 0.95, 0.999])
def test_wilson_bounds_are_z_deviations_away(k: int, n: int, level: float) -> None:
    z = stats.norm.ppf((1 + level) / 2)
    for end in metrics.wilson(k, n, level):
        assert abs(k / n - end) == pytest.approx(z * math.sqrt(end * (1 - end) / n), abs=1e-9)


@pytest.mark.parametrize("rate", [0.01, 0.05, 0.3, 0.5])
def test_clopper_pearson_covers_every_rate(rate: float) -> None:
    n = 30
    covered = [metrics.clopper_pearson(k, n).low <= rate <= metrics.clopper_pearson(k, n).high for k in range(n + 1)]
    assert stats.binom.pmf(np.arange(n + 1), n, rate) @ covered >= 0.95


@pytest.mark.parametrize(("n_test", "n_calibration"), [(1, 40), (90, 60), (1000, 19), (5000, 3000)])
@pytest.mark.parametrize("alpha", [0.01, 0.05, 0.29])
def test_beta_binomial_bound_is_the_smallest_valid_one(n_test: int, n_calibration: int, alpha: float) -> None:
    k = sum(j / (n_calibration + 1) <= alpha for j in range(1, n_calibration + 1))
    bound = metrics.beta_binomial_bound(n_test, n_calibration, alpha, 0.95)
    law = stats.betabinom(n_test, max(k, 1), n_calibration + 1 - max(k, 1))
    assert law.cdf(bound - 1) < 0.95 <= law.cdf(bound) if k else bound == 0


def test_beta_binomial_bound_in_extreme_cases() -> None:
    assert metrics.beta_binomial_bound(50, 10, 0.05) == 0  # ten images cannot call anything unknown at 5 %
    assert metrics.beta_binomial_bound(50, 10, 1.0) == 50
    assert metrics.beta_binomial_bound(0, 100, 0.05) == 0
    assert metrics.beta_binomial_bound(100, 99, 0.29) == metrics.beta_binomial_bound(100, 99, 0.2901)


def test_conformal_rule_respects_the_bound_with_its_level() -> None:
    rng, n, m, alpha, trials = np.random.default_rng(5), 59, 100, 0.1, 4000
    calibration, test = np.sort(rng.random((trials, n)), axis=1), rng.random((trials, m))
    k = int(alpha * (n + 1))
    alarms = (test <= calibration[:, k - 1, None]).sum(axis=1)  # p = (1 + #{calibration < score}) / (n + 1) <= alpha
    above = int((alarms > metrics.beta_binomial_bound(m, n, alpha, 0.95)).sum())
    assert stats.binomtest(above, trials, 0.05, alternative="greater").pvalue > 1e-4
    assert above > 0.02 * trials  # and the bound is no tighter than it has to be


def test_paired_bootstrap_has_the_width_of_the_normal_approximation() -> None:
    rng = np.random.default_rng(6)
    a, b = rng.random(800) < 0.9, rng.random(800) < 0.85
    low, high = metrics.paired_bootstrap(a, b, np.random.default_rng(0))
    difference = a.astype(float) - b
    error = difference.std() / math.sqrt(len(a))
    assert (low + high) / 2 == pytest.approx(difference.mean(), abs=0.1 * error)
    assert high - low == pytest.approx(2 * 1.96 * error, rel=0.1)


def test_paired_bootstrap_of_images_that_each_are_a_group_is_that_of_the_images() -> None:
    a, b = np.random.default_rng(8).random((2, 300)) < 0.8
    intervals = [metrics.paired_bootstrap(a, b, np.random.default_rng(0), groups=of) for of in (None, np.arange(300))]
    assert intervals[0] == intervals[1]


def clustered(rng: np.random.Generator, n_groups: int = 60, size: int = 8) -> tuple[Floats, Ints]:
    """Normal values of variance 2, of which half is common to a group, and their groups, (n_groups * size,) each."""
    groups = np.arange(n_groups).repeat(size)
    return rng.standard_normal(n_groups)[groups] + rng.standard_normal(len(groups)), groups


def misses(intervals: list[metrics.Interval], truth: float) -> int:
    return sum(not low <= truth <= high for low, high in intervals)


@pytest.mark.parametrize("rate", [0.05, 0.3])
def test_interval_of_a_proportion_covers_at_its_level_if_errors_depend_on_groups(rate: float) -> None:
    rng, by_group, by_image = np.random.default_rng(9), [], []
    threshold = stats.norm.isf(rate, scale=math.sqrt(2))
    for _ in range(400):
        values, groups = clustered(rng)
        is_error = values > threshold
        n = metrics.effective_size(is_error, groups)
        by_group.append(metrics.clopper_pearson(is_error.mean() * n, n))
        by_image.append(metrics.clopper_pearson(int(is_error.sum()), len(is_error)))
    assert stats.binomtest(misses(by_group, rate), 400, 0.05, alternative="greater").pvalue > 1e-4
    assert stats.binomtest(misses(by_image, rate), 400, 0.05, alternative="greater").pvalue < 1e-4


@pytest.mark.parametrize("shift", [0.5, 3.0])
def test_interval_of_the_auroc_covers_at_its_level_if_scores_depend_on_groups(shift: float) -> None:
    rng, by_group, by_image = np.random.default_rng(10), [], []
    truth = stats.norm.cdf(shift / 2)  # known minus unknown scores have the variance 4
    for _ in range(200):
        (unknown, unknown_groups), (known, known_groups) = clustered(rng), clustered(rng)
        by_group.append(metrics.auroc_interval(known + shift, unknown, (known_groups, unknown_groups)))
        by_image.append(metrics.auroc_interval(known + shift, unknown))
    assert stats.binomtest(misses(by_group, truth), 200, 0.05, alternative="greater").pvalue > 1e-4
    assert stats.binomtest(misses(by_image, truth), 200, 0.05, alternative="greater").pvalue < 1e-4


def test_interval_of_a_paired_difference_covers_at_its_level_if_errors_depend_on_groups() -> None:
    rng, by_group, by_image = np.random.default_rng(11), [], []
    for _ in range(200):
        (a, groups), (b, _) = clustered(rng), clustered(rng)
        by_group.append(metrics.paired_bootstrap(a > 0, b > 0, rng, 500, groups))
        by_image.append(metrics.paired_bootstrap(a > 0, b > 0, rng, 500))
    assert stats.binomtest(misses(by_group, 0), 200, 0.05, alternative="greater").pvalue > 1e-4
    assert stats.binomtest(misses(by_image, 0), 200, 0.05, alternative="greater").pvalue < 1e-4


@given(values=st.lists(st.booleans(), min_size=2, max_size=40), seed=st.integers(0, 3))
def test_effective_size_is_that_of_the_images_without_groups_and_never_larger(values: list[bool], seed: int) -> None:
    x, n = np.array(values), len(values)
    assert metrics.effective_size(x) == metrics.effective_size(x, np.arange(n)) == n
    groups = np.random.default_rng(seed).integers(0, 5, n)
    size = metrics.effective_size(x, groups)
    assert 0 < size <= n
    if x.all() or not x.any():
        assert size <= len(np.unique(groups))


def test_effective_size_of_groups_of_copies_is_their_number() -> None:
    x, groups = np.arange(400) // 4 % 3 == 0, np.arange(400) // 4
    assert metrics.effective_size(x, groups) == pytest.approx(100, rel=0.03)


def test_auroc_interval_without_overlap_is_exact() -> None:
    known, unknown = np.arange(10, 40), np.arange(10)
    assert metrics.auroc_interval(known, unknown) == metrics.clopper_pearson(10, 10)
    assert metrics.auroc_interval(unknown, known, (np.arange(10) // 2, None)) == metrics.clopper_pearson(0, 5)


def test_variance_of_the_mean_of_groups_is_that_of_their_sums() -> None:
    x = np.random.default_rng(12).standard_normal(50)
    assert metrics.variance_of_mean(x) == pytest.approx(x.var(ddof=1) / 50)
    assert metrics.variance_of_mean(x.repeat(3), np.arange(50).repeat(3)) == pytest.approx(x.var(ddof=1) / 50)
    assert metrics.variance_of_mean(x, np.zeros(50, np.int64)) == math.inf


def test_reliability_counts_the_groups_of_each_bin() -> None:
    log_posterior = np.log([[0.9, 0.1], [0.9, 0.1], [0.9, 0.1], [0.55, 0.45]])
    found = metrics.reliability(log_posterior, np.zeros(4, np.int64), 2, groups=np.array([7, 7, 8, 7]))
    assert found.counts.tolist() == [0, 4]
    assert found.n_groups is not None
    assert found.n_groups.tolist() == [0, 2]


def test_paired_bootstrap_of_equal_predictions_is_zero() -> None:
    correct = np.random.default_rng(7).random(50) < 0.5
    assert metrics.paired_bootstrap(correct, correct, np.random.default_rng(0)) == (0, 0)
    twice = [metrics.paired_bootstrap(correct, ~correct, np.random.default_rng(1)) for _ in range(2)]
    assert twice[0] == twice[1]
