"""The autoencoder's components tell classes apart; its samples come from where the images of a class lie."""

import torch
from torch.testing import assert_close

from likely.base import Task
from likely.models.vae import VAE, VAEOptions

SMALL = {"latent_dims": 3, "width": 4}


def generator(seed):
    return torch.Generator().manual_seed(seed)


def test_samples_come_from_where_the_images_of_a_class_lie():
    torch.manual_seed(0)
    model = VAE(Task((1, 8, 8), (4, 4)), VAEOptions(**SMALL))
    x = torch.rand(40, 1, 8, 8, generator=generator(1))
    y = torch.arange(40) % 2
    x[y == 1] *= 0.1
    for step in range(60):
        model._loss(x, y, generator(step))
    z, _ = model._posterior(x)  # in training mode, as the loss has seen them
    mean, _ = model.sampling_distribution()
    for c in range(2):
        assert_close(mean[c], z[y == c].mean(0), rtol=1e-2, atol=1e-2)
    assert_close(model.latent(torch.tensor([1, 0])), mean[[1, 0]])
    assert not torch.allclose(model.components()[0], mean)


def test_images_without_a_label_leave_the_places_of_the_classes():
    torch.manual_seed(0)
    model = VAE(Task((1, 8, 8), (4, 4)), VAEOptions(**SMALL))
    before = [part.clone() for part in model.sampling_distribution()]
    model._loss(torch.rand(6, 1, 8, 8, generator=generator(1)), torch.full((6,), -1), generator(2))
    for part, after in zip(before, model.sampling_distribution(), strict=True):
        assert torch.equal(part, after)
