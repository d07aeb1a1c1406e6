"""Encoders and decoders for images and vectors of any size, and the random numbers that models sample."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, Self

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from likely.base import FamilyOptions
from likely.options import Options


class TrunkOptions(FamilyOptions):
    """Size of the encoder and decoder networks."""

    width: int = Field(
        32,
        ge=4,
        description="Channels of the first convolution. Fully connected layers have eight times as many units.",
    )
    depth: int = Field(1, ge=0, description="Residual blocks at the lowest resolution.")


class PyramidOptions(Options):
    """Options of the resolutions of convolutional networks."""

    min_map_side: int = Field(
        8,
        ge=1,
        description="Side in pixels down to which maps are halved: a 3x3 convolution covers it within two layers; halving "
        "further loses detail.",
    )
    small_image_side: int = Field(
        16,
        ge=0,
        description="Images of at most its square in pixels get one convolution at full resolution, which is cheap there.",
    )
    max_width_factor: int = Field(
        4, ge=1, description="Channels of the deepest levels, relative to those of the first."
    )


DEFAULT_PYRAMID: Final = PyramidOptions()


@dataclass(frozen=True)
class Pyramid:
    """Sizes (height, width) and channels of feature maps, from the image to the lowest resolution.

    `strides` holds the stride of each side from a level to the next: 2 if the side is halved, else 1.

    >>> Pyramid.of((1, 28, 28), 32)
    Pyramid(sizes=((28, 28), (14, 14), (7, 7)), channels=(1, 32, 64), strides=((2, 2), (2, 2)))
    >>> Pyramid.of((3, 8, 8), 32)
    Pyramid(sizes=((8, 8), (8, 8), (4, 4)), channels=(3, 32, 64), strides=((1, 1), (2, 2)))
    """

    sizes: tuple[tuple[int, int], ...]
    channels: tuple[int, ...]
    strides: tuple[tuple[int, int], ...]

    @classmethod
    def of(cls, shape: Sequence[int], width: int, options: PyramidOptions = DEFAULT_PYRAMID) -> Self:
        """Halve the sides of images (C, H, W) while they exceed `min_map_side`, rounding up, and double the channels.

        The full size of small images appears twice, and every image larger than one pixel is halved at least once.
        """
        n_channels, *size = shape
        sizes = _halved_sizes(size[0], size[1], options)
        widths = [width * min(2**level, options.max_width_factor) for level in range(len(sizes) - 1)]
        strides = tuple((1 + (a[0] > b[0]), 1 + (a[1] > b[1])) for a, b in pairwise(sizes))
        return cls(tuple(sizes), (n_channels, *widths), strides)


def _halved_sizes(height: int, width: int, options: PyramidOptions) -> list[tuple[int, int]]:
    sizes = [(height, width)] * (2 if height * width <= options.small_image_side**2 else 1)
    while max(sizes[-1]) > options.min_map_side:
        h, w = (math.ceil(side / 2) if side > options.min_map_side else side for side in sizes[-1])
        sizes.append((h, w))
    if len(set(sizes)) == 1 and max(height, width) > 1:
        sizes.append((math.ceil(height / 2), math.ceil(width / 2)))
    return sizes


def _conv_bn_relu(n_in: int, n_out: int, *, stride: tuple[int, int] = (1, 1)) -> nn.Sequential:
    """3x3 convolution, batch normalization, ReLU."""
    return nn.Sequential(
        nn.Conv2d(n_in, n_out, 3, stride=stride, padding=1, bias=False), nn.BatchNorm2d(n_out), nn.ReLU()
    )


class _ResidualBlock(nn.Module):
    """x + f(x), with f two 3x3 convolutions (He 2016, Identity Mappings in Deep Residual Networks)."""

    def __init__(self, n_channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            _conv_bn_relu(n_channels, n_channels),
            nn.Conv2d(n_channels, n_channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(n_channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.body(x))


class _ConvEncoder(nn.Module):
    """Convolutional encoder: strided convolutions down to the lowest resolution, residual blocks, flattening."""

    def __init__(self, pyramid: Pyramid, *, depth: int) -> None:
        super().__init__()
        levels = zip(pairwise(pyramid.channels), pyramid.strides, strict=True)
        steps = [_conv_bn_relu(a, b, stride=stride) for (a, b), stride in levels]
        n_channels = pyramid.channels[-1]
        self.body = nn.Sequential(*steps, *(_ResidualBlock(n_channels) for _ in range(depth)))
        self.map_shape: tuple[int, int, int] = (n_channels, *pyramid.sizes[-1])
        self.n_features = math.prod(self.map_shape)

    def forward(self, x: Tensor) -> Tensor:
        """Encode images (B, C, H, W) as features (B, n_features), the flattened maps of `map_shape`."""
        return self._maps(x).flatten(1)

    def pooled(self, x: Tensor) -> Tensor:
        """Return the spatial means of the last maps in float32: (B, C, H, W) -> (B, channels)."""
        return self._maps(x).float().mean((2, 3))

    def forward_with_activations(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return features (B, n_features) and a summary of all activations (B, F) in float32: mean and root mean square of each
        map, and the last maps averaged over the four quarters of the image."""
        h, activations = x - 0.5, []
        for layer in self.body:
            h = layer(h)
            activations += [h.float().mean((2, 3)), h.float().square().mean((2, 3)).sqrt()]
        return h.flatten(1), torch.cat([F.adaptive_avg_pool2d(h.float(), 2).flatten(1), *activations], 1)

    def _maps(self, x: Tensor) -> Tensor:
        maps: Tensor = self.body(x - 0.5)
        return maps


class _ConvDecoder(nn.Module):
    """Convolutional decoder: residual blocks at the lowest resolution, then sub-pixel convolutions (Shi 2016)."""

    def __init__(self, n_features: int, pyramid: Pyramid, *, depth: int) -> None:
        super().__init__()
        self.sizes, self.factors, channels = pyramid.sizes[::-1], pyramid.strides[::-1], pyramid.channels[::-1]
        self.coarsest = (channels[0], *self.sizes[0])
        outputs = [b * math.prod(factors) for b, factors in zip(channels[1:], self.factors, strict=True)]
        self.widen = nn.Linear(n_features, math.prod(self.coarsest))
        self.body = nn.Sequential(
            nn.BatchNorm2d(channels[0]), nn.ReLU(), *(_ResidualBlock(channels[0]) for _ in range(depth))
        )
        inner = zip(channels[:-2], outputs[:-1], strict=True)
        last = nn.Conv2d(channels[-2], outputs[-1], 3, padding=1)
        self.up = nn.ModuleList([*(_conv_bn_relu(a, b) for a, b in inner), last])

    def forward(self, z: Tensor) -> Tensor:
        """Decode features (B, n_features) into maps (B, C, H, W), unbounded."""
        h: Tensor = self.body(self.widen(z).unflatten(1, self.coarsest))
        for layer, factors, (height, width) in zip(self.up, self.factors, self.sizes[1:], strict=True):
            h = _sub_pixels(layer(h), factors)[..., :height, :width]
        return h


def _sub_pixels(h: Tensor, factors: tuple[int, int]) -> Tensor:
    """Upsample by pixel shuffle with one factor per side (Shi 2016): (B, C r s, H, W) -> (B, C, H r, W s)."""
    r, s = factors
    if r == s:
        return F.pixel_shuffle(h, r)  # which keeps channels last
    B, _, H, W = h.shape
    return h.reshape(B, -1, r, s, H, W).permute(0, 1, 4, 2, 5, 3).reshape(B, -1, H * r, W * s)


class _MLP(nn.Module):
    """Encoder of vectors: two fully connected layers with layer normalization."""

    def __init__(self, n_in: int, *, width: int) -> None:
        super().__init__()
        self.n_features, self.map_shape = width, (width, 1, 1)
        self.body = nn.Sequential(*_dense(n_in, width), *_dense(width, width))

    def forward(self, x: Tensor) -> Tensor:
        """Encode vectors (B, D) as features (B, n_features)."""
        features: Tensor = self.body(x)
        return features

    def forward_with_activations(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the features and, as the summary of activations, the features in float32: (B, D) -> (B, n_features) each."""
        h: Tensor = self(x)
        return h, h.float()

    def pooled(self, x: Tensor) -> Tensor:
        """Return the features in float32: (B, D) -> (B, n_features)."""
        features: Tensor = self.body(x)
        return features.float()


def make_encoder(
    shape: Sequence[int], *, width: int, depth: int, pyramid: PyramidOptions = DEFAULT_PYRAMID
) -> _ConvEncoder | _MLP:
    """Build the encoder of images (C, H, W) or vectors (D,) into `n_features` features."""
    if len(shape) == 1:
        return _MLP(shape[0], width=8 * width)
    return _ConvEncoder(Pyramid.of(shape, width, pyramid), depth=depth)


def make_decoder(
    n_features: int, shape: Sequence[int], *, width: int, depth: int, pyramid: PyramidOptions = DEFAULT_PYRAMID
) -> nn.Module:
    """Build the decoder of `n_features` features into maps (C, H, W) or vectors (D,)."""
    if len(shape) == 1:
        return nn.Sequential(
            *_dense(n_features, 8 * width), *_dense(8 * width, 8 * width), nn.Linear(8 * width, shape[0])
        )
    return _ConvDecoder(n_features, Pyramid.of(shape, width, pyramid), depth=depth)


def _dense(n_in: int, n_out: int) -> list[nn.Module]:
    return [nn.Linear(n_in, n_out), nn.LayerNorm(n_out), nn.SiLU()]


def standard_normal(like: Tensor, rng: torch.Generator) -> Tensor:
    """Sample ε ~ N(0, 1) with the shape, dtype and device of `like`."""
    return torch.randn(like.shape, generator=rng, device=rng.device, dtype=like.dtype).to(like.device)


def uniform(shape: Sequence[int], like: Tensor, rng: torch.Generator) -> Tensor:
    """Sample u ~ U(0, 1) of this shape on the device of `like`."""
    return torch.rand(tuple(shape), generator=rng, device=rng.device).to(like.device)


def sample_classes(log_prior: Tensor, n: int, rng: torch.Generator) -> Tensor:
    """Sample n class indices (n,) from a prior (K,)."""
    return torch.multinomial(log_prior.exp().to(rng.device), n, True, generator=rng).to(log_prior.device)
