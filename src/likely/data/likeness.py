"""Likeness: which images show the same picture although their pixels differ, by recompression, resizing or brightness.

Images are compared as 16 x 16 thumbnails with their mean removed and their length made 1: the product of two is then
their correlation ρ, and their distance √(2 − 2ρ). A recompressed photograph keeps ρ above 0.998; two handwritten
digits, however plain, stay below.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from likely.data.parts import Integers, Part

SAME_PICTURE = 0.998
SIDE = 16
N_AXES, SAMPLED = 16, 4000
BATCH = 256
# An image with more candidates than this lies among so many alike that the closest few will do.
MOST_CANDIDATES = 64
# Less contrast than this, as a root mean square of 8-bit values, is noise: there is no picture to compare.
LEAST_CONTRAST = 1.0

Floats: TypeAlias = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Looks:
    """What is needed to compare N images: thumbnails (N, C, 16, 16) of length 1, or 0 if blank, and hashes (N,).

    `constant` says which images are of one colour all over, (N,).
    """

    thumbnails: Floats
    hashes: Integers
    constant: NDArray[np.bool_]

    @property
    def pictured(self) -> Integers:
        """The indices of those that are not blank."""
        return np.flatnonzero(self.thumbnails.any(axis=(1, 2, 3)))


def looks(part: Part) -> Looks:
    """The looks of every image of a part; they take 1 kB an image and channel."""
    thumbnails = np.empty((len(part), part.images.shape[0], SIDE, SIDE), np.float32)
    constant = np.empty(len(part), np.bool_)
    for block in np.split(np.arange(len(part)), range(BATCH, len(part), BATCH)):
        pixels = part.images.batch(block)
        thumbnails[block] = _thumbnails(pixels).numpy()
        constant[block] = (pixels.flatten(1) == pixels.flatten(1)[:, :1]).all(dim=1).numpy()
    return Looks(thumbnails, part.hashes, constant)


def _thumbnails(pixels: Tensor) -> Tensor:
    small = functional.adaptive_avg_pool2d(pixels.float(), SIDE)  # (B, C, 16, 16)
    centred = small - small.mean(dim=(1, 2, 3), keepdim=True)
    length = centred.pow(2).sum(dim=(1, 2, 3), keepdim=True).sqrt()
    is_blank = length < LEAST_CONTRAST * math.sqrt(small[0].numel())
    return torch.where(is_blank, 0, centred / length.clamp_min(1e-6))


def twins(these: Looks, those: Looks) -> Integers:
    """For each of these images the index of the one of those that shows the same picture, the most alike, or -1: (N,).

    Copies with the same hash, and so the image itself, do not count. Candidates come from a tree over the thumbnails'
    principal coordinates, which are never further apart than the thumbnails themselves, so that no pair is missed.
    """
    from sklearn.neighbors import KDTree

    best = np.full(len(these.hashes), -1)
    ours, theirs = these.pictured, those.pictured
    if not len(ours) or not len(theirs):
        return best
    axes = _principal_axes(those.thumbnails[theirs])
    tree = KDTree(_flat(those.thumbnails[theirs]) @ axes)
    itself = int(these is those)
    for block in np.split(ours, range(BATCH, len(ours), BATCH)):
        owner, candidate = _candidates(tree, _flat(these.thumbnails[block]) @ axes, itself)
        i, j = block[owner], theirs[candidate]
        likeness = np.einsum("nchw,nchw->n", these.thumbnails[i], those.thumbnails[j])
        same = (likeness >= SAME_PICTURE) & (these.hashes[i] != those.hashes[j])
        order = np.argsort(likeness[same])  # the most alike comes last, and is what stays
        best[i[same][order]] = j[same][order]
    return best


def _candidates(tree: Any, points: Floats, itself: int) -> tuple[Integers, Integers]:
    """Pairs of a point and a neighbour that is close enough, or one of the closest where very many are.

    `itself` is how many of a point's neighbours are the point.
    """
    radius = math.sqrt(2 - 2 * SAME_PICTURE) + 1e-6
    counts = tree.query_radius(points, radius, count_only=True)
    few = np.flatnonzero((counts > itself) & (counts <= MOST_CANDIDATES))
    many = np.flatnonzero(counts > MOST_CANDIDATES)
    found = [*tree.query_radius(points[few], radius)] if len(few) else []
    found += [*tree.query(points[many], MOST_CANDIDATES, return_distance=False)] if len(many) else []
    owners = np.repeat(np.concatenate([few, many]), [len(neighbours) for neighbours in found])
    return owners, np.concatenate([np.zeros(0, np.int64), *found])


def _principal_axes(thumbnails: Floats) -> Floats:
    """The orthonormal axes along which the thumbnails differ most, from a few thousand of them: (256 C, 16)."""
    some = _flat(thumbnails[:: 1 + len(thumbnails) // SAMPLED])
    _, axes = np.linalg.eigh(some.T @ some)
    return axes[:, -N_AXES:].astype(np.float32)


def _flat(thumbnails: Floats) -> Floats:
    return thumbnails.reshape(len(thumbnails), -1)
