"""Near-duplicates: images that differ only by recompression, resizing or brightness.

Images are compared as thumbnails with mean 0 and length 1: the inner product of two is their correlation ρ, and their distance
is √(2 − 2ρ). A recompressed photograph has ρ > 0.998; two different handwritten digits have less.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Self, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from likely.data.dataset import Integers, LabeledImages
from likely.options import Options

_SIDE, _COARSE_SIDE = 16, 4  # pixels of thumbnails, and of the averages by which candidates are found
_STEP = _SIDE // _COARSE_SIDE
_BATCH_SIZE = 256

_Floats: TypeAlias = NDArray[np.float32]


class NearDuplicateOptions(Options):
    """Definition of a near-duplicate."""

    min_correlation: float = Field(default=0.998, gt=0, lt=1, description="smallest correlation of two thumbnails")
    min_contrast: float = Field(
        default=1.0, ge=0, description="RMS contrast in 8-bit values, below which an image is blank and not compared"
    )
    max_candidates: int = Field(default=64, ge=1, description="nearest candidates compared where there are more")

    @property
    def radius(self) -> float:
        """Largest distance of two thumbnails, with a margin for rounding."""
        return math.sqrt(2 - 2 * self.min_correlation) + 1e-4


DEFAULT_NEAR_DUPLICATES: Final = NearDuplicateOptions()


@dataclass(frozen=True, eq=False)
class Thumbnails:
    """Thumbnails (N, C, 16, 16) of length 1, or 0 if blank, hashes (N,), and True for images of a single color (N,)."""

    thumbnails: _Floats
    hashes: Integers
    constant: NDArray[np.bool_]

    @classmethod
    def from_images(cls, images: LabeledImages, options: NearDuplicateOptions = DEFAULT_NEAR_DUPLICATES) -> Self:
        """Compute the thumbnails of all images, 1 kB per image and channel."""
        thumbnails = np.empty((len(images), images.images.shape[0], _SIDE, _SIDE), np.float32)
        constant = np.empty(len(images), np.bool_)
        for block in np.split(np.arange(len(images)), range(_BATCH_SIZE, len(images), _BATCH_SIZE)):
            pixels = images.images.batch(block)
            thumbnails[block] = _thumbnails(pixels, options.min_contrast).numpy()
            constant[block] = (pixels.flatten(1) == pixels.flatten(1)[:, :1]).all(dim=1).numpy()
        return cls(thumbnails, images.hashes, constant)

    @property
    def nonblank(self) -> Integers:
        """Indices of the thumbnails that are not blank."""
        return np.flatnonzero(self.thumbnails.any(axis=(1, 2, 3)))

    def nearest_duplicates(
        self, references: Thumbnails, options: NearDuplicateOptions = DEFAULT_NEAR_DUPLICATES
    ) -> Integers:
        """Return the index of each image's most correlated near-duplicate among the references, or -1: (N,).

        Exact duplicates, and so the image itself, do not count. Candidates are found by 4 x 4 averages: coordinates along
        orthonormal vectors, whose distances never exceed those of the thumbnails, so that no pair is missed.
        """
        best = np.full(len(self.hashes), -1)
        for i, j, correlation in self._duplicates(references, options):
            order = np.argsort(correlation, kind="stable")  # the last assignment is the most correlated
            best[i[order]] = j[order]
        return best

    def near_duplicates(
        self, options: NearDuplicateOptions = DEFAULT_NEAR_DUPLICATES
    ) -> Iterator[tuple[Integers, Integers]]:
        """Iterate over the indices (n,) each of pairs of near-duplicates among these images."""
        return ((i, j) for i, j, _ in self._duplicates(self, options))

    def correlation(self, i: Integers, others: Thumbnails, j: Integers) -> _Floats:
        """Return the correlations of the thumbnails i with the thumbnails j of others, (n,); 0 for blank images."""
        found: _Floats = np.einsum("nchw,nchw->n", self.thumbnails[i], others.thumbnails[j])
        return found

    def _duplicates(
        self, references: Thumbnails, options: NearDuplicateOptions
    ) -> Iterator[tuple[Integers, Integers, _Floats]]:
        """Iterate over pairs of near-duplicates and their correlations, all pairs of an image together."""
        rows, columns = self.nonblank, references.nonblank
        coarse = _coarse(self.thumbnails[rows]), _coarse(references.thumbnails[columns])
        for i, j in _candidates(*coarse, options):
            i, j = rows[i], columns[j]
            correlation = self.correlation(i, references, j)
            is_duplicate = (correlation >= options.min_correlation) & (self.hashes[i] != references.hashes[j])
            yield i[is_duplicate], j[is_duplicate], correlation[is_duplicate]


def _thumbnails(pixels: Tensor, min_contrast: float) -> Tensor:
    small = functional.adaptive_avg_pool2d(pixels.float(), _SIDE)  # (B, C, 16, 16)
    centered = small - small.mean(dim=(1, 2, 3), keepdim=True)
    length = centered.pow(2).sum(dim=(1, 2, 3), keepdim=True).sqrt()
    is_blank = length < min_contrast * math.sqrt(small[0].numel())
    return torch.where(is_blank, 0, centered / length.clamp_min(1e-6))


def _coarse(thumbnails: _Floats) -> _Floats:
    """Project onto 16 orthonormal vectors, each a block of pixels in all channels: (N, C, 16, 16) -> (N, 16)."""
    n, channels = thumbnails.shape[:2]
    blocks = thumbnails.reshape(n, channels, _COARSE_SIDE, _STEP, _COARSE_SIDE, _STEP)
    coordinates: _Floats = blocks.sum(axis=(1, 3, 5)).reshape(n, _COARSE_SIDE**2)
    return coordinates / np.float32(_STEP * math.sqrt(channels))


def _candidates(points: _Floats, others: _Floats, options: NearDuplicateOptions) -> Iterator[tuple[Integers, Integers]]:
    """Iterate over the indices of pairs within the radius, all pairs of a point together: (N, d), (M, d).

    Near points are near along every axis: after sorting along one, each block of points is compared with few others.
    """
    if not len(points) or not len(others):
        return
    axis = int(others.var(axis=0).argmax())
    order, other_order = np.argsort(points[:, axis]), np.argsort(others[:, axis])
    others = others[other_order]
    for block in np.split(order, range(_BATCH_SIZE, len(order), _BATCH_SIZE)):
        least, most = points[block[[0, -1]], axis]
        low, high = np.searchsorted(others[:, axis], (least - options.radius, most + options.radius))
        i, j = _within_radius(points[block], others[low:high], options)
        yield block[i], other_order[low:high][j]


def _within_radius(a: _Floats, b: _Floats, options: NearDuplicateOptions) -> tuple[Integers, Integers]:
    """Return the indices of pairs within the radius, only the nearest of a point with very many: (A, d), (B, d)."""
    # |a − b|² = |a|² − 2 (a·b − |b|²/2): one product, and one comparison by row.
    nearness = np.column_stack([a, np.ones_like(a[:, 0])]) @ np.column_stack([b, -(b**2).sum(axis=1) / 2]).T  # (A, B)
    is_near = nearness >= ((a**2).sum(axis=1) - options.radius**2)[:, None] / 2
    for crowded in np.flatnonzero(is_near.sum(axis=1) > options.max_candidates):
        is_near[crowded] = False
        nearest = np.argpartition(nearness[crowded], -options.max_candidates)[-options.max_candidates :]
        is_near[crowded, nearest] = True
    i, j = np.divmod(np.flatnonzero(is_near), max(len(b), 1))
    return i, j
