"""Conformal p-values: by hand, against mapie, and by simulation within the promise's own bound."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from mapie.classification import SplitConformalClassifier
from scipy.stats import betabinom
from sklearn.base import BaseEstimator, ClassifierMixin
from torch.testing import assert_close

from likely.inference.conformal import ConformalCalibrator, prediction_set, status
from likely.inference.posterior import log_posterior, log_uniform
from likely.prediction import CalibrationScope, Status

CHANCE = 1e-7  # that a simulation fails though the code is right
ALPHAS = [0.01, 0.05, 0.1, 0.3]


def fitted_to(calibration, labels, held_out, held_out_labels):
    """From scores (N, K) of which each image's own class has one."""
    own = [
        scores.double().gather(1, y[:, None])[:, 0]
        for scores, y in ((calibration, labels), (held_out, held_out_labels))
    ]
    return ConformalCalibrator.fit(own[0], labels, own[1], held_out_labels, calibration.shape[1])


def generator(seed):
    return torch.Generator().manual_seed(seed)


# --- p-values -------------------------------------------------------------------------------------------------------


def of_one_class(scores):
    """Conformal scores of a single class, calibrated on `scores`."""
    n = len(scores)
    return ConformalCalibrator(
        torch.as_tensor(scores, dtype=torch.float64),
        torch.zeros(n, dtype=torch.long),
        torch.zeros(1),
        torch.ones(1),
        torch.tensor(1),
    )


def p_values(calibration, scores, alpha=0.25):
    scores = torch.as_tensor(scores, dtype=torch.float64)
    return of_one_class(calibration).p_values(scores[:, None], alpha)[:, 0]


def test_by_hand():
    p = p_values([4.0, 1.0, 2.0, 3.0], [0.0, 1.0, 1.5, 4.0, 5.0])
    assert p.tolist() == pytest.approx([5 / 5, 5 / 5, 4 / 5, 2 / 5, 1 / 5])


def test_ties_count_as_at_least_as_nonconforming():
    assert p_values([1.0, 1.0, 1.0, 2.0], [1.0, 2.0]).tolist() == pytest.approx([5 / 5, 2 / 5])


@pytest.mark.parametrize("score", [math.inf, math.nan])
def test_infinite_and_nan_scores_get_the_smallest_p_value(score):
    assert p_values([1.0, 2.0, 3.0, 4.0], [score]).item() == pytest.approx(1 / 5)


numbers = st.lists(st.floats(-100, 100), min_size=4, max_size=30)


@given(numbers, numbers)
def test_p_values_decrease_with_nonconformity(calibration, scores):
    p = p_values(calibration, sorted(scores))
    assert (p.diff() <= 0).all()
    assert ((p >= 1 / (len(calibration) + 1)) & (p <= 1)).all()


@given(numbers, numbers)
def test_the_order_of_calibration_images_is_no_matter(calibration, scores):
    assert torch.equal(p_values(calibration, scores), p_values(calibration[::-1], scores))


@st.composite
def calibrated(draw):
    """Scores of three classes, one plentiful, one scarce, one absent; or all scarce; with new images' scores."""
    counts = draw(st.tuples(*[st.integers(0, 12)] * 3))
    y = torch.arange(3).repeat_interleave(torch.tensor(counts))
    rng = generator(draw(st.integers(0, 1000)))
    held_out, held_out_y = torch.randn(9, 3, generator=rng), torch.arange(9) % 3
    fitted = fitted_to(torch.randn(len(y), 3, generator=rng), y, held_out, held_out_y)
    return fitted, torch.randn(7, 3, generator=rng), draw(st.sampled_from([0.1, 0.2, 0.5]))


def size_of_pool(fitted, alpha):
    """The images of the classes that have too few, or of all classes where even those together are too few."""
    counts = torch.bincount(fitted.labels, minlength=len(fitted.median))
    few = counts[counts < 1 / alpha].sum().item()
    return few if few >= 1 / alpha else len(fitted.labels)


@given(calibrated())
def test_what_stands_behind_a_p_value(case):
    fitted, scores, alpha = case
    p = fitted.p_values(scores, alpha)
    assert p.shape == scores.shape
    for c, kind in enumerate(fitted.scope(alpha)):
        n = (fitted.labels == c).sum().item()
        enough_of_its_own, enough = n >= 1 / alpha, len(fitted.labels) >= 1 / alpha
        fallback = CalibrationScope.POOLED if enough else CalibrationScope.NONE
        assert kind is (CalibrationScope.PER_CLASS if enough_of_its_own else fallback)
        assert p[:, c].isnan().all() == (kind is CalibrationScope.NONE)
        size = n if kind is CalibrationScope.PER_CLASS else size_of_pool(fitted, alpha)
        if kind is not CalibrationScope.NONE:
            ranks = p[:, c] * (size + 1)
            assert_close(ranks, ranks.round())
            assert 1 / (size + 1) <= alpha  # else no image could ever be turned away


@given(calibrated())
def test_p_values_exist_for_every_class_or_for_none(case):
    fitted, scores, alpha = case
    missing = fitted.p_values(scores, alpha).isnan()
    assert missing.all() or not missing.any()


def test_tiny_classes_that_are_too_few_together_borrow_from_all():
    y = torch.tensor([0, 1] + [2] * 30)
    scores = torch.randn(32, 3, generator=generator(0))
    fitted = fitted_to(scores, y, scores, y)
    assert fitted.scope(0.1) == (CalibrationScope.POOLED, CalibrationScope.POOLED, CalibrationScope.PER_CLASS)
    most_atypical = fitted.p_values(torch.full((1, 3), 1e9), 0.1)
    assert_close(most_atypical, torch.tensor([[1 / 33, 1 / 33, 1 / 31]], dtype=torch.float64))


def test_pooled_scores_are_put_on_one_scale():
    """Two classes whose scores differ by shift and spread alone share one ranking."""
    held_out = torch.tensor([[-1.0, 80.0], [0.0, 100.0], [1.0, 120.0]]).repeat_interleave(1000, 0)
    both = torch.cat([held_out, held_out])
    y = torch.arange(2).repeat_interleave(3000)
    own = torch.tensor([0.1, 0.5, 2.0, -3.0])
    calibration = torch.stack([own, 100 + 20 * own], 1).repeat(2, 1)
    fitted = fitted_to(calibration, torch.arange(2).repeat_interleave(4), both, y)
    assert fitted.scope(0.15) == (CalibrationScope.POOLED, CalibrationScope.POOLED)
    p = fitted.p_values(torch.tensor([[1.0, 120.0], [-5.0, 0.0]]), 0.15)
    assert_close(p[:, 0], p[:, 1])


def test_a_class_without_held_out_images_is_scaled_as_all_of_them():
    scores, y = torch.randn(40, 3, generator=generator(1)), torch.arange(40) % 2
    fitted = fitted_to(scores, y, scores, y)
    own = scores.double()[torch.arange(40), y]
    assert fitted.median[2] == own.median()
    assert_close(fitted.mad[2], (own - own.median()).abs().mean())


def test_without_held_out_images_the_pool_is_of_raw_scores():
    calibration, y = torch.randn(9, 3, generator=generator(0)), torch.arange(9) % 3
    fitted = fitted_to(calibration, y, torch.zeros(0, 3), torch.zeros(0, dtype=torch.long))
    raw = of_one_class(calibration.double()[torch.arange(9), y])
    assert_close(fitted.p_values(torch.ones(1, 3), 0.2), raw.p_values(torch.ones(1, 1), 0.2).expand(1, 3))


# --- against mapie --------------------------------------------------------------------------------------------------


class LogPosteriorClassifier(ClassifierMixin, BaseEstimator):
    """A classifier whose inputs are its log posteriors."""

    def fit(self, X, y):
        self.classes_ = np.arange(X.shape[1])
        return self

    def predict_proba(self, X):
        return np.exp(X)

    def predict(self, X):
        return X.argmax(1)


def answers(seed, n, n_classes=6):
    """Log posteriors (n, K) that are right more often than not, and labels."""
    rng = generator(seed)
    y = torch.randint(0, n_classes, (n,), generator=rng)
    scores = torch.randn(n, n_classes, generator=rng) + 2 * torch.nn.functional.one_hot(y, n_classes)
    return log_posterior(scores, log_uniform(n_classes)), y


def sets_of_mapie(log_p, y, new, alpha):
    """(B, K): mapie's sets for new log posteriors, calibrated on 1 − p(y | x)."""
    estimator = LogPosteriorClassifier().fit(log_p.numpy(), y.numpy())
    mapie = SplitConformalClassifier(estimator, confidence_level=1 - alpha, conformity_score="lac", prefit=True)
    return torch.from_numpy(mapie.conformalize(log_p.numpy(), y.numpy()).predict_set(new.numpy())[1][..., 0])


@pytest.mark.parametrize("alpha", [0.05, 0.1, 0.3])
def test_sets_agree_with_mapie_over_all_classes(alpha):
    log_p, y = answers(0, 97)
    new, _ = answers(1, 200)
    marginal = of_one_class(-log_p[torch.arange(97), y])
    ours = marginal.p_values(-new.reshape(-1, 1), alpha).reshape(new.shape) > alpha
    assert torch.equal(ours, sets_of_mapie(log_p, y, new, alpha))


@pytest.mark.filterwarnings("ignore:.*less labels than your training:UserWarning")
@pytest.mark.parametrize("alpha", [0.1, 0.3])
def test_sets_agree_with_mapie_class_by_class(alpha):
    log_p, y = answers(2, 300)
    new, _ = answers(3, 200)
    fitted = fitted_to(-log_p, y, -log_p, y)
    ours = fitted.p_values(-new, alpha) > alpha
    for c in range(6):
        theirs = sets_of_mapie(log_p[y == c], y[y == c], new, alpha)
        assert torch.equal(ours[:, c], theirs[:, c])


# --- the promise ----------------------------------------------------------------------------------------------------
# Given n calibration images the share of new ones with p ≤ α is Beta(l, n + 1 − l) with l = ⌊α (n + 1)⌋, so that of M new
# images beta-binomially many are turned away (Vovk 2012, proposition 2a); ties only make them fewer.


def scores_of(seed, n, n_classes=4):
    """Scores whose law differs by class, (n, K), and labels drawn at random."""
    rng = generator(seed)
    y = torch.randint(0, n_classes, (n,), generator=rng)
    return torch.randn(n, n_classes, generator=rng).exp() * (1 + y[:, None]) - 3 * y[:, None], y


def rejection_rate(fitted, scores, y, alpha):
    return (fitted.p_values(scores, alpha)[torch.arange(len(y)), y] <= alpha).double()


def allowed(n_images, n_calibration, alpha):
    """The fewest and the most images turned away that chance explains."""
    rank = math.floor(alpha * (n_calibration + 1) + 1e-9)
    law = betabinom(n_images, rank, n_calibration + 1 - rank)
    return law.ppf(CHANCE), law.isf(CHANCE)


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("seed", range(3))
def test_the_promise_of_each_class(alpha, seed):
    calibration, y = scores_of(seed, 1000)
    held_out, held_out_y = scores_of(seed + 100, 100)
    fitted = fitted_to(calibration, y, held_out, held_out_y)
    assert set(fitted.scope(alpha)) == {CalibrationScope.PER_CLASS}
    new, new_y = scores_of(seed + 200, 20_000)
    away = rejection_rate(fitted, new, new_y, alpha)
    for c in range(4):
        fewest, most = allowed((new_y == c).sum().item(), (y == c).sum().item(), alpha)
        assert fewest <= away[new_y == c].sum().item() <= most


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("seed", range(3))
def test_the_promise_of_all_tiny_classes_together(alpha, seed):
    n = math.ceil(1.5 / alpha)
    calibration, y = scores_of(seed, n)
    held_out, held_out_y = scores_of(seed + 100, 30)
    fitted = fitted_to(calibration, y, held_out, held_out_y)
    assert set(fitted.scope(alpha)) == {CalibrationScope.POOLED}
    new, new_y = scores_of(seed + 200, 20_000)
    fewest, most = allowed(20_000, n, alpha)
    assert fewest <= rejection_rate(fitted, new, new_y, alpha).sum().item() <= most


@pytest.mark.parametrize("seed", range(3))
def test_the_promise_of_tiny_classes_beside_a_large_one(seed):
    """Pooled with the large class, which does not use the pool, the tiny ones would raise far more alarms than promised."""

    def samples(seed, n_tiny, n_large):
        """Images of nine classes, whose scores vary widely, and of a tenth, whose scores do not."""
        tiny, y = scores_of(seed, n_tiny, n_classes=10)
        large = 0.1 * torch.randn(n_large, 10, generator=generator(seed))
        return torch.cat([tiny, large]), torch.cat([y % 9, torch.full((n_large,), 9)])

    alpha = 0.1
    (calibration, y), held_out = samples(seed, 20, 400), samples(seed + 100, 0, 100)  # which show the large class alone
    fitted = fitted_to(calibration, y, *held_out)
    assert fitted.scope(alpha) == (*[CalibrationScope.POOLED] * 9, CalibrationScope.PER_CLASS)
    new, new_y = samples(seed + 200, 20_000, 20_000)
    away = rejection_rate(fitted, new, new_y, alpha)
    for group, n_calibration in ((new_y < 9, 20), (new_y == 9, 400)):
        fewest, most = allowed(20_000, n_calibration, alpha)
        assert fewest <= away[group].sum().item() <= most


@pytest.mark.parametrize("alpha", ALPHAS)
def test_ties_keep_the_promise(alpha):
    calibration, y = scores_of(0, 1000)
    fitted = fitted_to(calibration.round(), y, calibration.round(), y)
    new, new_y = scores_of(1, 20_000)
    away = rejection_rate(fitted, new.round(), new_y, alpha)
    for c in range(4):
        _, most = allowed((new_y == c).sum().item(), (y == c).sum().item(), alpha)
        assert away[new_y == c].sum().item() <= most


# --- status and set -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("p_value", "n_in_set", "expected"),
    [
        (0.05, 0, Status.UNKNOWN),
        (0.01, 3, Status.UNKNOWN),
        (0.0500001, 1, Status.KNOWN),
        (1.0, 1, Status.KNOWN),
        (0.5, 2, Status.AMBIGUOUS),
        (math.nan, 1, Status.UNCALIBRATED),
    ],
)
def test_status(p_value, n_in_set, expected):
    assert status(p_value, n_in_set, 0.05) is expected


@given(st.integers(0, 1000), st.floats(0.01, 0.99))
def test_a_set_holds_the_best_class_and_every_probable_one(seed, alpha):
    rng = generator(seed)
    log_p = log_posterior(torch.randn(6, 4, generator=rng), log_uniform(4))
    p = torch.rand(6, 4, generator=rng)
    named = prediction_set(log_p, p, alpha)
    assert named[torch.arange(6), log_p.argmax(1)].all()
    others = torch.ones(6, 4, dtype=torch.bool).scatter(1, log_p.argmax(1, keepdim=True), False)
    assert torch.equal(named & others, (p > alpha) & others)


def test_without_calibration_a_set_is_the_best_class():
    log_p = torch.tensor([[0.2, 0.8], [0.6, 0.4]]).log()
    named = prediction_set(log_p, torch.full((2, 2), torch.nan), 0.05)
    assert named.tolist() == [[False, True], [True, False]]
