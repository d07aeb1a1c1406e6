"""Layers of normalizing flows: y = f(x) with log |det ∂y/∂x|, and the inverse x = f⁻¹(y)."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from likely.options import Options


class Invertible(nn.Module, ABC):
    """Bijection y = f(x) with a tractable Jacobian determinant."""

    @abstractmethod
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return y, with as many dimensions as x (B, ...), and log |det ∂y/∂x| (B,) in nats."""

    @abstractmethod
    def inverse(self, y: Tensor) -> Tensor:
        """Return x = f⁻¹(y)."""

    def init_from_data(self, x: Tensor) -> Tensor:
        """Initialize layers that depend on the first batch x, such as `ActNorm`; return y."""
        y: Tensor = self(x)[0]
        return y


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

    def init_from_data(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            assert isinstance(layer, Invertible)
            x = layer.init_from_data(x)
        return x


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
    def init_from_data(self, x: Tensor) -> Tensor:
        """Set location and scale from the mean and standard deviation per channel of x (B, C, ...); return y."""
        axes = [axis for axis in range(x.ndim) if axis != 1]
        self.location.copy_(x.mean(axes))
        self.log_scale.copy_(-x.std(axes, correction=0).clamp_min(1e-3).log())
        return super().init_from_data(x)

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

    def init_from_data(self, x: Tensor) -> Tensor:
        output, remaining = x.split(self.sizes, 1)  # type: ignore[no-untyped-call]
        return torch.cat([output.flatten(1), self.inner.init_from_data(remaining)], 1)


class MultiScaleOptions(Options):
    """Options of a multi-scale flow."""

    n_couplings: int = Field(4, ge=1, description="Coupling layers per scale.")
    width: int = Field(
        32,
        ge=1,
        description="Channels of the coupling networks at the finest scale, doubled at each coarser one. Fully connected "
        "networks have eight times as many units.",
    )
    max_width: int = Field(256, ge=1, description="Channels up to which coarser scales double the width.")
    clamp: float = Field(2.0, gt=0, description="Bound of the log scale of an affine coupling.")
    min_map_side: int = Field(
        8, ge=1, description="Side in pixels down to which maps are halved; they are halved at least once."
    )
    max_dense_dims: int = Field(
        1024, ge=0, description="Dimensions of the last scale up to which fully connected couplings follow."
    )

    def padded_shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        """Round the sides of images (C, H, W) up to multiples that `multi_scale` can halve.

        >>> MultiScaleOptions().padded_shape((1, 28, 28)), MultiScaleOptions().padded_shape((3, 33, 20))
        ((1, 28, 28), (3, 40, 24))
        """
        n_channels, *sides = shape
        unit = 2
        while max(sides) > self.min_map_side * unit:
            unit *= 2
        return (n_channels, *(unit * math.ceil(side / unit) for side in sides))


def multi_scale(shape: Sequence[int], options: MultiScaleOptions) -> Invertible:
    """Build a multi-scale flow from maps (C, H, W) to vectors of C H W numbers (Dinh 2017, section 3.6).

    Each scale squeezes the maps, applies convolutional couplings and outputs half of the channels. Fully connected couplings
    transform the last scale if it is small. Shapes must be those of `MultiScaleOptions.padded_shape`.
    """
    n_channels, height, width = shape
    shape = (4 * n_channels, height // 2, width // 2)
    steps: list[Invertible] = [Squeeze(), *_steps(shape[0], options.width, options, _convolutional)]
    if max(shape[1:]) > options.min_map_side:
        remaining_shape = (shape[0] - shape[0] // 2, *shape[1:])
        wider = options.model_copy(update={"width": min(2 * options.width, options.max_width)})
        return Compose([*steps, Split(shape, multi_scale(remaining_shape, wider))])
    D = math.prod(shape)
    if options.max_dense_dims >= D:
        return Compose([*steps, Flatten(shape), *_steps(D, 8 * options.width, options, _dense)])
    return Compose([*steps, Flatten(shape)])


def _steps(
    n_channels: int, width: int, options: MultiScaleOptions, network: Callable[[int, int, int], nn.Module]
) -> Iterator[Invertible]:
    """Build steps of ActNorm, rotation and coupling."""
    n_fixed, n_transformed = n_channels - n_channels // 2, n_channels // 2
    for _ in range(options.n_couplings):
        yield ActNorm(n_channels)
        yield RandomRotation(n_channels)
        yield AffineCoupling(n_channels, network(n_fixed, 2 * n_transformed, width), clamp=options.clamp)


def _convolutional(n_in: int, n_out: int, width: int) -> nn.Sequential:
    """Build three convolutions, the last near zero so that the coupling starts near the identity."""
    last = nn.Conv2d(width, n_out, 3, padding=1)
    layers = (nn.Conv2d(n_in, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, width, 1), nn.ReLU())
    return nn.Sequential(*layers, _near_zero(last))


def _dense(n_in: int, n_out: int, width: int) -> nn.Sequential:
    """Build three fully connected layers, the last near zero."""
    last = nn.Linear(width, n_out)
    return nn.Sequential(nn.Linear(n_in, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), _near_zero(last))


def _near_zero(layer: nn.Conv2d | nn.Linear) -> nn.Module:
    nn.init.normal_(layer.weight, std=1e-3)
    nn.init.zeros_(layer.bias)  # type: ignore[arg-type]  # there is one
    return layer
