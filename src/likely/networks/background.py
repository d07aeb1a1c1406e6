"""What pixels are like next to other pixels, whatever the image shows: a background that likelihoods are compared with."""

from __future__ import annotations

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from likely.networks.blocks import uniform
from likely.networks.likelihoods import discretized_logistic

WIDTH = 16  # maps
REACH = 2  # pixels to the left, to the right and above that a pixel is foretold from
CHANGED = 0.1  # of the pixels in training (Ren 2019, section 3.2)


class BackgroundModel(nn.Module):
    """log p₀(x) = Σ_i log p(x_i | pixels above it and to its left), by one layer of maps that is the same everywhere.

    Trained on images of which some pixels are changed at random, it learns what neighbors have in common and nothing of
    what is shown; log p(x) − log p₀(x) is what remains (Ren 2019, Likelihood Ratios for Out-of-Distribution Detection).
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.look = nn.Conv2d(channels, WIDTH, (REACH + 1, 2 * REACH + 1))
        self.say = nn.Conv2d(WIDTH, 2 * channels, 1)
        earlier = torch.ones(REACH + 1, 2 * REACH + 1)
        earlier[-1, REACH:] = 0  # the pixel itself and those to its right
        self.earlier: Tensor
        self.register_buffer("earlier", earlier, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """log p(x_i | ...) of images in [0, 1], nats: (B, C, H, W) -> (B, C, H, W)."""
        around = F.pad(x - 0.5, (REACH, REACH, REACH, 0))
        maps = F.conv2d(around, self.look.weight * self.earlier, self.look.bias)
        mean, log_scale = self.say(F.silu(maps)).float().chunk(2, 1)
        return discretized_logistic(x, 0.5 + mean, log_scale.clamp(-7, 1))

    def loss(self, x: Tensor, rng: Generator) -> Tensor:
        """−log p₀ per dimension of images changed here and there."""
        changed = uniform(x.shape, x, rng) < CHANGED
        noise = (255 * uniform(x.shape, x, rng)).round() / 255
        log_p: Tensor = self(torch.where(changed, noise, x))
        return -log_p.mean()
