"""Conversion between 8-bit images and pixels in [0, 1]."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from likely.base import to_eight_bit, to_unit

EVERY_VALUE = torch.arange(256).to(torch.uint8)


def test_to_eight_bit_inverts_to_unit():
    assert torch.equal(to_eight_bit(to_unit(EVERY_VALUE)), EVERY_VALUE)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_to_eight_bit_inverts_to_unit_in_lower_precision(dtype):
    held = EVERY_VALUE if dtype != torch.bfloat16 else EVERY_VALUE[[0, 1, 2, 4, 255]]
    assert torch.equal(to_eight_bit(to_unit(held).to(dtype)), held)


def test_to_unit_covers_the_unit_interval():
    x = to_unit(EVERY_VALUE)
    assert x.dtype == torch.float32
    assert x[0] == 0
    assert x[-1] == 1
    assert (x.diff() > 0).all()


@given(st.floats(-2, 3, width=32))
def test_to_eight_bit_rounds_to_the_nearest_value(value):
    distances = (to_unit(EVERY_VALUE) - value).abs()
    x = to_eight_bit(torch.tensor([value]))
    assert distances[x.long()] <= distances.min() + 1e-7


@pytest.mark.parametrize("shape", [(), (0,), (2, 3, 4, 5)])
def test_pixel_scaling_preserves_shape(shape):
    assert to_unit(torch.zeros(shape, dtype=torch.uint8)).shape == shape
    assert to_eight_bit(torch.zeros(shape)).shape == shape
