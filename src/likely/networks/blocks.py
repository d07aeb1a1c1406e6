"""Encoders and decoders for images and vectors of any size, and the random numbers that models sample."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from likely.base import FamilyOptions

MIN_MAP_SIDE = 8  # pixels: a 3x3 convolution covers maps of this side within two layers; halving further loses detail
SMALL_IMAGE_SIDE = (
    16  # images of at most its square in pixels get one convolution at full resolution: it is cheap there
)


class TrunkOptions(FamilyOptions):
    """Size of the encoder and decoder networks."""

    width: int = Field(
        32,
        ge=4,
        description="Channels of the first convolution. Fully connected layers have eight times as many units.",
    )
    depth: int = Field(1, ge=0, description="Residual blocks at the lowest resolution.")


def pyramid(height: int, width: int) -> list[tuple[int, int]]:
    """Return the map sizes from the image down to the lowest resolution: sides over `MIN_MAP_SIDE` are halved, rounding up.

    The full size of small images appears twice, and every image larger than one pixel is halved at least once.

    >>> pyramid(28, 28)
    [(28, 28), (14, 14), (7, 7)]
    >>> pyramid(8, 8)
    [(8, 8), (8, 8), (4, 4)]
    >>> pyramid(7, 30)
    [(7, 30), (7, 30), (7, 15), (7, 8)]
    """
    sizes = [(height, width)] * (2 if height * width <= SMALL_IMAGE_SIDE**2 else 1)
    while max(sizes[-1]) > MIN_MAP_SIDE:
        h, w = (math.ceil(side / 2) if side > MIN_MAP_SIDE else side for side in sizes[-1])
        sizes.append((h, w))
    if len(set(sizes)) == 1 and max(height, width) > 1:
        sizes.append((math.ceil(height / 2), math.ceil(width / 2)))
    return sizes


def widths(n_levels: int, width: int) -> list[int]:
    """Return the channels of each level below the image: doubled per level, up to four times `width`.

    >>> widths(4, 32)
    [32, 64, 128, 128]
    """
    return [width * min(2**level, 4) for level in range(n_levels)]


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

    def __init__(self, shape: Sequence[int], *, width: int, depth: int) -> None:
        super().__init__()
        n_channels, *size = shape
        sizes = pyramid(*size)
        channels = [n_channels, *widths(len(sizes) - 1, width)]
        strides = [ratio(fine, coarse) for fine, coarse in pairwise(sizes)]
        steps = [_conv_bn_relu(a, b, stride=stride) for (a, b), stride in zip(pairwise(channels), strides, strict=True)]
        self.body = nn.Sequential(*steps, *(_ResidualBlock(channels[-1]) for _ in range(depth)))
        self.n_features = channels[-1] * math.prod(sizes[-1])

    def forward(self, x: Tensor) -> Tensor:
        """Encode images (B, C, H, W) as features (B, n_features)."""
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

    def __init__(self, n_features: int, shape: Sequence[int], *, width: int, depth: int) -> None:
        super().__init__()
        n_channels, *size = shape
        self.sizes = pyramid(*size)[::-1]  # coarsest first
        channels = [*widths(len(self.sizes) - 1, width)[::-1], n_channels]
        self.coarsest = (channels[0], *self.sizes[0])
        self.factors = [ratio(fine, coarse) for coarse, fine in pairwise(self.sizes)]
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
            h = sub_pixels(layer(h), factors)[..., :height, :width]
        return h


def sub_pixels(h: Tensor, factors: tuple[int, int]) -> Tensor:
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
        self.n_features = width
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


def make_encoder(shape: Sequence[int], *, width: int, depth: int) -> _ConvEncoder | _MLP:
    """Build the encoder of images (C, H, W) or vectors (D,) into `n_features` features."""
    if len(shape) == 1:
        return _MLP(shape[0], width=8 * width)
    return _ConvEncoder(shape, width=width, depth=depth)


def make_decoder(n_features: int, shape: Sequence[int], *, width: int, depth: int) -> nn.Module:
    """Build the decoder of `n_features` features into maps (C, H, W) or vectors (D,)."""
    if len(shape) == 1:
        return nn.Sequential(
            *_dense(n_features, 8 * width), *_dense(8 * width, 8 * width), nn.Linear(8 * width, shape[0])
        )
    return _ConvDecoder(n_features, shape, width=width, depth=depth)


def ratio(fine: tuple[int, int], coarse: tuple[int, int]) -> tuple[int, int]:
    """Return the stride of each side from one map size to the next: 2 if the side is halved, else 1."""
    return 1 + (fine[0] > coarse[0]), 1 + (fine[1] > coarse[1])


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
