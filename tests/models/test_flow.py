"""Flow: inverses, densities that integrate to one, and classes that differ by their components alone."""

import math

import pytest
import torch
from torch.testing import assert_close

from likely.base import Task
from likely.models.flow import Flow, FlowOptions
from likely.networks.flow_layers import AffineCoupling

N_LEVELS = 256
IMAGES = [(1, 8, 8), (3, 16, 16), (1, 9, 6), (1, 1, 1), (3, 17, 5)]
LABELS = torch.tensor([0, 1, 2, 1, 0, 0, 2, 1])


def generator(seed):
    return torch.Generator().manual_seed(seed)


def data(shape, n=8):
    if len(shape) == 1:
        return 3 + 10 * torch.randn(n, *shape, generator=generator(0))
    return torch.randint(0, 256, (n, *shape), generator=generator(0)) / 255


def built(shape, counts=(4, 2, 6), seed=0, spread=0.2, **options):
    """A flow with random couplings, far from the identity, initialized from data."""
    torch.manual_seed(seed)
    model = Flow(Task(shape, counts), FlowOptions(**{"n_couplings": 2, "width": 4} | options))
    for module in model.modules():
        if isinstance(module, AffineCoupling):
            torch.nn.init.normal_(module.network[-1].weight, std=spread)
    if len(shape) == 1:
        for parameter in model.flow.parameters():
            torch.nn.init.normal_(parameter, std=spread)
    model.update_statistics(data(shape), LABELS)
    model.finalize_statistics()
    return model.eval()


@torch.no_grad()
@pytest.mark.parametrize("shape", IMAGES, ids=lambda shape: "x".join(map(str, shape)))
def test_decode_inverts_encode_on_images(shape):
    model, x = built(shape), data(shape)
    z = model.encode(x)
    assert z.shape == (8, math.prod(model.padded))
    assert_close(model.decode(z), x, rtol=0, atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("n_dims", [1, 2, 5])
def test_decode_inverts_encode_on_vectors(n_dims):
    model, x = built((n_dims,)), data((n_dims,))
    scale = model.standardizer.scale
    assert_close(model.decode(model.encode(x)) / scale, (x / scale).double(), rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("shape", "padded"),
    [((1, 8, 8), (1, 8, 8)), ((1, 9, 6), (1, 10, 6)), ((3, 17, 5), (3, 20, 8)), ((1, 1, 1), (1, 2, 2))],
)
def test_images_are_padded_to_sides_that_can_be_halved(shape, padded):
    assert built(shape).padded == padded


@pytest.mark.parametrize("n_dims", [2, 4])
def test_log_det_on_vectors_agrees_with_the_jacobian(n_dims):
    flow = built((n_dims,), spread=0.3).flow.double()
    x = torch.randn(4, n_dims, generator=generator(1), dtype=torch.float64)
    jacobians = torch.stack([torch.autograd.functional.jacobian(lambda v: flow(v[None])[0][0], each) for each in x])
    log_det = flow(x)[1]
    assert log_det.abs().min() > 1e-3  # not the identity
    assert_close(log_det, jacobians.slogdet()[1], rtol=1e-8, atol=1e-8)


@torch.no_grad()
@pytest.mark.parametrize("seed", [0, 1])
def test_density_on_vectors_integrates_to_one(seed):
    model = built((2,), counts=(3, 5), seed=seed)
    n, reach = 400, 12.0  # standard deviations either way
    steps = (torch.arange(n) + 0.5) * 2 * reach / n - reach
    grid = torch.cartesian_prod(steps, steps) * model.standardizer.scale + model.standardizer.location.float()
    cell = (2 * reach / n) ** 2 * model.standardizer.scale.prod().double()
    mass = model.log_likelihood(grid).double().exp().sum(0) * cell
    assert_close(mass, torch.ones(2, dtype=torch.float64), rtol=0, atol=0.01)


@torch.no_grad()
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_bound_on_pixel_values_sums_to_at_most_one(seed):
    """Σ_k p(k) ≤ 1 for the bins' masses, and the bound E_u log is below even those."""
    model, n = built((1, 1, 1), counts=(4, 2), seed=seed, noise=0.0), 200
    values = (torch.arange(N_LEVELS) / (N_LEVELS - 1)).reshape(-1, 1, 1, 1).repeat_interleave(n, 0)
    model.update_statistics(values, torch.zeros(len(values), dtype=torch.long))  # all noise is where the density is
    model.finalize_statistics()
    L = model.log_likelihood(values, rng=generator(seed)).double().reshape(N_LEVELS, n, 2)
    masses = L.exp()
    mass, error = masses.mean(1).sum(0), (masses.var(1) / n).sum(0).sqrt()
    assert (mass <= 1 + 4 * error).all()
    bound = L.mean(1).exp()
    assert (bound.sum(0) <= mass).all()
    assert (mass > 0.1).all()  # not by saying nothing


@torch.no_grad()
def test_padding_does_not_change_the_likelihood():
    model, x = built((1, 1, 3)), data((1, 1, 3))
    inputs = []
    model.flow.register_forward_hook(lambda _, args, __: inputs.append(args[0]))
    L = model.log_likelihood(x, rng=generator(0))
    (padded,) = inputs
    assert padded.shape[1:] == model.padded == (1, 2, 4)
    assert -0.5 <= padded.min() <= padded.max() <= 0.5
    assert ((padded[:, :, :1, :3] + 0.5) * N_LEVELS).floor().eq((x * (N_LEVELS - 1)).round()).all()
    z, log_det = model.flow(padded)
    log_density = torch.distributions.Normal(model.component_mean, 1).log_prob(z[:, None]).sum(2)
    assert_close(L, log_density + log_det[:, None] - 3 * math.log(N_LEVELS), rtol=1e-4, atol=1e-3)


@torch.no_grad()
@pytest.mark.parametrize("shape", [(1, 9, 6), (5,)], ids=str)
def test_likelihood_ratios_depend_on_components_only(shape):
    model, x = built(shape), data(shape)
    z, (means, _) = model.encode(x), model.components()
    squared = (z[:, None].double() - means.double()).square().sum(2)
    L = model.log_likelihood(x).double()
    assert_close(L - L[:, :1], -0.5 * (squared - squared[:, :1]), rtol=1e-3, atol=1e-3)
    model.component_mean.copy_(model.component_mean[:1].expand_as(means))
    alike = model.log_scores(x)
    assert_close(alike, alike[:, :1].expand_as(alike))


@torch.no_grad()
@pytest.mark.parametrize("shape", [(1, 9, 6), (5,)], ids=str)
def test_statistics_contain_distances_to_components(shape):
    model, x = built(shape), data(shape)
    z, (means, _) = model.encode(x), model.components()
    expected = (z[:, None] - means).square().mean(2).sqrt()
    assert_close(model.outputs(x).statistics[..., 1], expected, rtol=1e-3, atol=1e-3)


@torch.no_grad()
@pytest.mark.parametrize("shape", [(1, 4, 4), (5,)], ids=str)
def test_loss_of_unlabeled_images_is_the_marginal_likelihood(shape):
    model, x = built(shape, noise=0.0, class_weight=0.0), data(shape)
    (objective,) = model.objectives()
    found = objective.loss(x, torch.full((8,), -1), generator(0))
    L = model.log_likelihood(x, rng=generator(0))
    expected = -(L + model.log_prior).logsumexp(1).mean() / math.prod(model.padded)
    assert_close(found, expected, rtol=1e-4, atol=1e-4)
