"""Inputs of a model for a batch of images, and the complexity of an image."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

ZLIB_LEVEL = 6  # of zlib's levels, the usual one
# Values per image from which on threads compress images at the same time: with two, the features of a ResNet-18 and the
# complexity of 224 x 224 photographs take 8 % less time together.
MIN_PIXELS_FOR_THREADS = 1 << 14


class ModelInput(NamedTuple):
    """What a model is shown of a batch of images: the images or vectors `x` themselves, or features of them.

    What features leave out is in the `description` (B, F); a model of images describes them itself.
    """

    x: Tensor
    extra_features: Tensor | None = None

    @classmethod
    def concatenate(cls, pieces: Sequence[ModelInput]) -> ModelInput:
        """All batches, at least one, as one."""
        x, described = zip(*pieces, strict=True)
        return cls(torch.cat(x), None if described[0] is None else torch.cat(described))

    def subset(self, chosen: Tensor) -> ModelInput:
        """Of the images at `chosen` alone, indices or booleans."""
        return ModelInput(self.x[chosen], None if self.extra_features is None else self.extra_features[chosen])

    def split(self, n: int) -> list[ModelInput]:
        """In batches of n."""
        return [self.subset(part) for part in torch.split(torch.arange(len(self.x)), n)]


def complexity(pixels: Tensor) -> Tensor:
    """Bits a dimension that images, uint8 (B, C, H, W), take when they are packed without loss: (B, 1) (Serrà 2020, section 3).

    What is simple is likely under any model of images. There is no gradient through a packer.
    """
    images = pixels.cpu().numpy()
    if len(images) > 1 and images[0].size >= MIN_PIXELS_FOR_THREADS:
        with ThreadPoolExecutor(torch.get_num_threads()) as pool:
            packed = list(pool.map(_bits_per_dim, images))
    else:
        packed = [_bits_per_dim(image) for image in images]
    return torch.tensor(packed, dtype=torch.float32).reshape(-1, 1)


def _bits_per_dim(image: NDArray[np.uint8]) -> float:
    return 8 * len(zlib.compress(image.tobytes(), ZLIB_LEVEL)) / image.size
