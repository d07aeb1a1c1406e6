"""Generator that upsamples a thumbnail to an image, conditioned on a vector by FiLM."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from likely.networks.blocks import sub_pixels
from likely.networks.discriminator import LEAKY_SLOPE

MIN_CHANNELS = 16  # channels of any layer


class Upsampler(nn.Module):
    """x = s↑ + r(s, z, p): thumbnails (B, 3, s, s), noise (B, d, s, s), conditions (B, P) -> images (B, 3, side, side)."""

    def __init__(
        self, side: int, max_input_side: int, noise_dims: int, n_condition: int, *, width: int, depth: int
    ) -> None:
        """Build an upsampler to `side` pixels by doubling, from the largest size of at most `max_input_side`."""
        super().__init__()
        self.sizes = _sizes(side, max_input_side)
        channels = [max(MIN_CHANNELS, width >> i) for i in range(len(self.sizes))]
        self.first = nn.Conv2d(3 + noise_dims, channels[0], 3, padding=1)
        self.blocks = nn.ModuleList(_FiLMBlock(channels[0], n_condition) for _ in range(depth))
        self.up = nn.ModuleList(nn.Conv2d(a, 4 * b, 3, padding=1) for a, b in pairwise(channels))
        self.up_blocks = nn.ModuleList(_FiLMBlock(n, n_condition) for n in channels[1:])
        self.last = nn.Conv2d(channels[-1], 3, 3, padding=1)
        with torch.no_grad():
            # Initialize the four sub-pixels alike to avoid checkerboard artifacts (Aitken 2017).
            for up in self.up:
                up.weight.copy_(up.weight[::4].repeat_interleave(4, 0))  # type: ignore[operator,index]
            self.last.weight *= 0.1

    def forward(self, s: Tensor, z: Tensor, condition: Tensor) -> Tensor:
        h = self.first(torch.cat([s - 0.5, z], 1))
        for block in self.blocks:
            h = block(h, condition)
        for up, block, size in zip(self.up, self.up_blocks, self.sizes[1:], strict=True):
            h = block(sub_pixels(up(h), (2, 2))[..., :size, :size], condition)
        larger = F.interpolate(s, size=(self.sizes[-1],) * 2, mode="bicubic")
        image: Tensor = larger + self.last(F.leaky_relu(h, LEAKY_SLOPE))
        return image


class _FiLMBlock(nn.Module):
    """h + g(γ f(h) + β), f and g 3x3 convolutions, γ − 1 and β linear in the condition (Perez 2018, FiLM)."""

    def __init__(self, n_channels: int, n_condition: int) -> None:
        super().__init__()
        self.inner = nn.Conv2d(n_channels, n_channels, 3, padding=1)
        self.outer = nn.Conv2d(n_channels, n_channels, 3, padding=1)
        self.to_film = nn.Linear(n_condition, 2 * n_channels)
        with torch.no_grad():
            self.outer.weight *= 0.1  # a block starts near the identity

    def forward(self, h: Tensor, condition: Tensor) -> Tensor:
        scale, shift = self.to_film(condition)[..., None, None].chunk(2, 1)
        residual: Tensor = self.outer(
            F.leaky_relu(self.inner(F.leaky_relu(h, LEAKY_SLOPE)) * (1 + scale) + shift, LEAKY_SLOPE)
        )
        return h + residual


def _sizes(side: int, max_input_side: int) -> list[int]:
    """Return the sides of the layers in pixels, the thumbnail's first."""
    residual = [side]
    while residual[0] > max_input_side:
        residual.insert(0, (residual[0] + 1) // 2)
    return residual
