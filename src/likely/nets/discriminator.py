"""Discriminators: an image or a vector to features and logits, without batch normalisation, by which the company that an
image is in would give it away."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, parametrize

from likely.nets.blocks import pyramid, ratio, standard_normal, widths

SLOPE = 0.2  # of the leaky rectifier (Radford 2015)
ON_IMAGE = 1.0  # of the hidden layers' noise, on the image itself, in [-1, 1]


class Spectral(nn.Module):
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


def _spectral(layer: nn.Module) -> nn.Module:
    parametrize.register_parametrization(layer, "weight", Spectral(layer.weight))  # type: ignore[arg-type]
    return layer


NORMS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "none": lambda layer: layer,
    "weight": parametrizations.weight_norm,
    "spectral": _spectral,
    "layer": lambda layer: nn.Sequential(layer, nn.GroupNorm(1, _n_out(layer))),  # Ba 2016, of all maps together
}


class DiscriminatorTrunk(nn.Module):
    """Layers with leaky rectifiers; Gaussian noise of standard deviation `noise` before every one while `rng` is given."""

    def __init__(self, layers: Sequence[nn.Module], n_maps: int, size: int, *, noise: float) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.n_maps, self.n_features = n_maps, n_maps * size
        self.noise = noise

    def forward(self, x: Tensor, rng: Generator | None = None) -> Tensor:
        """(B, C, H, W) or (B, D) -> (B, n_features)."""
        h = _noisy(x, ON_IMAGE * self.noise, rng)
        for i, layer in enumerate(self.layers):
            h = F.leaky_relu(layer(h if i == 0 else _noisy(h, self.noise, rng)), SLOPE)
        return h.flatten(1)


class Discriminator(nn.Module):
    """Features f(x) and K logits l_c(x) beside a fixed 0 for "made": log Σ_c exp l_c is how real x is (Salimans 2016).

    The auxiliary head has r(x) and class logits a_c(x) apart; l_c = r + log softmax(a)_c then says the same.
    """

    def __init__(self, trunk: DiscriminatorTrunk, n_classes: int, *, auxiliary: bool) -> None:
        super().__init__()
        self.trunk = trunk
        self.to_logits = nn.Linear(trunk.n_features, n_classes + auxiliary)
        self.n_classes = n_classes

    def forward(self, x: Tensor, rng: Generator | None = None) -> tuple[Tensor, Tensor]:
        """(B, ...) -> features (B, F) and logits (B, K), in float32."""
        features = self.trunk(x, rng).float()
        with torch.autocast(x.device.type, enabled=False):
            logits = self.to_logits(features)
        if logits.shape[1] > self.n_classes:
            logits = logits[:, :1] + logits[:, 1:].log_softmax(1)
        return features, logits

    def pooled(self, x: Tensor) -> Tensor:
        """(B, ...) -> (B, C): the mean of each of the last maps."""
        maps: Tensor = self.trunk(x).float().unflatten(1, (self.trunk.n_maps, -1))
        return maps.mean(2)


def convolutional(shape: Sequence[int], *, width: int, depth: int, noise: float, norm: str) -> DiscriminatorTrunk:
    """Strided convolutions down to the coarsest map and `depth` more there (Radford 2015, DCGAN)."""
    n_channels, *size = shape
    sizes = pyramid(*size)
    channels = [n_channels, *widths(len(sizes) - 1, width)]
    steps = zip(pairwise(channels), pairwise(sizes), strict=True)
    layers = [_normed(nn.Conv2d(a, b, 3, ratio(*pair), 1), norm) for (a, b), pair in steps]
    layers += [_normed(nn.Conv2d(channels[-1], channels[-1], 3, 1, 1), norm) for _ in range(depth)]
    return DiscriminatorTrunk(layers, channels[-1], math.prod(sizes[-1]), noise=noise)


def dense(n_in: int, *, width: int, noise: float, norm: str) -> DiscriminatorTrunk:
    """Five fully connected layers (Salimans 2016): 32, 16 and three times 8 times the width."""
    units = [n_in, *(width * times for times in (32, 16, 8, 8, 8))]
    layers = [_normed(nn.Linear(a, b), norm) for a, b in pairwise(units)]
    return DiscriminatorTrunk([nn.Sequential(nn.Flatten(), layers[0]), *layers[1:]], units[-1], 1, noise=noise)


def dense_generator(n_in: int, shape: Sequence[int], *, width: int) -> nn.Module:
    """Two hidden layers, batch-normalised (Salimans 2016): (B, n_in) -> (B, *shape), unbounded."""
    return nn.Sequential(
        *_hidden(n_in, 16 * width),
        *_hidden(16 * width, 16 * width),
        nn.Linear(16 * width, math.prod(shape)),
        nn.Unflatten(1, tuple(shape)),
    )


def _hidden(n_in: int, n_out: int) -> Iterator[nn.Module]:
    yield from (nn.Linear(n_in, n_out), nn.BatchNorm1d(n_out), nn.Softplus())


def _normed(layer: nn.Conv2d | nn.Linear, norm: str) -> nn.Module:
    nn.init.kaiming_normal_(layer.weight, SLOPE)
    nn.init.zeros_(layer.bias)  # type: ignore[arg-type]  # there is one
    return NORMS[norm](layer)


def _n_out(layer: nn.Module) -> int:
    n: int = layer.weight.shape[0]  # type: ignore[index,assignment]  # a convolution or a linear layer
    return n


def _noisy(h: Tensor, scale: float, rng: Generator | None) -> Tensor:
    return h if rng is None or scale == 0 else h + scale * standard_normal(h, rng)
