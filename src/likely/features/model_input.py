"""Inputs of a model for a batch of images, and the complexity of images."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

ZLIB_LEVEL = 6  # zlib's default
# Values per image from which on threads compress images at the same time: with two, the features of a ResNet-18 and the
# complexity of 224 x 224 photographs take 8 % less time together.
MIN_PIXELS_FOR_THREADS = 1 << 14


class ModelInput(NamedTuple):
    """Model input of a batch: images, vectors or scaled features `x`.

    `extra_features` (B, F) hold what feature scaling removes; None for models of pixels, which have features of their own.
    """

    x: Tensor
    extra_features: Tensor | None = None

    @classmethod
    def concatenate(cls, pieces: Sequence[ModelInput]) -> ModelInput:
        """Concatenate batches, at least one."""
        x, extra_features = zip(*pieces, strict=True)
        return cls(torch.cat(x), None if extra_features[0] is None else torch.cat(extra_features))

    def subset(self, indices: Tensor) -> ModelInput:
        """Select images by indices or booleans."""
        return ModelInput(self.x[indices], None if self.extra_features is None else self.extra_features[indices])

    def split(self, n: int) -> list[ModelInput]:
        """Split into batches of n images."""
        return [self.subset(batch) for batch in torch.split(torch.arange(len(self.x)), n)]


def complexity(pixels: Tensor) -> Tensor:
    """Return the bits per dimension of losslessly compressed images, uint8 (B, C, H, W) -> (B, 1) (Serrà 2020, section 3).

    Simple images have a high likelihood under any image model. Not differentiable.
    """
    images = pixels.cpu().numpy()
    if len(images) > 1 and images[0].size >= MIN_PIXELS_FOR_THREADS:
        with ThreadPoolExecutor(torch.get_num_threads()) as pool:
            bits = list(pool.map(_bits_per_dim, images))
    else:
        bits = [_bits_per_dim(image) for image in images]
    return torch.tensor(bits, dtype=torch.float32).reshape(-1, 1)


def _bits_per_dim(image: NDArray[np.uint8]) -> float:
    return 8 * len(zlib.compress(image.tobytes(), ZLIB_LEVEL)) / image.size
