"""Tokenizers: images or vectors as sequences of integers, and back. Here: quantized pixels and the colors of a palette."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Final

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from likely.base import Domain, Task

N_VALUES = 256  # of an 8-bit pixel
MAX_PALETTE_PIXELS: Final = 65_536  # pixels of the training images that a palette is fitted to


class Tokenizer(nn.Module, ABC):
    """x -> s in {0, …, V − 1}^T, and back.

    T = `n_tokens`, on a grid of `grid_shape`; V = `n_codes`. Networks see a code by its vector in [-1, 1]^v, a row of
    `code_vectors`.
    """

    code_vectors: Tensor  # (V, v)
    grid_shape: tuple[int, ...]  # (h, w) or (C, H, W) or (D,)
    domain: Domain = Domain.TOKENS

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.shape = shape

    @property
    def n_tokens(self) -> int:
        return math.prod(self.grid_shape)

    @property
    def n_codes(self) -> int:
        return len(self.code_vectors)

    @abstractmethod
    def quantize(self, x: Tensor, observed: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return codes (B, T) and their vectors (B, T, v), through which gradients pass as if nothing was rounded.

        Pixels where `observed` (B, H, W) is False have no influence on the tokens that `observed_tokens` keeps.
        """

    @abstractmethod
    def decode(self, codes: Tensor) -> Tensor:
        """Return the images or vectors that codes (B, T) represent, (B, C, H, W) in [0, 1] or (B, D)."""

    @abstractmethod
    def observed_tokens(self, observed: Tensor) -> Tensor:
        """Return which tokens count as observed, (B, T) bool, if the pixels (B, H, W) bool are."""

    @abstractmethod
    def spread(self, values: Tensor) -> Tensor:
        """Spread one value per token over its pixels, whose sum it is: (..., T) -> (..., C, H, W) or (..., D)."""

    def log_code_size(self, codes: Tensor) -> Tensor:
        """Return the log of the number of pixel values that each code stands for, (B, T), if the `domain` is of pixels."""
        return torch.zeros_like(codes, dtype=torch.float32)

    def features(self, x: Tensor) -> Tensor:
        """Return features of the tokenizer's own, (B, F); F = 0 if it has none."""
        return x.new_zeros(len(x), 0)

    def update_statistics(self, x: Tensor) -> None:
        """Add a batch to what the tokenizer computes from the training images."""

    def finalize_statistics(self) -> None:
        """Compute the buffers from the batches."""


class LevelTokenizer(Tokenizer):
    """One token per channel of a pixel: k = ⌊v V / 256⌋ for the 8-bit value v; p(v) = p(k) / #{v of level k}.

    A standardized vector component z has k = ⌊Φ(z) V⌋ with Φ the normal distribution function.
    """

    def __init__(self, task: Task, n_levels: int) -> None:
        super().__init__(task.shape)
        self.grid_shape = task.shape
        self.is_image = task.domain is Domain.PIXELS8
        self.domain = Domain.PIXELS8 if self.is_image else Domain.TOKENS
        sizes = torch.bincount(torch.arange(N_VALUES) * n_levels // N_VALUES, minlength=n_levels)
        self.log_size: Tensor
        self.register_buffer("code_vectors", torch.linspace(-1, 1, n_levels)[:, None], persistent=False)
        self.register_buffer("log_size", sizes.log(), persistent=False)
        middle = (sizes.cumsum(0) - (sizes + 1) / 2) / (N_VALUES - 1) if self.is_image else _normal_quantiles(n_levels)
        self.values: Tensor
        self.register_buffer("values", middle, persistent=False)

    def quantize(self, x: Tensor, observed: Tensor | None = None) -> tuple[Tensor, Tensor]:
        V = self.n_codes
        unit = x if self.is_image else torch.special.ndtr(x)
        scaled = (unit * (N_VALUES - 1)).round() * V / N_VALUES if self.is_image else unit * V
        codes = scaled.detach().floor().long().clamp(0, V - 1).flatten(1)
        return codes, straight_through(self.code_vectors[codes], (2 * unit - 1).flatten(1)[..., None])

    def decode(self, codes: Tensor) -> Tensor:
        return self.values[codes].reshape(-1, *self.shape)

    def observed_tokens(self, observed: Tensor) -> Tensor:
        return observed[:, None].expand(-1, *self.shape).flatten(1)

    def spread(self, values: Tensor) -> Tensor:
        return values.reshape(*values.shape[:-1], *self.shape)

    def log_code_size(self, codes: Tensor) -> Tensor:
        return self.log_size[codes] if self.is_image else super().log_code_size(codes)


class PaletteTokenizer(Tokenizer):
    """One token per pixel: the nearest color of a palette of the training images (Pillow's median cut)."""

    def __init__(self, task: Task, n_colors: int) -> None:
        super().__init__(task.shape)
        channels, *sides = task.shape
        self.grid_shape = tuple(sides)
        self.register_buffer("code_vectors", torch.linspace(-1, 1, n_colors)[:, None].repeat(1, channels))
        self._pixels: list[Tensor] = []

    def quantize(self, x: Tensor, observed: Tensor | None = None) -> tuple[Tensor, Tensor]:
        pixels = 2 * x.flatten(2).mT - 1  # (B, T, C)
        distance = pixels.detach().square().sum(2, keepdim=True) - 2 * pixels.detach() @ self.code_vectors.mT
        codes = (distance + self.code_vectors.square().sum(1)).argmin(2)
        return codes, straight_through(self.code_vectors[codes], pixels)

    def decode(self, codes: Tensor) -> Tensor:
        return ((self.code_vectors[codes].mT + 1) / 2).reshape(-1, *self.shape)

    def observed_tokens(self, observed: Tensor) -> Tensor:
        return observed.flatten(1)

    def spread(self, values: Tensor) -> Tensor:
        channels = self.shape[0]
        each = (values / channels).reshape(*values.shape[:-1], 1, *self.grid_shape)
        return each.expand(*each.shape[:-3], channels, *self.grid_shape)

    def update_statistics(self, x: Tensor) -> None:
        if sum(map(len, self._pixels)) < MAX_PALETTE_PIXELS:
            self._pixels.append((255 * x.movedim(1, -1).flatten(0, -2)).round().byte().cpu())

    def finalize_statistics(self) -> None:
        pixels, self._pixels = torch.cat(self._pixels)[:MAX_PALETTE_PIXELS].numpy(), []
        channels, n_colors = pixels.shape[1], self.n_codes
        rgb = pixels if channels == 3 else pixels[:, :1].repeat(3, 1)
        found = Image.fromarray(np.ascontiguousarray(rgb[None])).quantize(n_colors).getpalette() or []
        palette = np.array(found, np.float32).reshape(-1, 3)[:, :channels]
        palette = palette[np.minimum(np.arange(n_colors), len(palette) - 1)]  # fewer colors than asked for
        self.code_vectors.copy_(torch.from_numpy(2 * palette / 255 - 1))


def straight_through(value: Tensor, source: Tensor) -> Tensor:
    """Return the value, with the gradient of its source (Bengio 2013)."""
    return value + (source - source.detach()) if source.requires_grad else value


def _normal_quantiles(n: int) -> Tensor:
    """Return the normal quantiles of the centers of n intervals of equal probability, (n,)."""
    quantiles: Tensor = torch.special.ndtri((torch.arange(n) + 0.5) / n)
    return quantiles
