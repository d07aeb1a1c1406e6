"""Optimizers descend and decay matrices alone; schedules have their bounds, monotonicity and values at start and end."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import nn

from likely.training.optimizers import SCHEDULES, make_optimizer
from likely.training.options import TrainingOptions

NAMES = ["adamw", "adam", "adagrad", "sgd"]


def parameters():
    return [nn.Parameter(torch.full(shape, 2.0)) for shape in [(3, 2), (2, 1, 3, 3), (4,), ()]]


@pytest.mark.parametrize("name", NAMES)
def test_optimizer_lowers_a_quadratic(name):
    weights = parameters()
    chosen = make_optimizer(weights, TrainingOptions(optimizer=name, learning_rate=0.1))

    def loss():
        return sum(weight.square().sum() for weight in weights)

    before = loss().item()
    for _ in range(30):
        chosen.zero_grad()
        loss().backward()
        chosen.step()
    assert loss().item() < before / 2


@pytest.mark.parametrize("name", NAMES)
def test_weight_decay_affects_matrices_only(name):
    weights = parameters()
    chosen = make_optimizer(weights, TrainingOptions(optimizer=name, weight_decay=0.5, learning_rate=0.01))
    for weight in weights:
        weight.grad = torch.zeros_like(weight)
    chosen.step()
    for weight in weights:
        pulled = weight.ndim > 1
        assert ((weight < 2) if pulled else (weight == 2)).all()


@pytest.mark.parametrize("name", NAMES)
def test_zero_weight_decay_changes_nothing(name):
    weights = parameters()
    chosen = make_optimizer(weights, TrainingOptions(optimizer=name, weight_decay=0))
    for weight in weights:
        weight.grad = torch.zeros_like(weight)
    chosen.step()
    assert all((weight == 2).all() for weight in weights)


@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_is_in_one_group_with_the_learning_rate(name):
    weights = parameters()
    groups = make_optimizer(weights, TrainingOptions(optimizer=name, learning_rate=0.125)).param_groups
    assert sorted(id(p) for group in groups for p in group["params"]) == sorted(id(p) for p in weights)
    assert {group["lr"] for group in groups} == {0.125}


@pytest.mark.parametrize("start", [0, 2])
def test_empty_groups_are_omitted(start):
    assert len(make_optimizer(parameters()[start : start + 2], TrainingOptions()).param_groups) == 1


def test_momentum_is_the_first_beta_of_adam():
    options_by_name = {name: TrainingOptions(optimizer=name, momentum=0.5, beta2=0.75) for name in NAMES}
    groups = {name: make_optimizer(parameters(), options).param_groups[0] for name, options in options_by_name.items()}
    assert groups["sgd"]["momentum"] == 0.5
    assert groups["adam"]["betas"] == groups["adamw"]["betas"] == (0.5, 0.75)


def test_unknown_optimizer_is_rejected():
    with pytest.raises(ValidationError, match="adamw"):
        TrainingOptions(optimizer="adamm")


# --- learning-rate schedules --------------------------------------------------------------------------------------

WARMUP = 0.2  # of one_cycle
fractions = st.floats(0, 1)


@pytest.mark.parametrize("name", SCHEDULES)
@given(fraction=fractions)
def test_schedule_factor_is_positive_and_at_most_one(name, fraction):
    assert 0 < SCHEDULES[name](fraction) <= 1


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedule_reaches_the_maximum_rate(name):
    assert max(SCHEDULES[name](i / 1000) for i in range(1001)) == 1


@pytest.mark.parametrize(
    ("schedule", "start", "end"),
    [("one_cycle", 0.04, 1e-3), ("cosine", 1, 1e-3), ("step", 1, 0.01), ("constant", 1, 1), ("wsd", 1, 1e-3)],
)
def test_schedule_start_and_end(schedule, start, end):
    assert SCHEDULES[schedule](0.0) == pytest.approx(start)
    assert SCHEDULES[schedule](1.0) == pytest.approx(end)


@pytest.mark.parametrize("schedule", ["one_cycle", "cosine", "wsd"])
@given(a=fractions, b=fractions)
def test_smooth_schedules_are_continuous(schedule, a, b):
    steepest = math.pi / 2 / WARMUP
    assert abs(SCHEDULES[schedule](a) - SCHEDULES[schedule](b)) <= steepest * abs(a - b) + 1e-12


@given(fractions, fractions)
def test_one_cycle_increases_then_decreases(a, b):
    a, b = sorted((a, b))
    if b <= WARMUP:
        assert SCHEDULES["one_cycle"](a) <= SCHEDULES["one_cycle"](b)
    if a >= WARMUP:
        assert SCHEDULES["one_cycle"](a) >= SCHEDULES["one_cycle"](b)


@pytest.mark.parametrize("schedule", ["cosine", "step", "constant"])
@given(a=fractions, b=fractions)
def test_other_schedules_never_increase(schedule, a, b):
    assert SCHEDULES[schedule](min(a, b)) >= SCHEDULES[schedule](max(a, b))


def test_step_schedule_values():
    assert [SCHEDULES["step"](fraction) for fraction in (0.0, 0.49, 0.5, 0.74, 0.75, 1.0)] == [
        1,
        1,
        0.1,
        0.1,
        0.01,
        0.01,
    ]


@pytest.mark.parametrize("name", SCHEDULES)
def test_every_schedule_is_an_option(name):
    assert TrainingOptions(schedule=name).schedule == name
