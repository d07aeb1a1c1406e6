"""Feature extractors and their scaling."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from likely.features.feature_extraction import FeaturePipeline
from likely.features.feature_extractors import FeatureOptions, FeatureScaler, RandomConvolutions


def images(n, *shape, seed=0):
    return torch.rand(n, *shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 16, 24), (1, 2, 2)])
def test_random_convolutions_accept_any_shape(shape):
    f, x = RandomConvolutions(shape, n_filters=6), images(4, *shape)
    assert f(x).shape == (4, f.n_features)
    assert_close(f(x[:1]), f(x)[:1], rtol=1e-4, atol=1e-5)


def test_seed_determines_random_convolutions():
    x = images(2, 1, 8, 8)
    a, again, other = (RandomConvolutions((1, 8, 8), seed=seed) for seed in (0, 0, 1))
    assert torch.equal(a(x), again(x))
    assert a.digest() == again.digest() != other.digest()


def test_random_convolutions_ignore_brightness():
    x = images(2, 1, 8, 8) / 2
    f = RandomConvolutions((1, 8, 8))
    inner = slice(3, 5)  # the border of what is padded sees an edge
    assert_close(f(x)[:, inner], f(x + 0.3)[:, inner], rtol=0.2, atol=0.2)


def test_extractor_is_rebuilt_from_config():
    f = RandomConvolutions((3, 8, 8), n_filters=4, seed=3)
    pipeline = FeaturePipeline(f, FeatureOptions(feature_scaling="none"))
    again = FeaturePipeline.from_config(pipeline.to_config(), pipeline.state_dict(), "model.json").extractor
    assert torch.equal(f(images(2, 3, 8, 8)), again(images(2, 3, 8, 8)))
    assert f.digest() == again.digest()
    with pytest.raises(ValueError, match="another version"):
        FeaturePipeline.from_config(
            pipeline.to_config() | {"map": {"kind": "unknown"}}, pipeline.state_dict(), "model.json"
        )


@given(st.integers(0, 50), st.floats(0.1, 100))
def test_l2_normalizes_each_group(seed, factor):
    f = torch.randn(5, 6, generator=torch.Generator().manual_seed(seed))
    scaling = FeatureScaler("l2", (4, 2), 10)
    assert_close(scaling(factor * f), scaling(f))
    assert_close(scaling(f)[:, :4].norm(dim=1), torch.ones(5))
    assert_close(scaling(f)[:, 4:].norm(dim=1), torch.ones(5))


@pytest.mark.parametrize("n_components", [3, 6, 20])
def test_whitened_features_are_uncorrelated_with_variance_one(n_components):
    rng = torch.Generator().manual_seed(0)
    f = torch.randn(400, 6, generator=rng) @ torch.randn(6, 6, generator=rng) + 5
    scaling = FeatureScaler("whiten", (6,), n_components)
    scaling.fit(f)
    z = scaling(f).double()
    assert z.shape == (400, min(6, n_components))
    assert_close(z.mT.cov(), torch.eye(z.shape[1]).double(), atol=1e-4, rtol=0)
    assert_close(z.mean(0), torch.zeros_like(z[0]), atol=1e-4, rtol=0)


def test_constant_components_are_zero():
    f = torch.randn(50, 2, generator=torch.Generator().manual_seed(0)) @ torch.ones(2, 5)
    scaling = FeatureScaler("whiten", (5,), 5)
    scaling.fit(f)
    assert scaling(f).isfinite().all()
    assert (scaling(f)[:, 1:] == 0).all()


def test_scaling_none_changes_nothing():
    f = images(3, 7)
    assert torch.equal(FeatureScaler("none", (7,), 2)(f), f)


def test_kind_of_features_follows_the_backbone():
    assert FeatureOptions().kind == "pixels"
    assert FeatureOptions(backbone="somewhere").kind == "backbone"
    with pytest.raises(ValueError, match="cannot be combined with a backbone"):
        FeatureOptions(features="random", backbone="somewhere")
    with pytest.raises(ValueError, match="needs a backbone"):
        FeatureOptions(features="backbone")
