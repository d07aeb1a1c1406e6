"""Encoders and decoders of any size: shapes, gradients, and agreement of single images and batches."""

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from likely.networks.blocks import (
    DEFAULT_PYRAMID,
    Pyramid,
    PyramidOptions,
    make_decoder,
    make_encoder,
    standard_normal,
)

SIDES = [(1, 1), (2, 3), (5, 7), (8, 8), (9, 1), (28, 28), (33, 20)]
SHAPES = [(C, *sides) for C in (1, 3) for sides in SIDES] + [(1,), (5,)]
WIDTH = 4


def generator(seed):
    return torch.Generator().manual_seed(seed)


def images(shape, n=4):
    return torch.rand(n, *shape, generator=generator(0))


@pytest.fixture(params=SHAPES, ids=lambda shape: "x".join(map(str, shape)))
def shape(request):
    return request.param


@pytest.fixture
def networks(shape):
    """A trunk, and a head from its features back to the shape."""
    torch.manual_seed(0)
    down = make_encoder(shape, width=WIDTH, depth=1)
    return down, make_decoder(down.n_features, shape, width=WIDTH, depth=1)


def test_decoder_output_has_the_shape_of_the_input(networks, shape):
    down, up = networks
    features = down(images(shape))
    assert features.shape == (4, down.n_features)
    assert up(features).shape == (4, *shape)


@pytest.mark.parametrize("depth", [0, 2])
def test_networks_of_any_depth_have_the_right_shape(depth):
    down = make_encoder((1, 9, 6), width=WIDTH, depth=depth)
    up = make_decoder(down.n_features, (1, 9, 6), width=WIDTH, depth=depth)
    assert up(down(images((1, 9, 6)))).shape == (4, 1, 9, 6)


def test_every_parameter_gets_a_gradient(networks, shape):
    down, up = networks
    x = up(down(images(shape)))
    weights = torch.randn(x.shape, generator=generator(1))  # a plain sum has no gradient through a normalization
    (x * weights).sum().backward()
    for network in networks:
        for name, parameter in network.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name
            # A map of a single pixel is all that batch normalization sees of it: what is added before goes again.
            assert parameter.grad.any() or math.prod(shape) < 12, name


def test_single_image_and_batch_agree(networks, shape):
    for network in networks:
        network.train()
    x = images(shape)
    networks[1](networks[0](x))  # running statistics that are not their initial ones
    down, up = (network.eval() for network in networks)
    together = up(down(x))
    alone = torch.cat([up(down(each[None])) for each in x])
    assert_close(alone, together, rtol=1e-4, atol=1e-5)


def test_memory_format_does_not_change_outputs(networks, shape):
    down, up = (network.eval() for network in networks)
    x = images(shape)
    if x.ndim == 4:
        assert_close(up(down(x.contiguous(memory_format=torch.channels_last))), up(down(x)), rtol=1e-4, atol=1e-5)


@given(st.integers(1, 600), st.integers(1, 600))
def test_pyramid_halves_each_side_down_to_min_map_side(height, width):
    options = DEFAULT_PYRAMID
    sizes = Pyramid.of((1, height, width), WIDTH).sizes
    assert sizes[0] == (height, width)
    assert len(sizes) >= 2
    assert max(sizes[-1]) <= options.min_map_side
    halved = sizes[1:] if height * width <= options.small_image_side**2 else sizes  # small images keep their size once
    assert halved[0] == (height, width)
    assert len(set(sizes)) > 1 or max(height, width) == 1
    once_at_least = max(height, width) <= options.min_map_side
    for fine, coarse in pairwise(halved):
        for side, smaller in zip(fine, coarse, strict=True):
            assert smaller == (math.ceil(side / 2) if side > options.min_map_side or once_at_least else side)


@given(st.integers(1, 600), st.integers(1, 600))
def test_pyramid_strides_divide_the_sizes(height, width):
    pyramid = Pyramid.of((3, height, width), WIDTH)
    assert len(pyramid.strides) == len(pyramid.sizes) - 1 == len(pyramid.channels) - 1
    for (fine, coarse), stride in zip(pairwise(pyramid.sizes), pyramid.strides, strict=True):
        assert coarse == tuple(math.ceil(side / s) for side, s in zip(fine, stride, strict=True))


def test_pyramid_of_square_images():
    sizes = {side: [h for h, _ in Pyramid.of((1, side, side), WIDTH).sizes] for side in (28, 8, 16, 64)}
    assert sizes == {28: [28, 14, 7], 8: [8, 8, 4], 16: [16, 16, 8], 64: [64, 32, 16, 8]}


@given(st.integers(1, 600), st.integers(4, 64))
def test_pyramid_channels_double_up_to_four_times_the_width(side, width):
    n_channels, *levels = Pyramid.of((3, side, side), width).channels
    assert n_channels == 3
    assert levels[0] == width
    assert all(b in (2 * a, 4 * width) for a, b in pairwise(levels))
    assert max(levels) <= 4 * width


def test_pyramid_options_set_the_lowest_resolution():
    options = PyramidOptions(min_map_side=2, small_image_side=0, max_width_factor=2)
    pyramid = Pyramid.of((1, 8, 8), 4, options)
    assert pyramid.sizes == ((8, 8), (4, 4), (2, 2))
    assert pyramid.channels == (1, 4, 8)


@pytest.mark.parametrize("sides", [(12, 2048), (2048, 12), (1, 600)])
def test_networks_of_very_wide_images_are_small(sides):
    down = make_encoder((1, *sides), width=WIDTH, depth=1)
    up = make_decoder(8, (1, *sides), width=WIDTH, depth=1)
    assert down.n_features <= 4 * WIDTH * DEFAULT_PYRAMID.min_map_side**2
    assert sum(p.numel() for p in (*down.parameters(), *up.parameters())) < 200_000
    assert up(torch.zeros(2, 8)).shape == (2, 1, *sides)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_standard_normal_follows_the_generator_and_the_tensor(dtype):
    like = torch.zeros(3, 2, dtype=dtype)
    noise = standard_normal(like, generator(3))
    assert noise.shape == like.shape
    assert noise.dtype == dtype
    assert torch.equal(noise, standard_normal(like, generator(3)))
    assert not torch.equal(noise, standard_normal(like, generator(4)))
