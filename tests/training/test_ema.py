"""The moving average of weights: its closed form, and what has no average."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.testing import assert_close

from likely.training.ema import ema_model


def model(value=0.0):
    """A weight, a running mean and a counter."""
    made = nn.BatchNorm1d(2)
    nn.init.constant_(made.weight, value)
    return made


def decay_at(n, decay):
    return min(decay, (1 + n) / (10 + n))


@given(st.lists(st.floats(-10, 10, width=32), min_size=1, max_size=8), st.sampled_from([0.0, 0.3, 0.9, 0.998]))
def test_closed_form(values, decay):
    """The first update takes the weights as they are; each later one moves by 1 − d."""
    follower, followed = ema_model(model(100.0), decay), model()
    expected = values[0]
    for n, value in enumerate(values):
        nn.init.constant_(followed.weight, value)
        follower.update_parameters(followed)
        if n:
            d = decay_at(n, decay)
            expected = d * expected + (1 - d) * value
        assert follower.module.weight.tolist() == pytest.approx([expected] * 2, rel=1e-4, abs=1e-4)


@given(st.floats(-10, 10, width=32), st.floats(0, 0.999))
def test_constant_weights_stay_as_they_are(value, decay):
    followed = model(value)
    follower = ema_model(followed, decay)
    for _ in range(5):
        follower.update_parameters(followed)
    assert torch.equal(follower.module.weight, followed.weight)


def test_without_decay_it_is_the_model_itself():
    followed = model(1.0)
    follower = ema_model(followed, 0.0)
    for value in (2.0, 3.0, 4.0):
        nn.init.constant_(followed.weight, value)
        follower.update_parameters(followed)
        assert torch.equal(follower.module.weight, followed.weight)


def test_counters_are_copied_and_running_means_followed():
    followed = model(1.0)
    follower = ema_model(followed, 0.5)
    expected = None
    for n in range(4):
        followed(torch.full((3, 2), float(n)))
        follower.update_parameters(followed)
        current, d = followed.running_mean, decay_at(n, 0.5)
        expected = current.clone() if expected is None else d * expected + (1 - d) * current
    assert follower.module.num_batches_tracked == followed.num_batches_tracked == 4
    assert_close(follower.module.running_mean, expected)
    assert not torch.equal(follower.module.running_mean, followed.running_mean)


def test_precisions_side_by_side():
    followed = nn.Module()
    followed.register_buffer("in_float32", torch.ones(2))
    followed.register_buffer("in_float64", torch.ones(2, dtype=torch.float64))
    follower = ema_model(followed, 0.5)
    for value in (0.0, 1.0):
        followed.in_float32.fill_(value)
        followed.in_float64.fill_(value)
        follower.update_parameters(followed)
    assert follower.module.in_float64.dtype == torch.float64
    assert_close(follower.module.in_float64.float(), follower.module.in_float32)


def test_it_is_a_copy_without_gradients_to_the_model():
    followed = model(1.0)
    follower = ema_model(followed, 0.5)
    follower.update_parameters(followed)
    nn.init.constant_(followed.weight, 7.0)
    assert follower.module.weight.tolist() == [1.0, 1.0]
    assert follower.module.weight.grad_fn is None
