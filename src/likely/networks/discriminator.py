"""Discriminators: an image or a vector to features and logits, without batch normalization, by which the company that an
image is in would give it away."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import pairwise

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, parametrize

from likely.networks.blocks import pyramid, ratio, standard_normal, widths

LOGITS = 0.1  # the scale of the logits on the first images, where lengths are fixed
TINY = 1e-6  # the least length that anything is divided by
STILL = 1e-3  # the least deviation: what varies by less on the first images is not blown up to vary by 1
SLOPE = 0.2  # of the leaky rectifier (Radford 2015)
ON_IMAGE = 1.2  # of the hidden layers' noise, on the image itself, in [-1, 1] (Salimans 2016: 0.3 of 0.5, in [0, 1])


class SpectralNorm(nn.Module):
    """W / σ(W), σ the largest singular value (Miyato 2018, Spectral Normalization, eq. 8).

    In training σ is followed by one step of the power method at a time; afterwards it is computed, for the moving average
    of the weights is kept, and an average of singular vectors would be none.
    """

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.left: Tensor
        self.register_buffer("left", F.normalize(torch.randn(len(weight)), dim=0))

    def forward(self, weight: Tensor) -> Tensor:
        matrix = weight.flatten(1)
        if not self.training:
            largest: Tensor = torch.linalg.matrix_norm(matrix, 2)
            return weight / largest
        with torch.no_grad():
            right = F.normalize(matrix.mT @ self.left, dim=0)
            left = F.normalize(matrix @ right, dim=0)
            self.left.copy_(left)
        return weight / (left @ matrix @ right)


class FixedNorm(nn.Module):
    """ℓ_k w_k / ‖w_k‖ for the k-th output (Salimans & Kingma 2016, Weight Normalization, eq. 2).

    The lengths ℓ are set by the first images, in `measure`, and not learned: a network that can raise what it says outgrows
    noise of a fixed size.
    """

    length: Tensor

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.register_buffer("length", weight.detach().flatten(1).norm(dim=1))

    def forward(self, weight: Tensor) -> Tensor:
        times = self.length / weight.flatten(1).norm(dim=1).clamp_min(TINY)
        fixed: Tensor = weight * times.reshape(-1, *[1] * (weight.ndim - 1))
        return fixed


def _fixed_length(layer: nn.Module) -> nn.Module:
    parametrize.register_parametrization(layer, "weight", FixedNorm(layer.weight))  # type: ignore[arg-type]
    return layer


def _fit_length(layer: nn.Module, x: Tensor, *, scale: float) -> None:
    """Let each output of a layer of fixed length, which may stand behind others, have mean 0 and that scale on x."""
    h = layer(x)
    of_an_output = [0, *range(2, h.ndim)]
    single = h.numel() == h.shape[1]  # of one value there is no deviation
    times = scale / h.std(of_an_output, correction=0 if single else 1).clamp_min(STILL)
    (inner,) = (module for module in layer.modules() if parametrize.is_parametrized(module, "weight"))
    inner.parametrizations.weight[0].length *= times  # type: ignore[union-attr,index]
    inner.bias.copy_((inner.bias - h.mean(of_an_output)) * times)  # type: ignore[operator]


def spectral(layer: nn.Module) -> nn.Module:
    parametrize.register_parametrization(layer, "weight", SpectralNorm(layer.weight))  # type: ignore[arg-type]
    return layer


NORMS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "none": lambda layer: layer,
    "weight": parametrizations.weight_norm,
    "fixed_weight_norm": _fixed_length,
    "spectral": spectral,
    "layer": lambda layer: nn.Sequential(layer, nn.GroupNorm(1, _n_out(layer))),  # Ba 2016, of all maps together
}


class DiscriminatorTrunk(nn.Module):
    """Layers with leaky rectifiers; Gaussian noise of standard deviation `noise` before every one while `rng` is given.

    With lengths fixed, channels count from the background, their median on the first images: what most pixels always show
    would else outweigh the noise.
    """

    def __init__(
        self, layers: Sequence[nn.Module], n_channels: int, n_maps: int, size: int, *, noise: float, norm: str
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.n_maps, self.n_features = n_maps, n_maps * size
        self.noise = noise
        self.background: Tensor | None
        self.register_buffer("background", torch.zeros(n_channels) if norm == "fixed_weight_norm" else None)

    def forward(
        self, x: Tensor, rng: Generator | None = None, *, first: Callable[[nn.Module, Tensor], None] | None = None
    ) -> Tensor:
        """(B, C, H, W) or (B, D) -> (B, n_features). `first` sees every layer, with what it is given, before it is used."""
        if self.background is not None:
            x = x - self.background.reshape(-1, *[1] * (x.ndim - 2))
        h = _noisy(x, ON_IMAGE * self.noise, rng)
        for i, layer in enumerate(self.layers):
            h = h if i == 0 else _noisy(h, self.noise, rng)
            if first is not None:
                first(layer, h)
            h = F.leaky_relu(layer(h), SLOPE)
        return h.flatten(1)

    def summary(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """The mean and the size of each of the last maps: (B, n_features) -> (B, n_maps) each."""
        maps = features.float().reshape(len(features), self.n_maps, -1)
        return maps.mean(2), maps.square().mean(2).sqrt()


class Discriminator(nn.Module):
    """Features f(x) and K logits l_c(x) beside a fixed 0 for "made": log Σ_c exp l_c is how real x is (Salimans 2016).

    Where lengths are fixed, those of the logits' weights are too; Salimans 2016 learns these.

    The auxiliary head has r(x) and class logits a_c(x) apart; l_c = r + log softmax(a)_c then says the same.
    """

    def __init__(self, trunk: DiscriminatorTrunk, n_classes: int, *, auxiliary: bool) -> None:
        super().__init__()
        self.trunk = trunk
        self.to_logits = nn.Linear(trunk.n_features, n_classes + auxiliary)
        if trunk.background is not None:
            _fixed_length(self.to_logits)
        self.n_classes = n_classes

    def forward(self, x: Tensor, rng: Generator | None = None) -> tuple[Tensor, Tensor]:
        """(B, ...) -> features (B, F) and logits (B, K), in float32."""
        features = self.trunk(x, rng).float()
        with torch.autocast(x.device.type, enabled=False):
            logits = self.to_logits(features)
        if logits.shape[1] > self.n_classes:
            logits = logits[:, :1] + logits[:, 1:].log_softmax(1)
        return features, logits

    @torch.no_grad()
    def init_from_data(self, x: Tensor, rng: Generator) -> None:
        """Set fixed lengths and biases so that on these images (B, ...) every output of a layer has mean 0 and variance 1,
        noise included (Salimans & Kingma 2016, section 3), and the logits are small."""
        if self.trunk.background is None:  # no lengths to fix
            return
        by_channel = x.transpose(0, 1).flatten(1)
        self.trunk.background.copy_(by_channel.sort(1).values[:, by_channel.shape[1] // 2])
        features = self.trunk(x, rng, first=partial(_fit_length, scale=1.0))
        _fit_length(self.to_logits, features, scale=LOGITS)

    def pooled(self, x: Tensor) -> Tensor:
        """(B, ...) -> (B, C): the mean of each of the last maps."""
        return self.trunk.summary(self.trunk(x))[0]


def convolutional(shape: Sequence[int], *, width: int, depth: int, noise: float, norm: str) -> DiscriminatorTrunk:
    """Strided convolutions down to the coarsest map and `depth` more there (Radford 2015, DCGAN)."""
    n_channels, *size = shape
    sizes = pyramid(*size)
    channels = [n_channels, *widths(len(sizes) - 1, width)]
    steps = zip(pairwise(channels), pairwise(sizes), strict=True)
    layers = [_normed(nn.Conv2d(a, b, 3, ratio(*pair), 1), norm) for (a, b), pair in steps]
    layers += [_normed(nn.Conv2d(channels[-1], channels[-1], 3, 1, 1), norm) for _ in range(depth)]
    return DiscriminatorTrunk(layers, n_channels, channels[-1], math.prod(sizes[-1]), noise=noise, norm=norm)


def dense(shape: Sequence[int], *, width: int, noise: float, norm: str) -> DiscriminatorTrunk:
    """Five fully connected layers (Salimans 2016): 32, 16 and three times 8 times the width."""
    units = [math.prod(shape), *(width * times for times in (32, 16, 8, 8, 8))]
    layers = [_normed(nn.Linear(a, b), norm) for a, b in pairwise(units)]
    return DiscriminatorTrunk(
        [nn.Sequential(nn.Flatten(), layers[0]), *layers[1:]], shape[0], units[-1], 1, noise=noise, norm=norm
    )


class DenseGenerator(nn.Module):
    """Two hidden layers, batch-normalized: (B, n_in) -> (B, *shape), unbounded.

    Normalized after the rectifier, and the last layer by its weights: hundreds of inputs that are all positive would let the
    first steps turn every pixel black or white for good.
    """

    def __init__(self, n_in: int, shape: Sequence[int], *, width: int) -> None:
        super().__init__()
        self.hidden = nn.Sequential(*_hidden(n_in, 16 * width), *_hidden(16 * width, 16 * width))
        self.last = parametrizations.weight_norm(nn.Linear(16 * width, math.prod(shape)))
        self.shape = tuple(shape)

    def forward(self, z: Tensor) -> Tensor:
        made: Tensor = self.last(self.hidden(z))
        return made.reshape(len(z), *self.shape)

    @torch.no_grad()
    def start_at(self, x: Tensor) -> None:
        """Begin near this output (*shape): images that differ from real ones in every pixel teach nothing but that."""
        self.last.bias.copy_(x.flatten())


def _hidden(n_in: int, n_out: int) -> Iterator[nn.Module]:
    yield from (nn.Linear(n_in, n_out), nn.Softplus(), nn.BatchNorm1d(n_out))


def _normed(layer: nn.Conv2d | nn.Linear, norm: str) -> nn.Module:
    nn.init.kaiming_normal_(layer.weight, SLOPE)
    nn.init.zeros_(layer.bias)  # type: ignore[arg-type]  # there is one
    return NORMS[norm](layer)


def _n_out(layer: nn.Module) -> int:
    n: int = layer.weight.shape[0]  # type: ignore[index,assignment]  # a convolution or a linear layer
    return n


def _noisy(h: Tensor, scale: float, rng: Generator | None) -> Tensor:
    return h if rng is None or scale == 0 else h + scale * standard_normal(h, rng)
