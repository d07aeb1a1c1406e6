"""Standardizer: mean 0 and variance 1, however large the values and however small their differences."""

import pytest
import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.preprocessing import StandardScaler
from torch.testing import assert_close

from likely.networks.standardizer import Standardizer


def measured(x, batch_size=7):
    standardize = Standardizer(x.shape[1])
    for batch in x.split(batch_size):
        standardize.update_statistics(batch)
    standardize.finalize_statistics()
    return standardize


def vectors(seed, n=50, n_dims=3, location=0.0, scale=1.0, dtype=torch.float32):
    rng = torch.Generator().manual_seed(seed)
    return (location + scale * torch.randn(n, n_dims, generator=rng, dtype=torch.float64)).to(dtype)


@given(st.integers(0, 1000), st.integers(2, 60), st.floats(-1e3, 1e3), st.floats(1, 1e3))
def test_standardizer_agrees_with_scikit_learn(seed, n, location, scale):
    x = vectors(seed, n, location=location, scale=scale)
    standardize, reference = measured(x), StandardScaler().fit(x.double().numpy())
    assert_close(standardize.location.double(), torch.tensor(reference.mean_))
    assert_close(standardize.scale.double(), torch.tensor(reference.scale_), rtol=1e-6, atol=0)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_standardized_vectors_have_mean_zero_and_variance_one(scale):
    x = vectors(0, location=3 * scale, scale=scale)
    z = measured(x)(x)
    assert_close(z.mean(0), torch.zeros(3), rtol=0, atol=1e-5)
    assert_close(z.std(0, correction=0), torch.ones(3), rtol=1e-5, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("location", "scale"), [(1e6, 0.3), (1e6, 1.0), (-1e6, 5.0), (1e4, 0.01), (1e7, 3.0)])
def test_scale_beside_a_large_offset_is_exact(location, scale, dtype):
    x = vectors(1, n=2000, location=location, scale=scale, dtype=dtype)
    standardize = measured(x, batch_size=64)
    assert_close(standardize.scale.double(), x.double().std(0, correction=0), rtol=1e-6, atol=0)
    z = standardize(x)
    assert z.dtype == torch.float32
    assert_close(z.mean(0), torch.zeros(3), rtol=0, atol=1e-5)
    assert_close(z.std(0, correction=0), torch.ones(3), rtol=1e-5, atol=0)
    assert_close(standardize.inverse(z), x.double(), rtol=0, atol=1e-6 * scale)


def test_small_scale_beside_a_large_location_survives_a_file():
    x = vectors(2, location=1e9, scale=1.0, dtype=torch.float64)
    standardize, read = measured(x), Standardizer(3)
    read.load_state_dict(safetensors.torch.load(safetensors.torch.save(standardize.state_dict())))
    assert torch.equal(read(x), standardize(x))


def test_images_have_no_statistics_and_no_float64():
    """Where they are computed there may be no numbers of that size."""
    assert {buffer.dtype for buffer in Standardizer(0).buffers()} == {torch.float32}


@pytest.mark.parametrize("value", [0.0, 0.1, -1 / 3, 1e6 + 0.0625, 1e-20])
def test_constant_dimension_keeps_scale_one(value):
    x = vectors(2)
    x[:, 1] = value
    standardize = measured(x)
    assert standardize.scale[1] == 1
    assert_close(standardize(x)[:, 1], torch.zeros(50))


@given(st.integers(0, 1000), st.floats(-1e3, 1e3), st.floats(1e-3, 1e3))
def test_inverse_inverts_forward(seed, location, scale):
    x = vectors(seed, location=location, scale=scale)
    standardize = measured(x)
    assert_close(standardize.inverse(standardize(x)), x.double(), rtol=1e-6, atol=1e-5 * scale)


@given(st.integers(1, 60), st.integers(1, 60))
def test_statistics_do_not_depend_on_the_batch_size(one, other):
    x = vectors(3, location=100.0)
    assert_close(measured(x, one).state_dict(), measured(x, other).state_dict())


def test_second_fit_replaces_the_first():
    x, other = vectors(4), vectors(5, location=50.0)
    standardize = measured(other)
    standardize.update_statistics(x)
    standardize.finalize_statistics()
    assert_close(standardize.state_dict(), measured(x).state_dict())


def test_unfitted_standardizer_is_the_identity():
    x = vectors(6)
    assert torch.equal(Standardizer(3)(x), x)


def test_state_contains_location_and_scale_only():
    assert set(Standardizer(3).state_dict()) == {"location", "scale"}
