"""Learning-rate schedules: bounds, monotonicity, values at start and end."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from likely.training.options import TrainingOptions
from likely.training.schedules import SCHEDULES, WARMUP_FRACTION

fractions = st.floats(0, 1)


@pytest.mark.parametrize("name", SCHEDULES)
@given(fraction=fractions)
def test_a_factor_is_positive_and_at_most_one(name, fraction):
    assert 0 < SCHEDULES[name](fraction) <= 1


@pytest.mark.parametrize("name", SCHEDULES)
def test_every_schedule_reaches_the_largest_rate(name):
    assert max(SCHEDULES[name](i / 1000) for i in range(1001)) == 1


@pytest.mark.parametrize(
    ("schedule", "start", "end"),
    [("one_cycle", 0.04, 1e-3), ("cosine", 1, 1e-3), ("step", 1, 0.01), ("constant", 1, 1), ("wsd", 1, 1e-3)],
)
def test_start_and_end(schedule, start, end):
    assert SCHEDULES[schedule](0.0) == pytest.approx(start)
    assert SCHEDULES[schedule](1.0) == pytest.approx(end)


@pytest.mark.parametrize("schedule", ["one_cycle", "cosine", "wsd"])
@given(a=fractions, b=fractions)
def test_smooth_schedules_do_not_jump(schedule, a, b):
    steepest = math.pi / 2 / WARMUP_FRACTION
    assert abs(SCHEDULES[schedule](a) - SCHEDULES[schedule](b)) <= steepest * abs(a - b) + 1e-12


@given(fractions, fractions)
def test_one_cycle_climbs_and_then_falls(a, b):
    a, b = sorted((a, b))
    if b <= WARMUP_FRACTION:
        assert SCHEDULES["one_cycle"](a) <= SCHEDULES["one_cycle"](b)
    if a >= WARMUP_FRACTION:
        assert SCHEDULES["one_cycle"](a) >= SCHEDULES["one_cycle"](b)


@pytest.mark.parametrize("schedule", ["cosine", "step", "constant"])
@given(a=fractions, b=fractions)
def test_the_others_never_climb(schedule, a, b):
    assert SCHEDULES[schedule](min(a, b)) >= SCHEDULES[schedule](max(a, b))


def test_steps_by_hand():
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
