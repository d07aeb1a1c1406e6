"""Background model: causal, normalized, and trained on local statistics."""

import torch

from likely.networks.background import BackgroundModel


def background(channels=2):
    torch.manual_seed(0)
    return BackgroundModel(channels)


def images(n, channels=2, side=6, seed=0):
    return torch.randint(0, 256, (n, channels, side, side), generator=torch.Generator().manual_seed(seed)) / 255


def test_pixels_depend_on_earlier_pixels_only():
    x = images(1).requires_grad_()
    found = background()(x)
    for row, column in ((0, 0), (3, 2), (5, 5)):
        (slope,) = torch.autograd.grad(found[0, :, row, column].sum(), x, retain_graph=True)
        later = (torch.arange(6)[:, None] * 6 + torch.arange(6)) > row * 6 + column
        assert (slope[0][:, later] == 0).all()
    (slope,) = torch.autograd.grad(found[0, :, 3, 2].sum(), x)
    assert (slope[0, :, 2, 1:4] != 0).any()


def test_pixel_values_sum_to_one():
    x = images(1, channels=1).expand(256, -1, -1, -1).clone()
    x[:, 0, 3, 3] = torch.arange(256) / 255
    torch.testing.assert_close(background(1)(x)[:, 0, 3, 3].exp().sum(), torch.tensor(1.0), atol=1e-4, rtol=0)


def test_training_increases_the_likelihood_of_smooth_images():
    model, rng = background(1), torch.Generator().manual_seed(1)
    smooth = (torch.arange(16.0) / 15)[None, None, None].expand(32, 1, 16, 16) * torch.rand(32, 1, 1, 1, generator=rng)
    smooth = (255 * smooth).round() / 255
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(150):
        optimizer.zero_grad()
        model.loss(smooth, rng).backward()
        optimizer.step()
    with torch.no_grad():
        assert model(smooth).mean() > model(images(8, 1, 16)).mean() + 1
