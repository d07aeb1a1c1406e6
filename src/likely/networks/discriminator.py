"""Discriminators of images and vectors, and their weight normalizations.

There is no batch normalization: real and fake images of a batch would be distinguishable by the batch statistics alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import pairwise
from typing import Literal

import torch
from pydantic import Field
from torch import Generator, Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, parametrize

from likely.networks.blocks import Pyramid, standard_normal
from likely.options import Options

LEAKY_SLOPE = 0.2  # of the leaky ReLU (Radford 2015)
WeightNorm = Literal["none", "weight", "fixed_weight_norm", "spectral", "layer"]


class DiscriminatorOptions(Options):
    """Options of a discriminator."""

    architecture: Literal["convolutional", "dense"] = Field(
        "convolutional",
        description="Strided convolutions down to the lowest resolution and `depth` more there (Radford 2015, DCGAN), or five "
        "fully connected layers of 32, 16, 8, 8 and 8 times `width` units (Salimans 2016).",
    )
    width: int = Field(
        32, ge=1, description="Channels of the first convolution, or the unit of fully connected layers."
    )
    depth: int = Field(1, ge=0, description="Convolutions at the lowest resolution.")
    norm: WeightNorm = Field("layer", description="Normalization of weights or layers.")
    noise: float = Field(0.0, ge=0, description="Standard deviation of the noise on the inputs of hidden layers.")
    input_noise_ratio: float = Field(
        1.2,
        ge=0,
        description="Noise on an image in [-1, 1] relative to that on hidden layers (Salimans 2016: 0.3 of 0.5, in [0, 1]).",
    )
    auxiliary: bool = Field(False, description="Separate outputs for real or fake and for the classes (ACGAN).")
    initial_logit_std: float = Field(
        0.1, gt=0, description="Standard deviation of the logits on the first batch, with fixed weight norms."
    )


class _SpectralNorm(nn.Module):
    """W / σ(W), σ the largest singular value (Miyato 2018, Spectral Normalization, eq. 8).

    Training estimates σ by one step of power iteration per pass. Evaluation computes it exactly: it uses the moving average
    of the weights, and an average of singular vectors is not a singular vector.
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


class _FixedNorm(nn.Module):
    """ℓ_k w_k / ‖w_k‖ for the k-th output (Salimans & Kingma 2016, Weight Normalization, eq. 2).

    The norms ℓ are set by `init_from_data` and not learned: a network that can scale up its activations makes noise of a
    fixed size ineffective.
    """

    length: Tensor

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.register_buffer("length", weight.detach().flatten(1).norm(dim=1))

    def forward(self, weight: Tensor) -> Tensor:
        factor = self.length / weight.flatten(1).norm(dim=1).clamp_min(1e-6)
        fixed: Tensor = weight * factor.reshape(-1, *[1] * (weight.ndim - 1))
        return fixed


def _fixed_weight_norm(layer: nn.Module) -> nn.Module:
    parametrize.register_parametrization(layer, "weight", _FixedNorm(layer.weight))  # type: ignore[arg-type]
    return layer


def _fit_output_scale(layer: nn.Module, x: Tensor, *, scale: float) -> None:
    """Set norms and biases so that each output of a fixed-norm layer has mean 0 and standard deviation `scale` on x.

    Outputs that are nearly constant on x are not scaled up.
    """
    h = layer(x)
    axes = [0, *range(2, h.ndim)]
    single = h.numel() == h.shape[1]  # a single value has no standard deviation
    factor = scale / h.std(axes, correction=0 if single else 1).clamp_min(1e-3)
    (inner,) = (module for module in layer.modules() if parametrize.is_parametrized(module, "weight"))
    inner.parametrizations.weight[0].length *= factor  # type: ignore[union-attr,index]
    inner.bias.copy_((inner.bias - h.mean(axes)) * factor)  # type: ignore[operator]


def spectral_norm(layer: nn.Module) -> nn.Module:
    """Parametrize the weight of a layer by W / σ(W)."""
    parametrize.register_parametrization(layer, "weight", _SpectralNorm(layer.weight))  # type: ignore[arg-type]
    return layer


_NORMS: dict[WeightNorm, Callable[[nn.Module], nn.Module]] = {
    "none": lambda layer: layer,
    "weight": parametrizations.weight_norm,
    "fixed_weight_norm": _fixed_weight_norm,
    "spectral": spectral_norm,
    "layer": lambda layer: nn.Sequential(layer, nn.GroupNorm(1, _n_out(layer))),  # Ba 2016, over all maps
}


class _DiscriminatorTrunk(nn.Module):
    """Layers with leaky ReLUs; Gaussian noise before each layer if there is an `rng`.

    With fixed weight norms, the median of each channel on the first batch is subtracted from the input: a constant background
    would otherwise dominate the noise.
    """

    def __init__(self, shape: Sequence[int], options: DiscriminatorOptions) -> None:
        super().__init__()
        self.options = options
        layers, self.n_maps, size = (_dense if options.architecture == "dense" else _convolutional)(shape, options)
        self.layers, self.n_features = nn.ModuleList(layers), self.n_maps * size
        self.background: Tensor | None
        self.register_buffer("background", torch.zeros(shape[0]) if options.norm == "fixed_weight_norm" else None)

    def forward(
        self,
        x: Tensor,
        rng: Generator | None = None,
        *,
        before_layer: Callable[[nn.Module, Tensor], None] | None = None,
    ) -> Tensor:
        """Return features (B, n_features) of (B, C, H, W) or (B, D), calling `before_layer(layer, input)` before each layer."""
        if self.background is not None:
            x = x - self.background.reshape(-1, *[1] * (x.ndim - 2))
        noise = self.options.noise
        h = _noisy(x, self.options.input_noise_ratio * noise, rng)
        for i, layer in enumerate(self.layers):
            h = h if i == 0 else _noisy(h, noise, rng)
            if before_layer is not None:
                before_layer(layer, h)
            h = F.leaky_relu(layer(h), LEAKY_SLOPE)
        return h.flatten(1)

    def summary(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and root mean square of each of the last maps: (B, n_features) -> (B, n_maps) each."""
        maps = features.float().reshape(len(features), self.n_maps, -1)
        return maps.mean(2), maps.square().mean(2).sqrt()


class Discriminator(nn.Module):
    """Features f(x) and K class logits l_c(x); the logit of "fake" is 0, so log Σ_c exp l_c = log p(real | x) / p(fake | x).

    (Salimans 2016, section 5.) The auxiliary head has separate outputs r(x) and class logits a_c(x), combined to
    l_c = r + log softmax(a)_c. With fixed weight norms the norms of the logit layer are fixed too (Salimans 2016 learns them).
    """

    def __init__(self, shape: Sequence[int], n_classes: int, options: DiscriminatorOptions) -> None:
        """Build a discriminator of images (C, H, W), or with the dense architecture also of vectors (D,)."""
        super().__init__()
        self.trunk = _DiscriminatorTrunk(shape, options)
        self.to_logits = nn.Linear(self.trunk.n_features, n_classes + options.auxiliary)
        if options.norm == "fixed_weight_norm":
            _fixed_weight_norm(self.to_logits)
        self.options, self.n_classes = options, n_classes

    def forward(self, x: Tensor, rng: Generator | None = None) -> tuple[Tensor, Tensor]:
        """Return features (B, F) and logits (B, K) in float32."""
        features = self.trunk(x, rng).float()
        with torch.autocast(x.device.type, enabled=False):
            logits = self.to_logits(features)
        if logits.shape[1] > self.n_classes:
            logits = logits[:, :1] + logits[:, 1:].log_softmax(1)
        return features, logits

    @torch.no_grad()
    def init_from_data(self, x: Tensor, rng: Generator) -> None:
        """Set fixed weight norms and biases so that every layer output on the first batch (B, ...), noise included, has mean 0
        and variance 1 and the logits are small (Salimans & Kingma 2016, section 3)."""
        if self.trunk.background is None:  # no fixed weight norms
            return
        by_channel = x.transpose(0, 1).flatten(1)
        self.trunk.background.copy_(by_channel.sort(1).values[:, by_channel.shape[1] // 2])
        features = self.trunk(x, rng, before_layer=partial(_fit_output_scale, scale=1.0))
        _fit_output_scale(self.to_logits, features, scale=self.options.initial_logit_std)

    def pooled(self, x: Tensor) -> Tensor:
        """Return the spatial means of the last maps: (B, ...) -> (B, C)."""
        return self.trunk.summary(self.trunk(x))[0]


def _convolutional(shape: Sequence[int], options: DiscriminatorOptions) -> tuple[list[nn.Module], int, int]:
    """Build convolutional layers; also return the number of the last maps and the number of pixels of each."""
    pyramid = Pyramid.of(shape, options.width)
    levels, n = zip(pairwise(pyramid.channels), pyramid.strides, strict=True), pyramid.channels[-1]
    layers = [_normed(nn.Conv2d(a, b, 3, stride, 1), options.norm) for (a, b), stride in levels]
    layers += [_normed(nn.Conv2d(n, n, 3, 1, 1), options.norm) for _ in range(options.depth)]
    return layers, n, math.prod(pyramid.sizes[-1])


def _dense(shape: Sequence[int], options: DiscriminatorOptions) -> tuple[list[nn.Module], int, int]:
    """Build fully connected layers; also return the number of units of the last and 1, the pixels of each."""
    units = [math.prod(shape), *(options.width * factor for factor in (32, 16, 8, 8, 8))]
    first, *others = (_normed(nn.Linear(a, b), options.norm) for a, b in pairwise(units))
    return [nn.Sequential(nn.Flatten(), first), *others], units[-1], 1


class DenseGenerator(nn.Module):
    """Fully connected generator with two batch-normalized hidden layers: (B, n_in) -> (B, *shape), unbounded.

    Batch normalization follows the activation and the last layer is weight-normalized: with hundreds of positive inputs the
    first steps would saturate every pixel at black or white.
    """

    def __init__(self, n_in: int, shape: Sequence[int], *, width: int) -> None:
        super().__init__()
        self.hidden = nn.Sequential(*_hidden(n_in, 16 * width), *_hidden(16 * width, 16 * width))
        self.last = parametrizations.weight_norm(nn.Linear(16 * width, math.prod(shape)))
        self.shape = tuple(shape)

    def forward(self, z: Tensor) -> Tensor:
        output: Tensor = self.last(self.hidden(z))
        return output.reshape(len(z), *self.shape)

    @torch.no_grad()
    def start_at(self, x: Tensor) -> None:
        """Initialize the output near x (*shape), since fake images that differ in every pixel are trivial to detect."""
        self.last.bias.copy_(x.flatten())


def _hidden(n_in: int, n_out: int) -> Iterator[nn.Module]:
    yield from (nn.Linear(n_in, n_out), nn.Softplus(), nn.BatchNorm1d(n_out))


def _normed(layer: nn.Conv2d | nn.Linear, norm: WeightNorm) -> nn.Module:
    nn.init.kaiming_normal_(layer.weight, LEAKY_SLOPE)
    nn.init.zeros_(layer.bias)  # type: ignore[arg-type]  # there is one
    return _NORMS[norm](layer)


def _n_out(layer: nn.Module) -> int:
    n: int = layer.weight.shape[0]  # type: ignore[index,assignment]  # a convolution or a linear layer
    return n


def _noisy(h: Tensor, scale: float, rng: Generator | None) -> Tensor:
    return h if rng is None or scale == 0 else h + scale * standard_normal(h, rng)
