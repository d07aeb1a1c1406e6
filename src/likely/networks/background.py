"""Background model p₀(x) for likelihood ratios: local pixel statistics, independent of the depicted object."""

from __future__ import annotations

from typing import Final

import torch
from pydantic import Field
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from likely.networks.blocks import uniform
from likely.networks.likelihoods import discretized_logistic
from likely.options import Options


class BackgroundOptions(Options):
    """Options of the background model."""

    hidden_channels: int = Field(16, ge=1, description="Channels of the hidden layer.")
    context: int = Field(2, ge=1, description="Pixels to the left, to the right and above that condition a pixel.")
    mutation_rate: float = Field(
        0.1, ge=0, le=1, description="Fraction of pixels replaced by noise in training (Ren 2019, section 3.2)."
    )
    interval: int = Field(2, ge=1, description="Training steps between updates.")


DEFAULT_BACKGROUND: Final = BackgroundOptions()


class BackgroundModel(nn.Module):
    """log p₀(x) = Σ_i log p(x_i | pixels above it and to its left), by one causal convolution.

    Trained on images with randomly mutated pixels, it captures the correlation of neighboring pixels but not the semantics;
    log p(x) − log p₀(x) leaves the semantics (Ren 2019, Likelihood Ratios for Out-of-Distribution Detection).
    """

    def __init__(self, channels: int, options: BackgroundOptions = DEFAULT_BACKGROUND) -> None:
        super().__init__()
        self.options, context = options, options.context
        self.to_hidden = nn.Conv2d(channels, options.hidden_channels, (context + 1, 2 * context + 1))
        self.to_parameters = nn.Conv2d(options.hidden_channels, 2 * channels, 1)
        causal_mask = torch.ones(context + 1, 2 * context + 1)
        causal_mask[-1, context:] = 0  # the pixel itself and those to its right
        self.causal_mask: Tensor
        self.register_buffer("causal_mask", causal_mask, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return log p(x_i | pixels before i) in nats of images in [0, 1]: (B, C, H, W) -> (B, C, H, W)."""
        context = self.options.context
        padded = F.pad(x - 0.5, (context, context, context, 0))
        hidden = F.conv2d(padded, self.to_hidden.weight * self.causal_mask, self.to_hidden.bias)
        mean, log_scale = self.to_parameters(F.silu(hidden)).float().chunk(2, 1)
        return discretized_logistic(x, 0.5 + mean, log_scale.clamp(-7, 1))

    def loss(self, x: Tensor, rng: Generator) -> Tensor:
        """Return −log p₀ per dimension of mutated images, a scalar in nats."""
        mutated = uniform(x.shape, x, rng) < self.options.mutation_rate
        noise = (255 * uniform(x.shape, x, rng)).round() / 255
        log_p: Tensor = self(torch.where(mutated, noise, x))
        return -log_p.mean()
