"""How far apart two sets of features lie: the Fréchet distance and the kernel distance.

All is arithmetic on numpy arrays, in float64: `real` is (N, F), `made` is (M, F), and each row is one image's features.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from likely.evaluation.metrics import Floats, Ints
from likely.exceptions import InvalidValueError

Doubles = NDArray[np.float64]
BLOCK = 1 << 22  # numbers: a block of a matrix of pairs takes 32 MB, and what is computed from it a few times as much


def frechet_distance(real: Floats, generated: Floats) -> float:
    """|μ₁ − μ₂|² + tr S₁ + tr S₂ − 2 tr (S₁^½ S₂ S₁^½)^½ (Heusel 2017, GANs Trained by a Two Time-Scale Update Rule, eq. 6).

    The last trace is the sum of the singular values of R₁ R₂ᵀ, for any R with RᵀR = S: no root of a matrix is taken, and
    of few images only a small matrix is. Sets have at least two images each; the value depends on how many they are.
    """
    _require_two(real, generated)
    R, Q = _factor(real), _factor(generated)
    apart = real.mean(axis=0, dtype=np.float64) - generated.mean(axis=0, dtype=np.float64)
    shared = np.linalg.svd(R @ Q.T, compute_uv=False).sum()
    # Of two equal sets, rounding may leave a little less than nothing.
    return max(0.0, float(apart @ apart + (R**2).sum() + (Q**2).sum() - 2 * shared))


def kernel_distance(real: Floats, generated: Floats) -> float:
    """The unbiased MMD² of k(x, y) = (x·y / F + 1)³: 0 on average where both sets are drawn alike, so it may be below 0.

    Bińkowski 2018, Demystifying MMD GANs, section 4.
    """
    _require_two(real, generated)
    x, y = (np.asarray(features, dtype=np.float64) for features in (real, generated))
    return _mean_of_others(x) + _mean_of_others(y) - 2 * _kernel_sum(x, y) / (len(x) * len(y))


def kernel_distances(
    real: Floats, generated: Floats, *, n_subsets: int, size: int, rng: np.random.Generator
) -> NDArray[np.float64]:
    """The kernel distances of random subsets of `size` images a side: (n_subsets,). Their spread says how sure the mean is."""
    if size > min(len(real), len(generated)):
        raise InvalidValueError(
            f"subsets of {size} were asked for; there are only {min(len(real), len(generated))} images to draw"
        )

    def subset(features: Floats) -> Floats:
        return features[rng.choice(len(features), size, replace=False)]

    return np.array([kernel_distance(subset(real), subset(generated)) for _ in range(n_subsets)])


def intra_class_frechet_distances(
    real: tuple[Floats, Ints], generated: tuple[Floats, Ints], n_classes: int, *, min_images: int
) -> Doubles:
    """The Fréchet distance of each class by itself, (K,), from features and labels; nan for less than `fewest` images.

    Their mean is the intra-class FID (Miyato & Koyama 2018, cGANs with Projection Discriminator, section 4).
    """
    distances = np.full(n_classes, np.nan)
    for c in range(n_classes):
        ours, theirs = (features[labels == c] for features, labels in (real, generated))
        if min(len(ours), len(theirs)) >= min_images:
            distances[c] = frechet_distance(ours, theirs)
    return distances


def blocks(n_rows: int, n_columns: int) -> Iterator[slice]:
    """The rows of a matrix of pairs, so many at a time that they fit in memory."""
    step = max(1, BLOCK // max(1, n_columns))
    yield from (slice(start, min(start + step, n_rows)) for start in range(0, n_rows, step))


def _factor(features: Floats) -> Doubles:
    """R with RᵀR the covariance, (min(N, F), F): the triangle of the centerd rows."""
    rows = np.asarray(features, dtype=np.float64)
    triangle = np.asarray(np.linalg.qr(rows - rows.mean(axis=0), mode="r"), dtype=np.float64)
    return triangle / math.sqrt(len(rows) - 1)


def _mean_of_others(x: Doubles) -> float:
    """The mean of k(x_i, x_j) over i ≠ j."""
    own = _cubed(np.einsum("nf,nf->n", x, x) / x.shape[1]).sum()
    return (_kernel_sum(x, x) - float(own)) / (len(x) * (len(x) - 1))


def _kernel_sum(x: Doubles, y: Doubles) -> float:
    return sum(float(_cubed(x[rows] @ y.T / x.shape[1]).sum()) for rows in blocks(len(x), len(y)))


def _cubed(products: Doubles) -> Doubles:
    base = products + 1
    return base * base * base  # a power is ten times slower


def _require_two(real: Floats, made: Floats) -> None:
    if min(len(real), len(made)) < 2:
        raise InvalidValueError(
            f"there are {len(real)} real and {len(made)} generated images; at least 2 of each were expected"
        )
    if real.shape[1:] != made.shape[1:]:
        raise InvalidValueError(
            f"real images have features of shape {real.shape[1:]}, generated ones of {made.shape[1:]}"
        )
