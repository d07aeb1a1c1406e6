"""Likeness: which images show the same picture although their pixels differ, by recompression, resizing or brightness.

Images are compared as 16 x 16 thumbnails with their mean removed and their length made 1: the product of two is then
their correlation ρ, and their distance √(2 − 2ρ). A recompressed photograph keeps ρ above 0.998; two handwritten
digits, however plain, stay below.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from likely.data.dataset import Integers, LabeledImages

MAX_DISTANCE = 0.998
SIDE, COARSE_SIDE = 16, 4
STEP = SIDE // COARSE_SIDE
BATCH = 256
# An image with more candidates than this lies among so many alike that the closest few will do.
MAX_CANDIDATES = 64
# Less contrast than this, as a root mean square of 8-bit values, is noise: there is no picture to compare.
MIN_CONTRAST = 1.0
# The distance of thumbnails that show the same picture, and a little for rounding.
RADIUS = math.sqrt(2 - 2 * MAX_DISTANCE) + 1e-4

Floats: TypeAlias = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Thumbnails:
    """What is needed to compare N images: thumbnails (N, C, 16, 16) of length 1, or 0 if blank, and hashes (N,).

    `constant` says which images are of one color all over, (N,).
    """

    thumbnails: Floats
    hashes: Integers
    constant: NDArray[np.bool_]

    @property
    def pictured(self) -> Integers:
        """The indices of those that are not blank."""
        return np.flatnonzero(self.thumbnails.any(axis=(1, 2, 3)))


def make_thumbnails(part: LabeledImages) -> Thumbnails:
    """The looks of every image of a part; they take 1 kB an image and channel."""
    thumbnails = np.empty((len(part), part.images.shape[0], SIDE, SIDE), np.float32)
    constant = np.empty(len(part), np.bool_)
    for block in np.split(np.arange(len(part)), range(BATCH, len(part), BATCH)):
        pixels = part.images.batch(block)
        thumbnails[block] = _thumbnails(pixels).numpy()
        constant[block] = (pixels.flatten(1) == pixels.flatten(1)[:, :1]).all(dim=1).numpy()
    return Thumbnails(thumbnails, part.hashes, constant)


def _thumbnails(pixels: Tensor) -> Tensor:
    small = functional.adaptive_avg_pool2d(pixels.float(), SIDE)  # (B, C, 16, 16)
    centerd = small - small.mean(dim=(1, 2, 3), keepdim=True)
    length = centerd.pow(2).sum(dim=(1, 2, 3), keepdim=True).sqrt()
    is_blank = length < MIN_CONTRAST * math.sqrt(small[0].numel())
    return torch.where(is_blank, 0, centerd / length.clamp_min(1e-6))


def nearest_duplicates(these: Thumbnails, those: Thumbnails) -> Integers:
    """For each of these images the index of the one of those that shows the same picture, the most alike, or -1: (N,).

    Copies with the same hash, and so the image itself, do not count. Candidates are found by 4 x 4 averages: coordinates
    along orthonormal vectors, never further apart than the thumbnails themselves, so that no pair is missed.
    """
    best = np.full(len(these.hashes), -1)
    ours, theirs = these.pictured, those.pictured
    for i, j in _candidates(_coarse(these.thumbnails[ours]), _coarse(those.thumbnails[theirs])):
        i, j = ours[i], theirs[j]
        likeness = np.einsum("nchw,nchw->n", these.thumbnails[i], those.thumbnails[j])
        same = (likeness >= MAX_DISTANCE) & (these.hashes[i] != those.hashes[j])
        order = np.argsort(likeness[same], kind="stable")  # the most alike comes last, and is what stays
        best[i[same][order]] = j[same][order]
    return best


def _coarse(thumbnails: Floats) -> Floats:
    """Coordinates along 16 orthonormal vectors, each a block of pixels in all channels: (N, C, 16, 16) -> (N, 16)."""
    n, channels = thumbnails.shape[:2]
    blocks = thumbnails.reshape(n, channels, COARSE_SIDE, STEP, COARSE_SIDE, STEP)
    coordinates: Floats = blocks.sum(axis=(1, 3, 5)).reshape(n, COARSE_SIDE**2)
    return coordinates / np.float32(STEP * math.sqrt(channels))


def _candidates(points: Floats, others: Floats) -> Iterator[tuple[Integers, Integers]]:
    """Pairs of a point and another that is close enough, all of a point's pairs at once: (N, d), (M, d) -> indices.

    What is close is close along every axis: sorted by one, a block of points has only a few others to be held against.
    """
    if not len(points) or not len(others):
        return
    axis = int(others.var(axis=0).argmax())
    order, place = np.argsort(points[:, axis]), np.argsort(others[:, axis])
    others = others[place]
    for block in np.split(order, range(BATCH, len(order), BATCH)):
        least, most = points[block[[0, -1]], axis]
        low, high = np.searchsorted(others[:, axis], (least - RADIUS, most + RADIUS))
        i, j = _close(points[block], others[low:high])
        yield block[i], place[low:high][j]


def _close(a: Floats, b: Floats) -> tuple[Integers, Integers]:
    """The pairs within the radius, or a point's closest few where very many are: (A, d), (B, d) -> indices."""
    # |a − b|² = |a|² − 2 (a·b − |b|²/2): one product, and one comparison by row.
    nearness = np.column_stack([a, np.ones_like(a[:, 0])]) @ np.column_stack([b, -(b**2).sum(axis=1) / 2]).T  # (A, B)
    is_close = nearness >= ((a**2).sum(axis=1) - RADIUS**2)[:, None] / 2
    for crowded in np.flatnonzero(is_close.sum(axis=1) > MAX_CANDIDATES):
        is_close[crowded] = False
        is_close[crowded, np.argpartition(nearness[crowded], -MAX_CANDIDATES)[-MAX_CANDIDATES:]] = True
    i, j = np.divmod(np.flatnonzero(is_close), max(len(b), 1))
    return i, j
