"""Eight bits to the unit interval and back."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from likely.base import to_eight_bit, to_unit

EVERY_VALUE = torch.arange(256).to(torch.uint8)


def test_every_value_comes_back():
    assert torch.equal(to_eight_bit(to_unit(EVERY_VALUE)), EVERY_VALUE)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_every_value_that_the_precision_holds_comes_back(dtype):
    held = EVERY_VALUE if dtype != torch.bfloat16 else EVERY_VALUE[[0, 1, 2, 4, 255]]
    assert torch.equal(to_eight_bit(to_unit(held).to(dtype)), held)


def test_the_unit_interval_from_end_to_end():
    x = to_unit(EVERY_VALUE)
    assert x.dtype == torch.float32
    assert x[0] == 0
    assert x[-1] == 1
    assert (x.diff() > 0).all()


@given(st.floats(-2, 3, width=32))
def test_the_nearest_of_the_eight_bit_values(value):
    distances = (to_unit(EVERY_VALUE) - value).abs()
    x = to_eight_bit(torch.tensor([value]))
    assert distances[x.long()] <= distances.min() + 1e-7


@pytest.mark.parametrize("shape", [(), (0,), (2, 3, 4, 5)])
def test_any_shape(shape):
    assert to_unit(torch.zeros(shape, dtype=torch.uint8)).shape == shape
    assert to_eight_bit(torch.zeros(shape)).shape == shape
