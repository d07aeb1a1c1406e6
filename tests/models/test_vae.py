"""VAE: samples come from the aggregated posteriors of the classes."""

import torch
from torch.testing import assert_close

from likely.base import Task
from likely.models.vae import VAE, VAEOptions

SMALL = {"latent_dims": 3, "width": 4}


def generator(seed):
    return torch.Generator().manual_seed(seed)


def test_sampling_distribution_follows_the_posterior_means():
    torch.manual_seed(0)
    model = VAE(Task((1, 8, 8), (4, 4)), VAEOptions(**SMALL))
    x = torch.rand(40, 1, 8, 8, generator=generator(1))
    y = torch.arange(40) % 2
    x[y == 1] *= 0.1
    for step in range(60):
        model.objectives()[0].loss(x, y, generator(step))
    z = model.encode(x)  # in training mode, as in the loss
    mean, _ = model.sampling_distribution()
    for c in range(2):
        assert_close(mean[c], z[y == c].mean(0), rtol=1e-2, atol=1e-2)
    assert_close(model.latent(torch.tensor([1, 0])), mean[[1, 0]])
    assert not torch.allclose(model.components()[0], mean)


def test_unlabeled_images_do_not_change_the_sampling_distribution():
    torch.manual_seed(0)
    model = VAE(Task((1, 8, 8), (4, 4)), VAEOptions(**SMALL))
    before = [values.clone() for values in model.sampling_distribution()]
    model.objectives()[0].loss(torch.rand(6, 1, 8, 8, generator=generator(1)), torch.full((6,), -1), generator(2))
    assert all(map(torch.equal, before, model.sampling_distribution()))
