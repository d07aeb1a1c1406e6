"""Invertible layers: inverses, and log-determinants that agree with autograd."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.testing import assert_close

from likely.networks.flow_layers import (
    ActNorm,
    AffineCoupling,
    Compose,
    Flatten,
    MultiScaleOptions,
    RandomRotation,
    Split,
    Squeeze,
    multi_scale,
)


def convolutional(n_in, n_out, width):
    return nn.Sequential(nn.Conv2d(n_in, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, n_out, 3, padding=1))


def dense(n_in, n_out, width):
    return nn.Sequential(nn.Linear(n_in, width), nn.ReLU(), nn.Linear(width, n_out))


CLAMP = 2.0
SHAPES = [(1, 4, 4), (2, 4, 4), (1, 2, 6), (3, 2, 2)]
LAYERS = {
    "squeeze": ((2, 4, 2), lambda: Squeeze()),
    "flatten": ((2, 3, 2), lambda: Flatten((2, 3, 2))),
    "norm-of-maps": ((3, 2, 3), lambda: ActNorm(3)),
    "norm-of-vectors": ((5,), lambda: ActNorm(5)),
    "mix-of-maps": ((3, 2, 3), lambda: RandomRotation(3)),
    "mix-of-vectors": ((5,), lambda: RandomRotation(5)),
    "coupling-of-maps": ((3, 2, 3), lambda: AffineCoupling(3, convolutional(2, 2, 4), clamp=CLAMP)),
    "coupling-of-vectors": ((5,), lambda: AffineCoupling(5, dense(3, 4, 8), clamp=CLAMP)),
    "split": ((3, 2, 2), lambda: Split((3, 2, 2), Compose([ActNorm(2), RandomRotation(2), Flatten((2, 2, 2))]))),
    "chain": (
        (4, 2, 2),
        lambda: Compose([ActNorm(4), RandomRotation(4), AffineCoupling(4, convolutional(2, 4, 4), clamp=CLAMP)]),
    ),
}


def generator(seed):
    return torch.Generator().manual_seed(seed)


def images(shape, n=16):
    """Smooth images with some noise, of 8 bits about zero: neighbors are alike, as in photographs."""
    x = torch.rand(n, *shape[:1], *[1] * (len(shape) - 1), generator=generator(0))
    x = x + 0.2 * torch.randn(n, *shape, generator=generator(1))
    return x.clamp(0, 1).mul(255).round() / 256 - 0.5


def far_from_the_identity(flow, shape):
    """The flow with random weights in every coupling's last layer, measured on images."""
    for layer in flow.modules():
        if isinstance(layer, AffineCoupling):
            torch.nn.init.normal_(layer.network[-1].weight, std=0.2, generator=generator(2))
            torch.nn.init.normal_(layer.network[-1].bias, std=0.2, generator=generator(3))
    flow.init_from_data(images(shape))
    return flow


def in_float64(flow):
    """The flow in double precision, its rotations orthogonal to the last of the digits."""
    for layer in flow.double().modules():
        if isinstance(layer, RandomRotation):
            layer.rotation = torch.linalg.qr(layer.rotation)[0]
    return flow


def log_determinants(flow, x):
    """log |det ∂z/∂x| by autograd, image by image."""

    def one(image):
        return flow(image[None])[0][0].flatten()

    d = x[0].numel()
    return torch.stack([torch.func.jacrev(one)(each).reshape(d, d).slogdet()[1] for each in x])


@pytest.fixture(params=LAYERS.values(), ids=LAYERS)
def layer_and_shape(request):
    shape, build = request.param
    torch.manual_seed(0)
    return far_from_the_identity(build(), shape), shape


@pytest.fixture(params=SHAPES, ids=lambda shape: "x".join(map(str, shape)))
def shape(request):
    return request.param


def multi_scale_flow(shape, **options):
    torch.manual_seed(0)
    return multi_scale(shape, MultiScaleOptions(**{"n_couplings": 2, "width": 4, "clamp": CLAMP} | options))


def flow_of(shape, **options):
    return far_from_the_identity(multi_scale_flow(shape, **options), shape)


@torch.no_grad()
def test_layer_inverse_inverts_forward(layer_and_shape):
    layer, shape = layer_and_shape
    y, log_det = layer(images(shape))
    assert log_det.shape == (16,)
    assert y[0].numel() == images(shape)[0].numel()
    assert_close(layer.inverse(y), images(shape), rtol=0, atol=1e-4)


def test_layer_log_det_agrees_with_the_jacobian(layer_and_shape):
    layer, shape = layer_and_shape
    layer, x = in_float64(layer), images(shape, n=3).double()
    assert_close(layer(x)[1], log_determinants(layer, x), rtol=1e-9, atol=1e-9)


@torch.no_grad()
@pytest.mark.parametrize("shape", [*SHAPES, (1, 16, 16), (3, 20, 12), (1, 32, 32)], ids=str)
def test_multi_scale_inverse_inverts_forward(shape):
    flow = flow_of(shape)
    z, _ = flow(images(shape))
    assert z.shape == (16, images(shape)[0].numel())
    assert not torch.allclose(z, images(shape).flatten(1), atol=0.1)
    assert_close(flow.inverse(z), images(shape), rtol=0, atol=1e-4)


def test_log_det_of_one_scale_agrees_with_the_jacobian(shape):
    flow, x = in_float64(flow_of(shape)), images(shape, n=3).double()
    assert_close(flow(x)[1], log_determinants(flow, x), rtol=1e-9, atol=1e-9)


def test_log_det_of_several_scales_agrees_with_the_jacobian():
    flow, x = in_float64(flow_of((1, 8, 8), min_map_side=2)), images((1, 8, 8), n=2).double()
    assert sum(isinstance(layer, Split) for layer in flow.modules()) == 1
    assert_close(flow(x)[1], log_determinants(flow, x), rtol=1e-9, atol=1e-9)


def test_large_last_scale_has_no_dense_couplings():
    flow = in_float64(flow_of((1, 4, 4), max_dense_dims=15))
    assert not any(isinstance(layer, torch.nn.Linear) for layer in flow.modules())
    x = images((1, 4, 4), n=3).double()
    assert_close(flow(x)[1], log_determinants(flow, x), rtol=1e-9, atol=1e-9)


def test_flow_starts_near_a_linear_map():
    """Couplings begin near the identity: the same log-determinant for every image."""
    flow = multi_scale_flow((1, 8, 8))
    x = images((1, 8, 8))
    flow.init_from_data(x)
    log_det = flow(x)[1]
    assert log_det.std() < 1e-2 * log_det.mean().abs()


@torch.no_grad()
@pytest.mark.parametrize("shape", [(3, 4, 5), (6,)], ids=str)
def test_actnorm_standardizes_the_first_batch(shape):
    norm, x = ActNorm(shape[0]), 3 + 7 * images(shape)
    norm.init_from_data(x)
    y = norm(x)[0].transpose(0, 1).flatten(1)
    assert_close(y.mean(1), torch.zeros(shape[0]), rtol=0, atol=1e-4)
    assert_close(y.var(1, correction=0), torch.ones(shape[0]), rtol=1e-3, atol=1e-3)


@torch.no_grad()
def test_actnorm_of_a_constant_channel_is_finite():
    norm, x = ActNorm(2), torch.full((4, 2, 3, 3), 0.25)
    norm.init_from_data(x)
    assert norm(x)[0].isfinite().all()
    assert_close(norm.inverse(norm(x)[0]), x)


@torch.no_grad()
def test_init_from_data_reaches_every_actnorm_and_returns_the_output():
    x = images((2, 24, 24))
    flow = multi_scale_flow((2, 24, 24), n_couplings=1)
    assert_close(flow.init_from_data(x), flow(x)[0])
    assert all(layer.log_scale.any() for layer in flow.modules() if isinstance(layer, ActNorm))


def test_random_rotation_is_orthogonal():
    torch.manual_seed(0)
    rotation = RandomRotation(7).rotation
    assert_close(rotation @ rotation.mT, torch.eye(7), rtol=0, atol=1e-5)
    assert not torch.allclose(rotation.abs(), torch.eye(7), atol=0.1)


def test_random_rotation_is_a_buffer():
    assert set(RandomRotation(3).state_dict()) == {"rotation"}
    assert not list(RandomRotation(3).parameters())


@torch.no_grad()
@given(st.floats(0.1, 5.0), st.floats(-1e6, 1e6))
def test_coupling_scale_is_bounded_by_the_clamp(clamp, raw):
    coupling = AffineCoupling(2, torch.nn.Linear(1, 2), clamp=clamp)
    torch.nn.init.zeros_(coupling.network.weight)
    coupling.network.bias.copy_(torch.tensor([raw, 0.0]))
    _, log_det = coupling(torch.ones(1, 2))
    assert log_det.abs() <= clamp * (1 + 1e-6)
    assert log_det * raw >= 0


@torch.no_grad()
def test_coupling_leaves_the_first_half_unchanged():
    coupling = far_from_the_identity(AffineCoupling(5, dense(3, 4, 8), clamp=CLAMP), (5,))
    x = images((5,))
    assert torch.equal(coupling(x)[0][:, :3], x[:, :3])
    assert not torch.allclose(coupling(x)[0][:, 3:], x[:, 3:])


@given(st.integers(1, 1000), st.integers(1, 1000))
def test_padded_sides_are_the_smallest_that_can_be_halved(height, width):
    options = MultiScaleOptions()
    _, *padded = options.padded_shape((1, height, width))
    unit = 2
    while max(padded) > options.min_map_side * unit:
        unit *= 2
    assert all(side <= p < side + unit and p % unit == 0 for side, p in zip((height, width), padded, strict=True))


@pytest.mark.parametrize(("shape", "n_scales"), [((1, 1, 1), 1), ((1, 9, 6), 1), ((1, 17, 3), 2), ((1, 33, 20), 3)])
def test_number_of_scales_follows_the_longer_side(shape, n_scales):
    flow = multi_scale_flow(MultiScaleOptions().padded_shape(shape), n_couplings=1)
    assert sum(isinstance(layer, Squeeze) for layer in flow.modules()) == n_scales
    x = images(MultiScaleOptions().padded_shape(shape))
    assert flow(x)[0].shape == x.flatten(1).shape
