"""Discriminators on the features of a pretrained network (Sauer 2021, Projected GANs Converge Faster).

Fixed random layers mix the feature maps across channels and from coarse to fine, so that every discriminator depends on all
of them. Only the discriminators are trained.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from likely.networks.discriminator import LEAKY_SLOPE, spectral_norm

_MIN_STD = 1e-3  # lower bound: nearly constant channels are not scaled up


class FeatureProjection(nn.Module):
    """Fixed random projection of maps (B, F_l, h_l, w_l), finest first, to mixed maps (B, width, h_l, w_l).

    Channels are divided by their standard deviation on real images, so that none dominates.
    """

    def __init__(self, channels: Sequence[int], width: int, *, seed: int = 0) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.across_channels = nn.ModuleList(nn.Conv2d(n, width, 1, bias=False) for n in channels)
            self.across_scales = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1, bias=False) for _ in channels[:-1])
            for layer in (*self.across_channels, *self.across_scales):
                nn.init.kaiming_normal_(layer.weight)
        self.requires_grad_(False)

    @torch.no_grad()
    def init_from_data(self, maps: Sequence[Tensor]) -> None:
        """Scale by the standard deviations of the channels on maps of real images; call once."""
        for layer, h in zip(self.across_channels, maps, strict=True):
            layer.weight.copy_(layer.weight / _channel_std(h))  # type: ignore[operator,arg-type]  # a parameter

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        mixed = [layer(h) for layer, h in zip(self.across_channels, maps, strict=True)]
        outputs = [mixed[-1]]
        for layer, h in zip(reversed(self.across_scales), reversed(mixed[:-1]), strict=True):
            coarser = F.interpolate(outputs[-1], size=h.shape[2:], mode="nearest")
            outputs.append(layer(h + coarser) / 2**0.5)
        return outputs[::-1]


class ProjectedDiscriminator(nn.Module):
    """Class-conditional discriminators, one per map and one of image patches: critic values (B, R) of all positions.

    r = w · h + e_c · h̄ at each position of a map (Miyato & Koyama 2018, cGANs with Projection Discriminator, eq. 3), for
    x (B, 3, H, W), maps (B, width, h, w) and classes (B,). The patch discriminator sees artifacts to which a network trained
    on photographs is insensitive.
    """

    def __init__(self, n_maps: int, width: int, n_classes: int) -> None:
        super().__init__()
        n = n_maps + 1
        patch_channels = ((3, width // 2), (width // 2, width))
        self.patches = nn.ModuleList(spectral_norm(nn.Conv2d(a, b, 4, stride=2, padding=1)) for a, b in patch_channels)
        self.inner = nn.ModuleList(spectral_norm(nn.Conv2d(width, width, 3, padding=1)) for _ in range(n))
        self.outer = nn.ModuleList(spectral_norm(nn.Conv2d(width, 1, 1)) for _ in range(n))
        self.classes = nn.ModuleList(spectral_norm(nn.Embedding(n_classes, width)) for _ in range(n))

    def forward(self, x: Tensor, maps: Sequence[Tensor], c: Tensor) -> Tensor:
        patches = 2 * x - 1
        for layer in self.patches:
            patches = F.leaky_relu(layer(patches), LEAKY_SLOPE)
        outputs = []
        for h_in, inner, outer, classes in zip((patches, *maps), self.inner, self.outer, self.classes, strict=True):
            h = F.leaky_relu(inner(h_in), LEAKY_SLOPE)
            class_score = (classes(c) * h.mean((2, 3))).sum(1, keepdim=True)  # (B, 1)
            outputs.append(outer(h).flatten(1) + class_score)
        return torch.cat(outputs, 1)


def _channel_std(h: Tensor) -> Tensor:
    """Return the standard deviation of each channel over images and positions, bounded below: (B, F, h, w) -> (F, 1, 1)."""
    std: Tensor = h.detach().float().std((0, 2, 3), correction=0)[:, None, None].clamp_min(_MIN_STD)
    return std


def perceptual_distance(fake: Sequence[Tensor], real: Sequence[Tensor]) -> Tensor:
    """Return E |h_fake − h_real| / σ, averaged over maps (B, F_l, h_l, w_l), σ the channels' standard deviation on real images.

    A perceptual loss (Dosovitskiy & Brox 2016, Generating Images with Perceptual
    Similarity Metrics based on Deep Networks).
    """
    return torch.stack(
        [((a - b).float() / _channel_std(b)).abs().mean() for a, b in zip(fake, real, strict=True)]
    ).mean()


def texture_distance(fake: Sequence[Tensor], real: Sequence[Tensor]) -> Tensor:
    """Return E |μ_fake − μ_real| / σ + E |s_fake − s_real| / σ, with μ and s a channel's spatial mean and standard deviation.

    A texture loss, invariant to the position of the texture's elements (Huang & Belongie 2017, Arbitrary Style Transfer in
    Real-time with Adaptive Instance Normalization, eq. 13; Gatys 2015 by Gram matrices): maps as in `perceptual_distance`.
    """
    each = []
    for a, b in zip(fake, real, strict=True):
        scale = _channel_std(b).flatten()
        for statistic in (torch.mean, _std):
            each.append(((statistic(a.float(), (2, 3)) - statistic(b.float(), (2, 3))) / scale).abs().mean())
    return 2 * torch.stack(each).mean()


def _std(h: Tensor, axes: tuple[int, ...]) -> Tensor:
    """Return the standard deviation, differentiable at 0."""
    return (h.var(axes, correction=0) + _MIN_STD**2).sqrt()
