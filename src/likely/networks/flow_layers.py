"""Layers of normalizing flows: y = f(x) with log |det ∂y/∂x|, and the inverse x = f⁻¹(y)."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

MIN_MAP_SIDE = 8  # pixels: maps are halved while a side is longer, at least once
MAX_DENSE_DIMS = 1024  # fully connected couplings follow if the last scale has at most this many dimensions


class Invertible(nn.Module, ABC):
    """Bijection y = f(x) with a tractable Jacobian determinant."""

    @abstractmethod
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return y, with as many dimensions as x (B, ...), and log |det ∂y/∂x| (B,) in nats."""

    @abstractmethod
    def inverse(self, y: Tensor) -> Tensor:
        """Return x = f⁻¹(y)."""


class Compose(Invertible):
    """Composition of layers, f_n ∘ … ∘ f_1."""

    def __init__(self, layers: Sequence[Invertible]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        total = x.new_zeros(len(x))
        for layer in self.layers:
            x, log_det = layer(x)
            total = total + log_det
        return x, total

    def inverse(self, y: Tensor) -> Tensor:
        for layer in reversed(self.layers):
            assert isinstance(layer, Invertible)
            y = layer.inverse(y)
        return y


class Squeeze(Invertible):
    """Move blocks of 2 x 2 pixels into channels: (B, C, H, W) -> (B, 4 C, H/2, W/2) (Dinh 2017, section 3.6)."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return F.pixel_unshuffle(x, 2), x.new_zeros(len(x))

    def inverse(self, y: Tensor) -> Tensor:
        return F.pixel_shuffle(y, 2)


class Flatten(Invertible):
    """Flatten maps of a known shape (C, H, W) to vectors."""

    def __init__(self, shape: Sequence[int]) -> None:
        super().__init__()
        self.shape = tuple(shape)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x.flatten(1), x.new_zeros(len(x))

    def inverse(self, y: Tensor) -> Tensor:
        return y.reshape(-1, *self.shape)


class ActNorm(Invertible):
    """y = (x − location) exp(log_scale) per channel, standardizing the first batch (Kingma 2018, section 3.1)."""

    def __init__(self, n_channels: int) -> None:
        super().__init__()
        self.location = nn.Parameter(torch.zeros(n_channels))
        self.log_scale = nn.Parameter(torch.zeros(n_channels))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        log_det = self.log_scale.sum() * (x[0].numel() // x.shape[1])
        return (x - self._by_channel(self.location, x)) * self._by_channel(self.log_scale.exp(), x), log_det.expand(
            len(x)
        )

    def inverse(self, y: Tensor) -> Tensor:
        return y * self._by_channel((-self.log_scale).exp(), y) + self._by_channel(self.location, y)

    @torch.no_grad()
    def init_from_data(self, x: Tensor) -> None:
        """Set location and scale from the mean and standard deviation per channel of x (B, C, ...)."""
        axes = [axis for axis in range(x.ndim) if axis != 1]
        self.location.copy_(x.mean(axes))
        self.log_scale.copy_(-x.std(axes, correction=0).clamp_min(1e-3).log())

    @staticmethod
    def _by_channel(value: Tensor, x: Tensor) -> Tensor:
        return value.view(1, -1, *[1] * (x.ndim - 2))


class RandomRotation(Invertible):
    """y = Q x by channel, Q a fixed random rotation, which mixes channels between couplings (Ardizzone 2019, section 3.2)."""

    def __init__(self, n_channels: int) -> None:
        super().__init__()
        self.rotation: Tensor
        self.register_buffer("rotation", torch.linalg.qr(torch.randn(n_channels, n_channels))[0])

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self._rotate(x, self.rotation), x.new_zeros(len(x))

    def inverse(self, y: Tensor) -> Tensor:
        return self._rotate(y, self.rotation.mT)

    @staticmethod
    def _rotate(x: Tensor, rotation: Tensor) -> Tensor:
        # In float32: rounding to bfloat16 is not invertible.
        with torch.autocast(x.device.type, enabled=False):
            return F.linear(x, rotation) if x.ndim == 2 else F.conv2d(x, rotation[:, :, None, None])


class AffineCoupling(Invertible):
    """y₁ = x₁, y₂ = x₂ exp(s(x₁)) + t(x₁): an affine coupling of two halves (Dinh 2017, eq. 7 and 8).

    An arctangent bounds s to ±`clamp`, which keeps the inverse stable (Ardizzone 2019, section 3.2).
    """

    def __init__(self, n_channels: int, network: nn.Module, *, clamp: float) -> None:
        super().__init__()
        self.sizes = (n_channels - n_channels // 2, n_channels // 2)
        self.network = network
        self.clamp = clamp

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        fixed, transformed = x.split(self.sizes, 1)  # type: ignore[no-untyped-call]  # torch's types lack it
        s, t = self._scale_and_shift(fixed)
        return torch.cat([fixed, transformed * s.exp() + t], 1), s.flatten(1).sum(1)

    def inverse(self, y: Tensor) -> Tensor:
        fixed, transformed = y.split(self.sizes, 1)  # type: ignore[no-untyped-call]
        s, t = self._scale_and_shift(fixed)
        return torch.cat([fixed, (transformed - t) * (-s).exp()], 1)

    def _scale_and_shift(self, fixed: Tensor) -> tuple[Tensor, Tensor]:
        raw, t = self.network(fixed).to(fixed.dtype).chunk(2, 1)
        return self.clamp * 2 / math.pi * torch.atan(raw / self.clamp), t


class Split(Invertible):
    """Output half of the channels and transform the others by `inner`: (B, C, H, W) -> (B, D) (Dinh 2017, section 3.6)."""

    def __init__(self, shape: Sequence[int], inner: Invertible) -> None:
        super().__init__()
        n_channels, *self.size = shape
        self.sizes = (n_channels // 2, n_channels - n_channels // 2)
        self.inner = inner

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        output, remaining = x.split(self.sizes, 1)  # type: ignore[no-untyped-call]
        z, log_det = self.inner(remaining)
        return torch.cat([output.flatten(1), z], 1), log_det

    def inverse(self, y: Tensor) -> Tensor:
        n = self.sizes[0] * math.prod(self.size)
        remaining = self.inner.inverse(y[:, n:])
        return torch.cat([y[:, :n].reshape(-1, self.sizes[0], *self.size), remaining], 1)


def multi_scale(shape: Sequence[int], *, n_couplings: int, width: int, clamp: float) -> Invertible:
    """Build a multi-scale flow from maps (C, H, W) to vectors of C H W numbers (Dinh 2017, section 3.6).

    Each scale squeezes the maps, applies convolutional couplings and outputs half of the channels. Fully connected couplings
    transform the last scale if it has at most `MAX_DENSE_DIMS` dimensions. Sides must be multiples of 2 ** `halvings`.
    """
    n_channels, height, width_ = shape
    shape = (4 * n_channels, height // 2, width_ // 2)
    steps: list[Invertible] = [Squeeze(), *_steps(shape[0], n_couplings, width, clamp, _convolutional)]
    if max(shape[1:]) > MIN_MAP_SIDE:
        remaining_shape = (shape[0] - shape[0] // 2, *shape[1:])
        inner = multi_scale(remaining_shape, n_couplings=n_couplings, width=min(2 * width, 256), clamp=clamp)
        return Compose([*steps, Split(shape, inner)])
    D = math.prod(shape)
    if D <= MAX_DENSE_DIMS:
        return Compose([*steps, Flatten(shape), *_steps(D, n_couplings, 8 * width, clamp, _dense)])
    return Compose([*steps, Flatten(shape)])


def halvings(height: int, width: int) -> int:
    """Return how many times `multi_scale` halves an image, whose sides must be multiples of 2 to this power.

    >>> halvings(28, 28), halvings(8, 8), halvings(64, 40)
    (2, 1, 3)
    """
    n = 1
    while max(height, width) > MIN_MAP_SIDE * 2**n:
        n += 1
    return n


def _steps(
    n_channels: int, n: int, width: int, clamp: float, network: Callable[[int, int, int], nn.Module]
) -> Iterator[Invertible]:
    """Build n steps of ActNorm, rotation and coupling."""
    n_fixed, n_transformed = n_channels - n_channels // 2, n_channels // 2
    for _ in range(n):
        yield ActNorm(n_channels)
        yield RandomRotation(n_channels)
        yield AffineCoupling(n_channels, network(n_fixed, 2 * n_transformed, width), clamp=clamp)


def _convolutional(n_in: int, n_out: int, width: int) -> nn.Sequential:
    """Build three convolutions, the last near zero so that the coupling starts near the identity."""
    last = nn.Conv2d(width, n_out, 3, padding=1)
    layers = (nn.Conv2d(n_in, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, width, 1), nn.ReLU())
    return nn.Sequential(*layers, _near_zero(last))


def _dense(n_in: int, n_out: int, width: int) -> nn.Sequential:
    """Build three fully connected layers, the last near zero."""
    last = nn.Linear(width, n_out)
    return nn.Sequential(nn.Linear(n_in, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), _near_zero(last))


def init_from_data(flow: Invertible, x: Tensor) -> Tensor:
    """Initialize every ActNorm on the first batch x as transformed by the layers before it; return the flow's output."""
    if isinstance(flow, Compose):
        for layer in flow.layers:
            assert isinstance(layer, Invertible)
            x = init_from_data(layer, x)
        return x
    if isinstance(flow, Split):
        output, remaining = x.split(flow.sizes, 1)  # type: ignore[no-untyped-call]
        return torch.cat([output.flatten(1), init_from_data(flow.inner, remaining)], 1)
    if isinstance(flow, ActNorm):
        flow.init_from_data(x)
    return flow(x)[0]  # type: ignore[no-any-return]


def _near_zero(layer: nn.Conv2d | nn.Linear) -> nn.Module:
    nn.init.normal_(layer.weight, std=1e-3)
    nn.init.zeros_(layer.bias)  # type: ignore[arg-type]  # there is one
    return layer
