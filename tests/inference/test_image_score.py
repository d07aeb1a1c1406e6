"""One nonconformity score per image, and the level of its p-value."""

import dataclasses

import pytest
import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import betabinom, binom
from small_conformal import LOG_PRIOR, K, model_outputs, split_conformal_rule
from torch.testing import assert_close

from likely.base import ModelOutputs
from likely.inference.calibration_data import CalibrationData
from likely.inference.conformal import ImageCalibrator
from likely.inference.decision import DecisionRule
from likely.inference.image_score import ImageScore, ReferenceDistribution
from likely.inference.posterior import entropy, log_uniform
from likely.prediction import Guarantee, Status

N_DRAWS = 200  # calibration draws of a simulation

finite = st.floats(-100, 100, width=32)
values_cases = st.lists(finite, max_size=50).map(lambda values: torch.tensor(values, dtype=torch.float64))


@given(values_cases, st.lists(finite, min_size=2, max_size=20))
def test_neg_log_sf_is_nondecreasing_and_not_negative(values, x):
    found = ReferenceDistribution.fit(values).neg_log_sf(torch.tensor(sorted(x)))
    assert (found.diff() >= 0).all()
    assert (found >= 0).all()


def test_neg_log_sf_ranks_below_the_threshold_and_is_linear_above():
    reference = ReferenceDistribution.fit(torch.arange(100.0))
    assert_close(reference.neg_log_sf(torch.tensor([-1.0, 50.0])).exp(), torch.tensor([1.0, 101 / 51]).double())
    # The threshold is 90, nine values lie above it, and their mean excess is 5.
    just_above, far = reference.neg_log_sf(torch.tensor([90 + 1e-9, 140.0], dtype=torch.float64))
    assert_close(just_above.exp(), torch.tensor(10.1).double())
    assert_close(far - just_above, torch.tensor(10.0).double())


def test_neg_log_sf_is_continuous_at_the_threshold():
    rng = torch.Generator().manual_seed(0)
    reference = ReferenceDistribution.fit(torch.randn(10_000, generator=rng))
    u = reference.threshold
    below, above = reference.neg_log_sf(torch.stack([u, u + 1e-12]))
    assert abs(above - below) <= 1e-3 + 1 / 1000  # one rank of the thousand above


def test_neg_log_sf_of_infinite_and_nan_values_is_the_largest():
    reference = ReferenceDistribution.fit(torch.arange(100.0))
    infinite, nan, large = reference.neg_log_sf(torch.tensor([torch.inf, torch.nan, 1e6])).tolist()
    assert infinite == nan > large


def test_a_constant_component_does_not_change_the_score():
    rng = torch.Generator().manual_seed(0)
    x, new = torch.randn(100, generator=rng), torch.randn(20, generator=rng)
    alone = ImageScore.fit({"distance": x})
    both = ImageScore.fit({"distance": x, "entropy": torch.zeros(100)})
    assert_close(both({"distance": new, "entropy": torch.zeros(20)}), alone({"distance": new}))


def test_image_score_survives_a_file():
    rng = torch.Generator().manual_seed(0)
    components = {name: torch.randn(50, generator=rng) for name in ("entropy", "distance")}
    score = ImageScore.fit(components)
    read = ImageScore.from_tensors(safetensors.torch.load(safetensors.torch.save(score.tensors())))
    assert_close(read(components), score(components), rtol=0, atol=0)


def test_entropy_of_certain_and_of_uniform_posteriors():
    certain = torch.tensor([[0.0, -torch.inf, -torch.inf, -torch.inf]], dtype=torch.float64)
    assert_close(
        entropy(torch.cat([certain, log_uniform(4)[None]])), torch.tensor([0.0, 4.0]).double().log().clamp_min(0)
    )


def test_p_value_is_the_rank_and_ties_count():
    calibrator = ImageCalibrator.fit(torch.tensor([3.0, 1.0, 2.0, 2.0]))
    p = calibrator.p_values(torch.tensor([0.0, 2.0, 2.5, 9.0]), 0.2)
    assert_close(p, torch.tensor([5, 4, 2, 1]).double() / 5)


@pytest.mark.parametrize(("n", "missing"), [(0, 19), (18, 1), (19, 0), (300, 0)])
def test_without_enough_calibration_images_there_is_no_p_value(n, missing):
    calibrator = ImageCalibrator.fit(torch.zeros(n))
    assert calibrator.n_missing(0.05) == missing
    assert calibrator.p_values(torch.zeros(3), 0.05).isnan().all() == (missing > 0)


def test_images_of_a_new_class_weigh_as_much_as_its_prior_and_each_at_most_one():
    calibrator = ImageCalibrator.fit(torch.zeros(90))
    many, few = (calibrator.with_class_images(torch.full((n,), 1.0), 1 / 9) for n in (100, 5))
    # 100 images weigh 10 of 100 together, and 5 images 5 of 95.
    assert_close(many.p_values(torch.tensor([0.5]), 0.05), torch.tensor([11 / 101]).double())
    assert_close(few.p_values(torch.tensor([0.5]), 0.05), torch.tensor([6 / 96]).double())


def test_p_values_of_a_batch_are_those_of_single_images():
    images, rule = model_outputs(2, 10)[0], split_conformal_rule(0, 200)
    whole = rule(images, LOG_PRIOR, 0.05).p_value
    single = [rule(images.subset(torch.tensor([i])), LOG_PRIOR, 0.05).p_value for i in range(10)]
    assert_close(torch.cat(single), whole)


def test_a_single_class_is_judged_by_distance_alone():
    def outputs(seed, n, shift=0.0):
        statistics = torch.randn(n, 1, 2, generator=torch.Generator().manual_seed(seed)) + shift
        return ModelOutputs(torch.zeros(n, 1), None, statistics)

    data = [CalibrationData.from_outputs(outputs(s, 100), torch.zeros(100, dtype=torch.int64), 1.0) for s in (0, 1)]
    rule = DecisionRule.fit(*data, log_uniform(1), 1.0)
    assert set(rule(outputs(2, 20, shift=30.0), log_uniform(1), 0.05).statuses) == {Status.UNKNOWN}
    assert (rule(outputs(3, 200), log_uniform(1), 0.05).p_value > 0.05).double().mean() > 0.8


def test_the_distance_of_a_model_replaces_the_nonconformity():
    data = []
    for seed in (0, 1):
        outputs, y = model_outputs(seed, 100)
        data.append(CalibrationData.from_outputs(with_distance(outputs), y, 1.0))
    rule = DecisionRule.fit(*data, LOG_PRIOR, 1.0)
    images = model_outputs(2, 20)[0]
    near, far = (rule(with_distance(images, distance), LOG_PRIOR, 0.05) for distance in (-50.0, 50.0))
    assert torch.equal(near.p_values, far.p_values)
    assert set(far.statuses) == {Status.UNKNOWN}
    assert near.statuses.count(Status.UNKNOWN) < 5  # for their entropy alone


def with_distance(outputs, distance=0.0):
    """Return outputs with a distance to the nearest class, `distance` plus noise."""
    noise = torch.randn(len(outputs.log_scores), generator=torch.Generator().manual_seed(0))
    return dataclasses.replace(outputs, distances=(noise + distance)[:, None])


def random_components(seed, n):
    """Return outputs that know nothing: scores and statistics are noise and independent of the labels."""
    rng = torch.Generator().manual_seed(seed)
    y = torch.randint(0, K, (n,), generator=rng)
    return ModelOutputs(torch.randn(n, K, generator=rng), None, torch.randn(n, K, 2, generator=rng).exp()), y


@pytest.mark.parametrize("draw", [model_outputs, random_components], ids=["informative", "random"])
@pytest.mark.parametrize("guarantee", Guarantee)
def test_the_realized_level_over_calibration_draws_is_at_most_alpha(draw, guarantee):
    """Over calibration draws, rejections of n test images of a class or of all are at most beta-binomial(n, k, m + 1 - k)."""
    alpha, m, n, rejected = 0.1, 99, 100, torch.zeros(N_DRAWS, K)
    counts = torch.zeros(N_DRAWS, K)
    held_out = CalibrationData.from_outputs(*draw(0, 200), 1.5)
    for i in range(N_DRAWS):
        rule = DecisionRule.fit(held_out, CalibrationData.from_outputs(*draw(2 * i + 1, m), 1.5), LOG_PRIOR, 1.5)
        outputs, y = draw(2 * i + 2, n)
        unknown = (rule(outputs, LOG_PRIOR, alpha, guarantee).p_value <= alpha).float()
        counts[i] = torch.bincount(y, minlength=K)
        rejected[i] = torch.zeros(K).index_add_(0, y, unknown)
    bound = betabinom(n, alpha * (m + 1), m + 1 - alpha * (m + 1))
    assert rejected.sum() / counts.sum() <= alpha + 4 * bound.std() / n / N_DRAWS**0.5
    if guarantee is Guarantee.CLASS:
        rate, n_c = rejected.sum(0) / counts.sum(0), m // K
        spread = betabinom(n_c, alpha * n_c, n_c - alpha * n_c).std() / n_c / N_DRAWS**0.5
        assert (rate <= alpha + 4 * spread).all()
    else:
        assert rejected.sum() / counts.sum() >= alpha - 4 * bound.std() / n / N_DRAWS**0.5  # the full alpha is used
        exceeded = (rejected.sum(1) > bound.isf(0.05)).sum().item()
        assert exceeded <= binom(N_DRAWS, 0.05).isf(1e-4)
