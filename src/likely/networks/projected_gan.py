"""What a pretrained network sees, as a discriminator's eyes (Sauer 2021, Projected GANs Converge Faster).

Maps of several sizes are mixed by layers that are drawn once and never learned, across channels and from coarse to fine, so
that every discriminator has all of them before it; only the discriminators learn.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from likely.networks.discriminator import SLOPE, spectral

STILL = 1e-3  # the least spread: what hardly varies is not blown up
SMALLEST = 4  # pixels a side: maps below tell of an image what the next larger ones do


class FeatureProjection(nn.Module):
    """Maps (B, F_l, h_l, w_l), the finest first -> mixed maps (B, width, h_l, w_l); nothing here learns.

    Channels are divided by their spread over the images that were measured, so that no loud one drowns the others.
    """

    def __init__(self, channels: Sequence[int], width: int, *, seed: int = 0) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.across = nn.ModuleList(nn.Conv2d(n, width, 1, bias=False) for n in channels)
            self.down = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1, bias=False) for _ in channels[:-1])
            for layer in (*self.across, *self.down):
                nn.init.kaiming_normal_(layer.weight)
        self.requires_grad_(False)

    @torch.no_grad()
    def init_from_data(self, maps: Sequence[Tensor]) -> None:
        """Once: the channels' spreads over some real images."""
        for layer, h in zip(self.across, maps, strict=True):
            layer.weight.copy_(layer.weight / spread(h))  # type: ignore[operator,arg-type]  # a parameter

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        mixed = [layer(h) for layer, h in zip(self.across, maps, strict=True)]
        found = [mixed[-1]]
        for layer, h in zip(reversed(self.down), reversed(mixed[:-1]), strict=True):
            coarser = F.interpolate(found[-1], size=h.shape[2:], mode="nearest")
            found.append(layer(h + coarser) / 2**0.5)
        return found[::-1]


class ProjectedDiscriminator(nn.Module):
    """A discriminator for each of several maps, and one of patches of the image x, told the class: x (B, 3, H, W), maps
    (B, width, h, w) and classes (B,) -> (B, R) numbers.

    r = w · h + e_c · h̄ at every place of a map (Miyato & Koyama 2018, cGANs with Projection Discriminator, eq. 3). Patches are
    judged because a network that is used to photographs overlooks much that no photograph has.
    """

    def __init__(self, n_maps: int, width: int, n_classes: int) -> None:
        super().__init__()
        n = n_maps + 1
        down = ((3, width // 2), (width // 2, width))
        self.patches = nn.ModuleList(spectral(nn.Conv2d(a, b, 4, stride=2, padding=1)) for a, b in down)
        self.inner = nn.ModuleList(spectral(nn.Conv2d(width, width, 3, padding=1)) for _ in range(n))
        self.outer = nn.ModuleList(spectral(nn.Conv2d(width, 1, 1)) for _ in range(n))
        self.classes = nn.ModuleList(spectral(nn.Embedding(n_classes, width)) for _ in range(n))

    def forward(self, x: Tensor, maps: Sequence[Tensor], c: Tensor) -> Tensor:
        patches = 2 * x - 1
        for layer in self.patches:
            patches = F.leaky_relu(layer(patches), SLOPE)
        found = []
        for seen, inner, outer, classes in zip((patches, *maps), self.inner, self.outer, self.classes, strict=True):
            h = F.leaky_relu(inner(seen), SLOPE)
            of_class = (classes(c) * h.mean((2, 3))).sum(1, keepdim=True)  # (B, 1)
            found.append(outer(h).flatten(1) + of_class)
        return torch.cat(found, 1)


def usable_maps(maps: Sequence[Tensor]) -> int:
    """How many of the maps, the finest first, are large enough to be looked at; at least one."""
    return max(1, sum(h.ndim == 4 and min(h.shape[2:]) >= SMALLEST for h in maps))


def spread(h: Tensor) -> Tensor:
    """Each channel's standard deviation over images and places, for what is divided by it: (B, F, h, w) -> (F, 1, 1)."""
    found: Tensor = h.detach().float().std((0, 2, 3), correction=0)[:, None, None].clamp_min(STILL)
    return found


def distance(made: Sequence[Tensor], real: Sequence[Tensor]) -> Tensor:
    """E |h_made − h_real| / σ, σ each channel's spread over the real images, mean over maps: ((B, F_l, h_l, w_l) …) -> ().

    What a network that knows photographs takes for alike, is (Dosovitskiy & Brox 2016, Generating Images with Perceptual
    Similarity Metrics based on Deep Networks).
    """
    return torch.stack([((a - b).float() / spread(b)).abs().mean() for a, b in zip(made, real, strict=True)]).mean()


def texture_distance(made: Sequence[Tensor], real: Sequence[Tensor]) -> Tensor:
    """E |μ_made − μ_real| / σ + E |s_made − s_real| / σ, with μ and s each image's mean and deviation of a channel over places.

    What two pieces of one texture share, wherever their parts lie (Huang & Belongie 2017, Arbitrary Style Transfer in
    Real-time with Adaptive Instance Normalization, eq. 13; Gatys 2015 by Gram matrices): maps as in `distance`.
    """
    each = []
    for a, b in zip(made, real, strict=True):
        scale = spread(b).flatten()
        for of in (torch.mean, _deviation):
            each.append(((of(a.float(), (2, 3)) - of(b.float(), (2, 3))) / scale).abs().mean())
    return 2 * torch.stack(each).mean()


def _deviation(h: Tensor, over: tuple[int, ...]) -> Tensor:
    """The standard deviation, with a slope where there is none."""
    return (h.var(over, correction=0) + STILL**2).sqrt()
