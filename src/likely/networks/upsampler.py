"""A generator that makes an image of a sketch: layer by layer up to its size, with detail that a plan asks for."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from likely.networks.blocks import sub_pixels
from likely.networks.discriminator import SLOPE

NARROWEST = 16  # channels of any layer


class Upsampler(nn.Module):
    """x = s↑ + r(s, z, p): sketches (B, 3, s, s), noise (B, d, s, s) and plans (B, P) -> images (B, 3, side, side)."""

    def __init__(self, side: int, coarsest: int, noise_dims: int, n_plan: int, *, width: int, depth: int) -> None:
        """Up to `side` pixels by doubling, from the first size of at most `coarsest`."""
        super().__init__()
        self.sizes = _sizes(side, coarsest)
        channels = [max(NARROWEST, width >> i) for i in range(len(self.sizes))]
        self.first = nn.Conv2d(3 + noise_dims, channels[0], 3, padding=1)
        self.blocks = nn.ModuleList(FiLMBlock(channels[0], n_plan) for _ in range(depth))
        self.up = nn.ModuleList(nn.Conv2d(a, 4 * b, 3, padding=1) for a, b in pairwise(channels))
        self.after = nn.ModuleList(FiLMBlock(n, n_plan) for n in channels[1:])
        self.last = nn.Conv2d(channels[-1], 3, 3, padding=1)
        with torch.no_grad():
            # Four pixels begin alike, so that nothing of a grid has to be unlearned (Aitken 2017).
            for up in self.up:
                up.weight.copy_(up.weight[::4].repeat_interleave(4, 0))  # type: ignore[operator,index]
            self.last.weight *= 0.1

    def forward(self, s: Tensor, z: Tensor, plan: Tensor) -> Tensor:
        h = self.first(torch.cat([s - 0.5, z], 1))
        for block in self.blocks:
            h = block(h, plan)
        for up, block, size in zip(self.up, self.after, self.sizes[1:], strict=True):
            h = block(sub_pixels(up(h), (2, 2))[..., :size, :size], plan)
        larger = F.interpolate(s, size=(self.sizes[-1],) * 2, mode="bicubic")
        drawn: Tensor = larger + self.last(F.leaky_relu(h, SLOPE))
        return drawn


class FiLMBlock(nn.Module):
    """h + g(γ f(h) + β), f and g 3x3 convolutions, γ − 1 and β linear in a plan (Perez 2018, FiLM): (B, F, H, W) as before."""

    def __init__(self, n_channels: int, n_plan: int) -> None:
        super().__init__()
        self.inner = nn.Conv2d(n_channels, n_channels, 3, padding=1)
        self.outer = nn.Conv2d(n_channels, n_channels, 3, padding=1)
        self.said = nn.Linear(n_plan, 2 * n_channels)
        with torch.no_grad():
            self.outer.weight *= 0.1  # a block begins by changing little

    def forward(self, h: Tensor, plan: Tensor) -> Tensor:
        times, more = self.said(plan)[..., None, None].chunk(2, 1)
        found: Tensor = self.outer(F.leaky_relu(self.inner(F.leaky_relu(h, SLOPE)) * (1 + times) + more, SLOPE))
        return h + found


def _sizes(side: int, coarsest: int) -> list[int]:
    """Pixels a side of the layers, the sketch's first."""
    found = [side]
    while found[0] > coarsest:
        found.insert(0, (found[0] + 1) // 2)
    return found
