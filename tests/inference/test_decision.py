"""From model outputs to statuses and prediction sets, on random outputs."""

import dataclasses
from collections import Counter

import pytest
import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import betabinom, binom
from small_conformal import (
    LOG_PRIOR,
    K,
    cross_conformal_rule,
    model_outputs,
    split_conformal_rule,
)
from torch.testing import assert_close

from likely.base import ModelOutputs
from likely.inference.calibration_data import CalibrationData
from likely.inference.conformal import prediction_set, status
from likely.inference.decision import DecisionRule
from likely.inference.posterior import log_posterior, log_uniform
from likely.inference.temperature_scaling import fit_temperature
from likely.prediction import CalibrationScope, Guarantee, Status

outputs_cases = st.builds(
    lambda seed, n, shift, alpha, guarantee: split_conformal_rule(seed, n)(
        model_outputs(seed + 2, 20, shift)[0], LOG_PRIOR, alpha, guarantee
    ),
    st.integers(0, 20),
    st.sampled_from([0, 5, 25, 200]),
    st.sampled_from([0.0, 3.0, 30.0]),
    st.sampled_from([0.01, 0.05, 0.2]),
    st.sampled_from(Guarantee),
)


@given(outputs_cases)
def test_the_label_is_in_the_set_unless_the_image_is_unknown(output):
    named = output.prediction_sets[torch.arange(20), output.predicted]
    unknown = torch.tensor([s is Status.UNKNOWN for s in output.statuses])
    assert torch.equal(named, ~unknown)


@given(outputs_cases)
def test_status_is_unknown_if_and_only_if_no_p_value_exceeds_alpha(output):
    for state, p, row in zip(output.statuses, output.p_value.tolist(), output.prediction_sets, strict=True):
        assert (state is Status.UNKNOWN) == (p <= output.alpha)
        assert (state is Status.UNKNOWN) == (not row.any())


@given(outputs_cases)
def test_status_follows_from_the_size_of_the_prediction_set(output):
    for state, p, n in zip(
        output.statuses, output.p_value.tolist(), output.prediction_sets.sum(1).tolist(), strict=True
    ):
        assert state is status(p, n, output.alpha)
        assert (n > 1) == (state is Status.AMBIGUOUS)
        assert (n == 1) == (state in {Status.KNOWN, Status.UNCALIBRATED})


@given(outputs_cases)
def test_the_set_of_a_known_image_holds_every_class_above_alpha(output):
    known = output.p_value > output.alpha
    expected = prediction_set(output.log_posterior, output.posterior_p_values, output.alpha)
    assert torch.equal(output.prediction_sets[known], expected[known])


@given(outputs_cases)
def test_uncalibrated_if_and_only_if_there_are_no_p_values(output):
    without_classes = output.calibration_scope == (CalibrationScope.NONE,) * K
    assert output.p_values.isnan().all() == without_classes
    assert output.posterior_p_values.isnan().all() == without_classes
    uncalibrated = output.scope is CalibrationScope.NONE
    assert output.p_value.isnan().all() == uncalibrated
    assert all((state is Status.UNCALIBRATED) == uncalibrated for state in output.statuses)


@given(outputs_cases)
def test_the_p_value_is_that_of_the_image_or_the_largest_of_the_classes(output):
    i = torch.arange(20)
    assert torch.equal(output.log_posterior[i, output.predicted], output.log_posterior.amax(1))
    expected = output.p_values.amax(1) if output.guarantee is Guarantee.CLASS else output.image_p_value
    assert_close(output.p_value, expected, equal_nan=True)


def test_posterior_uses_the_temperature_and_the_prior():
    outputs, _ = model_outputs(0, 20)
    output = split_conformal_rule(1, 50, temperature=2.5)(outputs, LOG_PRIOR, 0.05)
    assert_close(output.log_posterior, log_posterior(outputs.log_scores, LOG_PRIOR, 2.5))
    assert output.log_likelihood is outputs.log_likelihood


def test_p_values_do_not_depend_on_the_prior():
    outputs, _ = model_outputs(0, 20)
    fitted = split_conformal_rule(1, 200)
    one, other = (fitted(outputs, log_prior, 0.05) for log_prior in (LOG_PRIOR, log_uniform(K)))
    assert torch.equal(one.p_values, other.p_values)
    assert torch.equal(one.posterior_p_values, other.posterior_p_values)


@pytest.mark.parametrize("n_calibration", [0, 5, 200])
@pytest.mark.parametrize("kind", [split_conformal_rule, cross_conformal_rule])
def test_tensors_round_trip_through_a_file(kind, n_calibration):
    fitted, (outputs, _) = kind(3, n_calibration), model_outputs(4, 20)
    read = DecisionRule.from_tensors(
        safetensors.torch.load(safetensors.torch.save(fitted.tensors())), fitted.temperature, fitted.method
    )
    before, after = (each(outputs, LOG_PRIOR, 0.05) for each in (fitted, read))
    for field in dataclasses.fields(before):
        one, other = getattr(before, field.name), getattr(after, field.name)
        if isinstance(one, torch.Tensor):
            assert_close(one, other, rtol=0, atol=0, equal_nan=True)
        else:
            assert one == other


def test_tensors_are_copies():
    fitted = split_conformal_rule(3, 20)
    for tensor in fitted.tensors().values():
        tensor.zero_()
    assert fitted.typicality.scores.any()


def test_from_tensors_ignores_other_names():
    fitted = split_conformal_rule(3, 20)
    others = {"model/mean": torch.zeros(2), "log_prior": LOG_PRIOR}
    read = DecisionRule.from_tensors(fitted.tensors() | others, 1.0)
    assert torch.equal(read.typicality.scores, fitted.typicality.scores)


def test_a_model_without_likelihoods_gets_decisions():
    outputs, _ = model_outputs(5, 20)
    output = split_conformal_rule(6, 100)(dataclasses.replace(outputs, log_likelihood=None), LOG_PRIOR, 0.05)
    assert output.log_likelihood is None
    assert len(output.statuses) == 20


def test_without_calibration_images_whatever_their_statistics():
    """An empty collection has figures of no width."""
    empty = ModelOutputs(torch.zeros(0, K), None, torch.zeros(0, K, 1))
    nothing = CalibrationData.from_outputs(empty, torch.zeros(0, dtype=torch.long), 1.0)
    fitted = DecisionRule.fit(CalibrationData.from_outputs(*model_outputs(7, 60), 1.0), nothing, LOG_PRIOR, 1.0)
    output = fitted(model_outputs(8, 20)[0], LOG_PRIOR, 0.05)
    assert set(output.statuses) == {Status.UNCALIBRATED}
    assert torch.equal(output.prediction_sets.sum(1), torch.ones(20, dtype=torch.long))


def test_metrics_do_not_depend_on_the_temperature():
    found, y = model_outputs(5, 200)
    labeled = CalibrationData.from_outputs(found, y, 1.0)
    assert labeled.n_scores == 200 * K
    assert labeled.without_scores().n_scores == 0
    assert labeled.fit_temperature(LOG_PRIOR) == fit_temperature(found.log_scores, y, LOG_PRIOR)
    assert labeled.fit_temperature(LOG_PRIOR, 9.0) > labeled.fit_temperature(LOG_PRIOR)  # drawn to what is expected
    other, expected = labeled.with_temperature(3.0), CalibrationData.from_outputs(found, y, 3.0)
    assert_close(other.surprisal, expected.surprisal)


@pytest.mark.parametrize("n_calibration", [30, 600])  # pooled, and class by class
def test_false_alarms_and_excluded_true_classes_are_at_most_alpha(n_calibration):
    """Known images are called unknown, and true classes left out, at most in a share of alpha."""
    repeats, alphas = 200, (0.05, 0.2)
    unknown, left_out = Counter(), Counter()
    for seed in range(0, 10 * repeats, 10):
        (outputs, y), fitted = model_outputs(seed + 2, 1), split_conformal_rule(seed, n_calibration)
        for alpha in alphas:
            output = fitted(outputs, log_uniform(K), alpha)
            unknown[alpha] += output.statuses[0] is Status.UNKNOWN
            left_out[alpha] += (output.posterior_p_values[0, y] <= alpha).item()
    for alpha in alphas:
        most = binom(repeats, alpha).isf(1e-7)
        assert unknown[alpha] <= most
        assert left_out[alpha] <= most


@pytest.mark.parametrize("kind", [split_conformal_rule, cross_conformal_rule])
def test_images_unlike_any_class_are_unknown(kind):
    outputs, _ = model_outputs(9, 100, shift=30.0)
    assert set(kind(10, 300)(outputs, LOG_PRIOR, 0.05).statuses) == {Status.UNKNOWN}


@pytest.mark.parametrize("alpha", [0.05, 0.2])
@pytest.mark.parametrize("n", [60, 900])
def test_cross_conformal_p_values_are_valid(n, alpha):
    for seed in (100, 200, 300):
        outputs, y = model_outputs(seed + 50, 2000)
        output = cross_conformal_rule(seed, n)(outputs, log_uniform(K), alpha)
        for c in range(K):
            own = output.p_values[y == c, c]
            n_c = n // K
            k = int(alpha * (n_c + 1))
            most = betabinom(len(own), max(k, 1), n_c + 1 - max(k, 1)).isf(1e-5)
            assert (own <= alpha).sum() <= most
        k = int(alpha * (n + 1))
        assert (output.p_value <= alpha).sum() <= betabinom(2000, k, n + 1 - k).isf(1e-5)
        assert output.calibration == "cross-conformal"


# --- a class that comes later ---------------------------------------------------------------------------------------


def with_a_class_more(outputs, seed=9):
    """Return the outputs of the same images with one more class, to which none belongs."""
    n, rng = len(outputs.log_scores), torch.Generator().manual_seed(seed)
    low = outputs.log_scores.amin(1, keepdim=True) - 3 - torch.rand(n, 1, generator=rng)
    statistics = torch.cat([outputs.statistics, torch.randn(n, 1, 4, generator=rng) + 9], 1)
    return ModelOutputs(torch.cat([outputs.log_scores, low], 1), None, statistics)


@pytest.mark.parametrize("n", [0, 1, 4, 40])
@pytest.mark.parametrize("kind", [split_conformal_rule, cross_conformal_rule])
def test_a_new_class_does_not_change_the_calibration_of_the_others(kind, n):
    before, (images, _) = kind(3, 200), model_outputs(5, 30)
    few = with_a_class_more(model_outputs(6, n)[0])
    after = before.with_new_class(few)
    prior = torch.cat([LOG_PRIOR, torch.zeros(1)]).log_softmax(0)
    was, now = before(images, LOG_PRIOR, 0.05), after(with_a_class_more(images), prior, 0.05)
    assert_close(now.p_values[:, :K], was.p_values)
    assert now.calibration_scope == (
        *was.calibration_scope,
        CalibrationScope.PER_CLASS if n >= 20 else CalibrationScope.NONE,
    )
    assert after.typicality.n_missing(0.05) == (*before.typicality.n_missing(0.05), max(0, 20 - n))
    assert after.bias_correction.values[-1] == 0
    assert_close(after.bias_correction.covariance[:K, :K], before.bias_correction.covariance)
    assert (after.bias_correction.covariance[-1, :K] == 0).all()


def test_outputs_of_batches_concatenate_to_those_of_all_images():
    whole, (images, _) = split_conformal_rule(4, 200), model_outputs(7, 25)
    pieces = [whole(images.subset(torch.arange(a, b)), LOG_PRIOR, 0.1) for a, b in ((0, 10), (10, 25))]
    together, at_once = type(pieces[0]).concatenate(pieces), whole(images, LOG_PRIOR, 0.1)
    names = ("log_posterior", "nonconformity", "p_values", "posterior_p_values", "log_likelihood")
    for name in (*names, "image_score", "image_p_value"):
        assert_close(getattr(together, name), getattr(at_once, name), rtol=1e-5, atol=1e-5)
    assert together.calibration_scope == at_once.calibration_scope
    assert together.p_real is None


def test_an_uncalibrated_rule_returns_posteriors_without_p_values():
    images, _ = model_outputs(8, 12)
    plain = DecisionRule.uncalibrated(K, 1.5)(
        ModelOutputs(images.log_scores, None, torch.zeros(12, K, 1)), LOG_PRIOR, 0.05
    )
    assert_close(plain.log_posterior, log_posterior(images.log_scores, LOG_PRIOR, 1.5))
    assert plain.p_values.isnan().all()
    assert set(plain.statuses) == {Status.UNCALIBRATED}


def test_a_new_class_does_not_join_the_pool_of_the_initial_classes():
    before, (images, _) = split_conformal_rule(3, 60), model_outputs(5, 30)
    after = before.with_new_class(with_a_class_more(model_outputs(6, 15)[0]))
    prior = torch.cat([LOG_PRIOR, torch.zeros(1)]).log_softmax(0)
    alpha = 0.02
    was, now = before(images, LOG_PRIOR, alpha), after(with_a_class_more(images), prior, alpha)
    assert set(was.calibration_scope) == {CalibrationScope.POOLED}
    assert_close(now.p_values[:, :K], was.p_values)
    assert now.calibration_scope[K] is CalibrationScope.NONE


def test_concatenated_calibration_data_equals_the_whole():
    whole, y = model_outputs(3, 30)
    pieces = [whole.subset(rows) for rows in torch.arange(30).split(11)]
    joined = ModelOutputs.concatenate(pieces)
    assert torch.equal(joined.log_scores, whole.log_scores)
    assert torch.equal(joined.statistics, whole.statistics)
    assert joined.features is None
    assert ModelOutputs.empty(K, 4).statistics.shape == (0, K, 4)
    each = [CalibrationData.from_outputs(piece, labels, 2.0) for piece, labels in zip(pieces, y.split(11), strict=True)]
    for found, expected in zip(
        vars(CalibrationData.concatenate(each)).values(),
        vars(CalibrationData.from_outputs(whole, y, 2.0)).values(),
        strict=True,
    ):
        assert_close(found, expected)


def test_without_scores_only_the_bias_correction_is_missing():
    held_out, calibration = (CalibrationData.from_outputs(*model_outputs(*which), 1.5) for which in ((1, 60), (2, 80)))
    full, small = (
        DecisionRule.fit(a, b, LOG_PRIOR, 1.5)
        for a, b in ((held_out, calibration), (held_out.without_scores(), calibration.without_scores()))
    )
    found = [split_conformal_rule(model_outputs(3, 20)[0], LOG_PRIOR, 0.05) for split_conformal_rule in (full, small)]
    assert_close(found[0].p_values, found[1].p_values, equal_nan=True)
    assert_close(found[0].posterior_p_values, found[1].posterior_p_values, equal_nan=True)
    assert not small.bias_correction.covariance.numel()


def test_cross_conformal_p_values_are_valid_without_held_out_images():
    folds = [CalibrationData.from_outputs(*model_outputs(1 + k, 60), 1.5) for k in range(5)]
    fitted = DecisionRule.fit_cross_conformal(folds, LOG_PRIOR, 1.5)
    known, y = model_outputs(50, 2000)
    own = fitted(known, log_uniform(K), 0.1).p_values[torch.arange(2000), y]
    assert 0.04 < (own <= 0.1).double().mean() < 0.16
    ood, _ = model_outputs(51, 100, shift=30.0)
    assert set(fitted(ood, LOG_PRIOR, 0.05).statuses) == {Status.UNKNOWN}
