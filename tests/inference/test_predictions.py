"""Answers say what the output says, and None where nothing can be promised."""

import dataclasses

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small_conformal import LOG_PRIOR, K, model_outputs, split_conformal_rule

from likely.inference.calibration_data import CalibrationData
from likely.inference.decision import DecisionRule
from likely.inference.predictions import LabelNames, predictions
from likely.prediction import Guarantee, Prediction, Status

LABELS = ("boot", "coat", "dress")
N = 12
NAMES = [f"{i}.png" for i in range(N)]


def decided(seed, n_calibration=25, shift=0.0):
    return split_conformal_rule(seed, n_calibration)(model_outputs(seed + 2, N, shift)[0], LOG_PRIOR, 0.05)


def answered(output, *, top_k=None, bits=None):
    return list(predictions(output, NAMES, bits, LabelNames(LABELS, "fashion@3f2a", top_k)))


outputs_cases = st.builds(decided, st.integers(0, 20), st.sampled_from([0, 25, 200]), st.sampled_from([0.0, 3.0, 30.0]))


@given(outputs_cases)
def test_a_prediction_holds_the_values_of_the_output(output):
    found = answered(output)
    assert [answer.input for answer in found] == NAMES
    assert [answer.status for answer in found] == output.statuses
    for i, answer in enumerate(found):
        assert answer.label == LABELS[output.predicted[i]]
        assert answer.probability == pytest.approx(output.log_posterior[i].exp().max().item())
        assert answer.prediction_set == tuple(LABELS[c] for c in range(K) if output.prediction_sets[i, c])
        assert answer.model == "fashion@3f2a"
        assert answer.error is None


@given(outputs_cases)
def test_a_p_value_is_a_number_unless_there_is_no_promise(output):
    for i, answer in enumerate(answered(output)):
        none = answer.status is Status.UNCALIBRATED
        assert answer.p_value == (None if none else output.p_value[i].item())
        assert none == (answer.calibration is None)


@given(outputs_cases)
def test_every_class_the_most_probable_first(output):
    for i, answer in enumerate(answered(output)):
        assert sorted(each.label for each in answer.classes) == sorted(LABELS)
        probabilities = [each.probability for each in answer.classes]
        assert probabilities == sorted(probabilities, reverse=True)
        assert sum(probabilities) == pytest.approx(1)
        assert answer.classes[0].label == answer.label
        for each in answer.classes:
            c = LABELS.index(each.label)
            assert each.log_likelihood == output.log_likelihood[i, c].item()
            assert each.probability == pytest.approx(output.log_posterior[i, c].exp().item())


@given(outputs_cases, st.integers(1, K + 2))
def test_top_k_shortens_the_classes_and_nothing_else(output, top_k):
    for short, whole in zip(answered(output, top_k=top_k), answered(output), strict=True):
        assert short == whole.model_copy(update={"classes": whole.classes[:top_k]})


@given(outputs_cases)
def test_answers_survive_json(output):
    for answer in answered(output):
        assert Prediction.model_validate_json(answer.model_dump_json()) == answer


def test_bits_per_dim_where_there_are_any():
    output = decided(0)
    assert all(answer.bits_per_dim is None for answer in answered(output))
    bits = torch.arange(N) / 4
    assert [answer.bits_per_dim for answer in answered(output, bits=bits)] == bits.tolist()


def test_how_real_an_image_is_where_there_is_a_discriminator():
    output = decided(0)
    assert all(answer.p_real is None for answer in answered(output))
    real = torch.linspace(0, 1, N)
    assert [answer.p_real for answer in answered(dataclasses.replace(output, p_real=real))] == real.tolist()


def test_a_model_without_likelihoods():
    output = dataclasses.replace(decided(0), log_likelihood=None)
    assert all(each.log_likelihood is None for answer in answered(output) for each in answer.classes)


def test_no_images_no_answers():
    output = split_conformal_rule(0, 25)(model_outputs(2, 0)[0], LOG_PRIOR, 0.05)
    assert list(predictions(output, [], None, LabelNames(LABELS, None, None))) == []


@pytest.mark.parametrize(
    ("n", "alpha", "guarantee", "expected"),
    [
        (200, 0.05, Guarantee.OVERALL, "split"),
        (200, 0.05, Guarantee.CLASS, "split-pooled"),  # the rarest class has about 20 of 200 images
        (200, 0.2, Guarantee.CLASS, "split"),
        (5, 0.05, Guarantee.OVERALL, None),
        (5, 0.05, Guarantee.CLASS, None),
    ],
)
def test_calibration_names_the_method_and_pooled_classes(n, alpha, guarantee, expected):
    rng = torch.Generator().manual_seed(0)
    outputs, y = model_outputs(1, n)
    rare = (y != 2) | (torch.rand(n, generator=rng) < 0.2)
    data = [CalibrationData.from_outputs(outputs.subset(rare.nonzero()[:, 0]), y[rare], 1.0)] * 2
    output = DecisionRule.fit(*data, LOG_PRIOR, 1.0)(model_outputs(2, N)[0], LOG_PRIOR, alpha, guarantee)
    for prediction in answered(output):
        assert prediction.guarantee is guarantee
        assert prediction.calibration == expected
        assert (prediction.p_value is None) == (expected is None)


def test_nested_classes_are_answered_by_their_groups_as_well():
    output, names = decided(3), ("fruit/apple", "fruit/pear", "milk")
    found = list(predictions(output, NAMES, None, LabelNames(names, None, None)))
    p = output.log_posterior.exp()
    for i, answer in enumerate(found):
        (group,) = answer.groups
        fruit = (p[i, 0] + p[i, 1]).item()
        assert group.label == ("fruit" if fruit > p[i, 2] else "milk")
        assert group.probability == pytest.approx(max(fruit, p[i, 2].item()))
    assert all(answer.groups == () for answer in answered(output))
