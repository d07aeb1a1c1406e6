"""What a pretrained network sees, as a discriminator's eyes (Sauer 2021, Projected GANs Converge Faster).

Maps of several sizes are mixed by layers that are drawn once and never learned, across channels and from coarse to fine, so
that every discriminator has all of them before it; only the discriminators learn.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from likely.nets.discriminator import SLOPE, spectral

SMALLEST = 4  # pixels a side: maps below tell of an image what the next larger ones do


class Projection(nn.Module):
    """Maps (B, F_l, h_l, w_l), the finest first -> mixed maps (B, width, h_l, w_l); nothing here learns."""

    def __init__(self, channels: Sequence[int], width: int, *, seed: int = 0) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.across = nn.ModuleList(nn.Conv2d(n, width, 1, bias=False) for n in channels)
            self.down = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1, bias=False) for _ in channels[:-1])
            for layer in (*self.across, *self.down):
                nn.init.kaiming_normal_(layer.weight)
        self.requires_grad_(False)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        mixed = [layer(h) for layer, h in zip(self.across, maps, strict=True)]
        found = [mixed[-1]]
        for layer, h in zip(reversed(self.down), reversed(mixed[:-1]), strict=True):
            coarser = F.interpolate(found[-1], size=h.shape[2:], mode="nearest")
            found.append(layer(h + coarser) / 2**0.5)
        return found[::-1]


class Judges(nn.Module):
    """A discriminator for each of several maps, told the class: maps (B, width, h, w) and classes (B,) -> (B, R) numbers.

    r = w · h + e_c · h̄ at every place of a map (Miyato & Koyama 2018, cGANs with Projection Discriminator, eq. 3).
    """

    def __init__(self, n_maps: int, width: int, n_classes: int) -> None:
        super().__init__()
        self.inner = nn.ModuleList(spectral(nn.Conv2d(width, width, 3, padding=1)) for _ in range(n_maps))
        self.outer = nn.ModuleList(spectral(nn.Conv2d(width, 1, 1)) for _ in range(n_maps))
        self.classes = nn.ModuleList(spectral(nn.Embedding(n_classes, width)) for _ in range(n_maps))

    def forward(self, maps: Sequence[Tensor], c: Tensor) -> Tensor:
        found = []
        for h, inner, outer, classes in zip(maps, self.inner, self.outer, self.classes, strict=True):
            h = F.leaky_relu(inner(h), SLOPE)
            of_class = (classes(c) * h.mean((2, 3))).sum(1, keepdim=True)  # (B, 1)
            found.append(outer(h).flatten(1) + of_class)
        return torch.cat(found, 1)


def useful(maps: Sequence[Tensor]) -> int:
    """How many of the maps, the finest first, are large enough to be looked at; at least one."""
    return max(1, sum(h.ndim == 4 and min(h.shape[2:]) >= SMALLEST for h in maps))


def distance(made: Sequence[Tensor], real: Sequence[Tensor]) -> Tensor:
    """E |h_made − h_real| / σ, σ each channel's spread over the real images, mean over maps: ((B, F_l, h_l, w_l) …) -> ().

    What a network that knows photographs takes for alike, is (Dosovitskiy & Brox 2016, Generating Images with Perceptual
    Similarity Metrics based on Deep Networks).
    """
    each = []
    for a, b in zip(made, real, strict=True):
        spread = b.detach().float().std((0, 2, 3), keepdim=True).clamp_min(1e-3)
        each.append(((a - b.detach()).float().abs() / spread).mean())
    return torch.stack(each).mean()
