"""Discriminators: agreement of single images and batches, noise in training only, and every norm."""

from typing import get_args

import pytest
import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.testing import assert_close

from likely.networks.discriminator import DenseGenerator, Discriminator, DiscriminatorOptions, WeightNorm

NORMS = get_args(WeightNorm)

SHAPES = [(1, 1, 1), (1, 8, 8), (3, 9, 6), (1, 28, 28), (5,)]
WIDTH = 6


def generator(seed):
    return torch.Generator().manual_seed(seed)


def images(shape, n=4):
    return 2 * torch.rand(n, *shape, generator=generator(0)) - 1


def built(shape, norm="none", noise=0.0, *, auxiliary=False):
    torch.manual_seed(0)
    architecture = "dense" if len(shape) == 1 else "convolutional"
    options = DiscriminatorOptions(architecture=architecture, width=WIDTH, noise=noise, norm=norm, auxiliary=auxiliary)
    return Discriminator(shape, 3, options)


@pytest.fixture(params=SHAPES, ids=lambda shape: "x".join(map(str, shape)))
def shape(request):
    return request.param


@pytest.fixture(params=NORMS)
def norm(request):
    return request.param


def test_forward_returns_features_and_class_logits(shape, norm):
    network = built(shape, norm)
    features, logits = network(images(shape))
    assert features.shape == (4, network.trunk.n_features)
    assert logits.shape == (4, 3)


def test_every_parameter_gets_a_gradient(shape, norm):
    network = built(shape, norm)
    network(images(shape))[1].square().sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name


@torch.no_grad()
def test_single_image_and_batch_agree(shape, norm):
    network = built(shape, norm)
    network(images(shape))
    network.train(norm != "spectral")  # of which every pass in training is a step; the others are the same in training
    together = network(images(shape))[1]
    alone = torch.cat([network(each[None])[1] for each in images(shape)])
    assert_close(alone, together, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_noise_requires_a_generator(shape):
    x, network = images(shape), built(shape, noise=0.5)
    calm = network(x)[1]
    assert torch.equal(calm, network(x)[1])
    assert torch.equal(network(x, generator(1))[1], network(x, generator(1))[1])
    assert not torch.allclose(network(x, generator(1))[1], calm)
    assert not torch.allclose(network(x, generator(1))[1], network(x, generator(2))[1])


@torch.no_grad()
def test_generator_is_unused_without_noise(shape):
    rng, network = generator(1), built(shape)
    assert torch.equal(network(images(shape), rng)[1], network(images(shape))[1])
    assert torch.equal(rng.get_state(), generator(1).get_state())


@torch.no_grad()
def test_spectral_norm_bounds_the_largest_singular_value():
    network = built((5,), "spectral")
    for _ in range(30):  # an iteration of the power method each
        network(images((5,)))
    layers = [layer for layer in network.trunk.modules() if isinstance(layer, torch.nn.Linear)]
    for layer in layers:
        assert torch.linalg.matrix_norm(layer.weight, 2).item() == pytest.approx(1, abs=0.05)


def test_spectral_norm_of_averaged_weights_is_exact():
    network = built((1, 8, 8), "spectral")
    average = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(0.9))
    for seed in range(20):
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.add_(torch.randn(parameter.shape, generator=generator(seed)))
        network(images((1, 8, 8)))
        average.update_parameters(network)
    for layer in average.module.eval().trunk.layers:
        assert_close(torch.linalg.matrix_norm(layer.weight.flatten(1), 2), torch.tensor(1.0))


def test_pooled_features_are_means_of_the_last_maps(shape):
    network = built(shape).eval()
    features, _ = network(images(shape))
    pooled = network.pooled(images(shape))
    assert pooled.shape == (4, network.trunk.n_maps)
    assert_close(pooled.mean(1), features.mean(1))


@pytest.mark.parametrize("of_weights", ["weight", "fixed_weight_norm"])
def test_weight_norms_preserve_initial_outputs(of_weights):
    assert_close(built((1, 8, 8), of_weights)(images((1, 8, 8)))[1], built((1, 8, 8))(images((1, 8, 8)))[1])


@torch.no_grad()
@pytest.mark.parametrize("noise", [0.0, 0.5])
def test_fixed_weight_norm_standardizes_outputs_on_the_first_batch(shape, noise):
    network, x = built(shape, "fixed_weight_norm", noise), images(shape, 64)
    network.init_from_data(x, generator(1))
    found = []
    features = network.trunk(x, generator(1), before_layer=lambda layer, h: found.append(layer(h)))
    for outputs in [*found, network.to_logits(features) / network.options.initial_logit_std]:
        by_output = outputs.movedim(1, 0).flatten(1)
        assert_close(by_output.mean(1), torch.zeros(len(by_output)), rtol=0, atol=1e-3)
        assert_close(by_output.std(1), torch.ones(len(by_output)), rtol=0, atol=1e-3)


@torch.no_grad()
def test_fixed_weight_norm_subtracts_the_background():
    network = built((2, 8, 8), "fixed_weight_norm")
    x = torch.full((9, 2, 8, 8), -1.0)
    x[:, 1] = 0.25
    x[:, :, 2:4] = torch.rand(9, 2, 2, 8)
    network.init_from_data(x, generator(1))
    assert network.trunk.background.tolist() == [-1.0, 0.25]


def test_fixed_weight_norms_are_not_learned():
    network = built((1, 8, 8), "fixed_weight_norm")
    network.init_from_data(images((1, 8, 8)), generator(1))
    before = network(images((1, 8, 8)))[1]
    assert not [name for name, _ in network.named_parameters() if "length" in name]
    with torch.no_grad():
        for layer in network.trunk.layers:
            layer.parametrizations.weight.original.mul_(3)
    assert_close(network(images((1, 8, 8)))[1], before)


@torch.no_grad()
@pytest.mark.parametrize("other", sorted(set(NORMS) - {"fixed_weight_norm"}))
def test_other_norms_ignore_the_first_batch(other):
    network = built((1, 8, 8), other).eval()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    network.init_from_data(images((1, 8, 8)), generator(1))
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


@torch.no_grad()
def test_layer_norm_is_invariant_to_the_scale_of_weights():
    network = built((1, 8, 8), "layer")
    before = network(images((1, 8, 8)))[1]
    for layer in network.trunk.modules():
        if isinstance(layer, torch.nn.Conv2d):
            layer.weight *= 3
    assert_close(network(images((1, 8, 8)))[1], before, rtol=1e-3, atol=1e-3)


@torch.no_grad()
def test_auxiliary_head_separates_realness_and_class(shape):
    network, x = built(shape, auxiliary=True), images(shape)
    features, logits = network(x)
    raw = network.to_logits(features)
    assert raw.shape == (4, 4)
    assert_close(logits.logsumexp(1), raw[:, 0], rtol=1e-4, atol=1e-5)
    assert_close(logits.softmax(1), raw[:, 1:].softmax(1), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("made", [(1, 3, 2), (5,)], ids=str)
def test_dense_generator_outputs_any_shape(made):
    network = DenseGenerator(6, made, width=WIDTH)
    x = network(torch.randn(4, 6, generator=generator(0)))
    assert x.shape == (4, *made)
    (x * torch.randn(x.shape, generator=generator(1))).sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in network.parameters())


@torch.no_grad()
def test_dense_generator_starts_at_the_initial_image():
    network, wanted = DenseGenerator(6, (1, 3, 2), width=WIDTH).eval(), images((1, 3, 2), 1)[0]
    network.start_at(wanted)
    made = network(torch.randn(500, 6, generator=generator(0)))
    network.start_at(torch.zeros(1, 3, 2))
    assert_close(made - wanted, network(torch.randn(500, 6, generator=generator(0))))
