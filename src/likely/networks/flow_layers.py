"""Invertible layers: each gives y and log |det ∂y/∂x| of an image's maps, and the way back."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

COARSEST = 8  # pixels: maps are halved while a side is longer, and once at least
LARGEST_DENSE = 1024  # numbers an image: up to so many, couplings of all with all close the network


class Invertible(nn.Module, ABC):
    """y = f(x), one to one."""

    @abstractmethod
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, ...) -> y of the same number of dimensions, and log |det ∂y/∂x| (B,)."""

    @abstractmethod
    def inverse(self, y: Tensor) -> Tensor:
        """x of f(x) = y."""


class Compose(Invertible):
    """One layer after the other: f_n ∘ … ∘ f_1."""

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
    """Blocks of 2 x 2 pixels become channels: (B, C, H, W) -> (B, 4 C, H/2, W/2) (Dinh 2017, section 3.6)."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return F.pixel_unshuffle(x, 2), x.new_zeros(len(x))

    def inverse(self, y: Tensor) -> Tensor:
        return F.pixel_shuffle(y, 2)


class Flatten(Invertible):
    """Maps of a known shape (C, H, W) to vectors."""

    def __init__(self, shape: Sequence[int]) -> None:
        super().__init__()
        self.shape = tuple(shape)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x.flatten(1), x.new_zeros(len(x))

    def inverse(self, y: Tensor) -> Tensor:
        return y.reshape(-1, *self.shape)


class ActNorm(Invertible):
    """y = (x − location) exp(log_scale) by channel, of mean 0 and variance 1 on the first images (Kingma 2018, section 3.1)."""

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
        """Set location and scale by x (B, C, ...)."""
        over = [axis for axis in range(x.ndim) if axis != 1]
        self.location.copy_(x.mean(over))
        self.log_scale.copy_(-x.std(over, correction=0).clamp_min(1e-3).log())

    @staticmethod
    def _by_channel(value: Tensor, x: Tensor) -> Tensor:
        return value.view(1, -1, *[1] * (x.ndim - 2))


class RandomRotation(Invertible):
    """y = Q x by channel, Q a fixed random rotation, so that no channel stays out of all couplings (Ardizzone 2019, 3.2)."""

    def __init__(self, n_channels: int) -> None:
        super().__init__()
        self.rotation: Tensor
        self.register_buffer("rotation", torch.linalg.qr(torch.randn(n_channels, n_channels))[0])

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self._turned(x, self.rotation), x.new_zeros(len(x))

    def inverse(self, y: Tensor) -> Tensor:
        return self._turned(y, self.rotation.mT)

    @staticmethod
    def _turned(x: Tensor, rotation: Tensor) -> Tensor:
        # Numbers on their way through the flow stay float32: what bfloat16 rounds off, the density would be of.
        with torch.autocast(x.device.type, enabled=False):
            return F.linear(x, rotation) if x.ndim == 2 else F.conv2d(x, rotation[:, :, None, None])


class AffineCoupling(Invertible):
    """y₁ = x₁, y₂ = x₂ exp(s(x₁)) + t(x₁): affine, half by half (Dinh 2017, eq. 7 and 8).

    s is held within ±`clamp` by an arctangent, or the way back would blow up (Ardizzone 2019, section 3.2).
    """

    def __init__(self, n_channels: int, network: nn.Module, *, clamp: float) -> None:
        super().__init__()
        self.sizes = (n_channels - n_channels // 2, n_channels // 2)
        self.network = network
        self.clamp = clamp

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        first, second = x.split(self.sizes, 1)  # type: ignore[no-untyped-call]  # torch's types lack it
        s, t = self._scale_and_shift(first)
        return torch.cat([first, second * s.exp() + t], 1), s.flatten(1).sum(1)

    def inverse(self, y: Tensor) -> Tensor:
        first, second = y.split(self.sizes, 1)  # type: ignore[no-untyped-call]
        s, t = self._scale_and_shift(first)
        return torch.cat([first, (second - t) * (-s).exp()], 1)

    def _scale_and_shift(self, first: Tensor) -> tuple[Tensor, Tensor]:
        raw, t = self.network(first).to(first.dtype).chunk(2, 1)
        return self.clamp * 2 / math.pi * torch.atan(raw / self.clamp), t


class Split(Invertible):
    """Half the channels go on through `rest`, the others are done: (B, C, H, W) -> (B, D), theirs first (Dinh 2017, 3.6)."""

    def __init__(self, shape: Sequence[int], rest: Invertible) -> None:
        super().__init__()
        n_channels, *self.size = shape
        self.sizes = (n_channels // 2, n_channels - n_channels // 2)
        self.rest = rest

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        done, going_on = x.split(self.sizes, 1)  # type: ignore[no-untyped-call]
        z, log_det = self.rest(going_on)
        return torch.cat([done.flatten(1), z], 1), log_det

    def inverse(self, y: Tensor) -> Tensor:
        n = self.sizes[0] * math.prod(self.size)
        going_on = self.rest.inverse(y[:, n:])
        return torch.cat([y[:, :n].reshape(-1, self.sizes[0], *self.size), going_on], 1)


def multi_scale(shape: Sequence[int], *, n_couplings: int, width: int, clamp: float) -> Invertible:
    """Maps (C, H, W), sides to be halved as often as `halvings` says, to a vector of C H W numbers.

    At each scale the image is squeezed and goes through couplings by convolutions; half the channels are then done. The
    vector that is left at the end, if it is not too long, goes through couplings of all with all.
    """
    n_channels, height, width_ = shape
    shape = (4 * n_channels, height // 2, width_ // 2)
    steps: list[Invertible] = [Squeeze(), *_steps(shape[0], n_couplings, width, clamp, convolutional)]
    if max(shape[1:]) > COARSEST:
        kept = (shape[0] - shape[0] // 2, *shape[1:])
        rest = multi_scale(kept, n_couplings=n_couplings, width=min(2 * width, 256), clamp=clamp)
        return Compose([*steps, Split(shape, rest)])
    D = math.prod(shape)
    if D <= LARGEST_DENSE:
        return Compose([*steps, Flatten(shape), *_steps(D, n_couplings, 8 * width, clamp, dense)])
    return Compose([*steps, Flatten(shape)])


def halvings(height: int, width: int) -> int:
    """How often `multi_scale` halves an image: its sides must be multiples of 2 to that power.

    >>> halvings(28, 28), halvings(8, 8), halvings(64, 40)
    (2, 1, 3)
    """
    n = 1
    while max(height, width) > COARSEST * 2**n:
        n += 1
    return n


def _steps(
    n_channels: int, n: int, width: int, clamp: float, network: Callable[[int, int, int], nn.Module]
) -> Iterator[Invertible]:
    """n times: normalize, mix, couple."""
    n_fixed, n_changed = n_channels - n_channels // 2, n_channels // 2
    for _ in range(n):
        yield ActNorm(n_channels)
        yield RandomRotation(n_channels)
        yield AffineCoupling(n_channels, network(n_fixed, 2 * n_changed, width), clamp=clamp)


def convolutional(n_in: int, n_out: int, width: int) -> nn.Sequential:
    """Three convolutions, of which the last begins near zero: the coupling then begins near the identity."""
    last = nn.Conv2d(width, n_out, 3, padding=1)
    layers = (nn.Conv2d(n_in, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, width, 1), nn.ReLU())
    return nn.Sequential(*layers, _small(last))


def dense(n_in: int, n_out: int, width: int) -> nn.Sequential:
    """Three fully connected layers, of which the last begins near zero."""
    last = nn.Linear(width, n_out)
    return nn.Sequential(nn.Linear(n_in, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), _small(last))


def init_from_data(flow: Invertible, x: Tensor) -> Tensor:
    """Set every ActNorm by what the first images x have become when they reach it; returns what they become in the end."""
    if isinstance(flow, Compose):
        for layer in flow.layers:
            assert isinstance(layer, Invertible)
            x = init_from_data(layer, x)
        return x
    if isinstance(flow, Split):
        done, going_on = x.split(flow.sizes, 1)  # type: ignore[no-untyped-call]
        return torch.cat([done.flatten(1), init_from_data(flow.rest, going_on)], 1)
    if isinstance(flow, ActNorm):
        flow.init_from_data(x)
    return flow(x)[0]  # type: ignore[no-any-return]


def _small(layer: nn.Conv2d | nn.Linear) -> nn.Module:
    nn.init.normal_(layer.weight, std=1e-3)
    nn.init.zeros_(layer.bias)  # type: ignore[arg-type]  # there is one
    return layer
