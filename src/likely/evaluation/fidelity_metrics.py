"""Fidelity metrics on two sets of features: Fréchet and kernel distance, precision and recall, density and coverage.

Arithmetic on numpy arrays in float64: `real` is (N, F), `generated` is (M, F), one row per image. For precision, recall,
density and coverage, the manifold of a set is the union of balls around its points, each with the distance to the k-th
nearest other point as its radius.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from likely.evaluation.metrics import Floats, Ints
from likely.exceptions import InvalidValueError

Doubles = NDArray[np.float64]
BLOCK = 1 << 22  # numbers in a block of a pairwise matrix: 32 MB
ROUNDING = 1e-12  # squared distances below this fraction of the squared lengths are rounding errors
TIE = 1e-9  # squared distances that differ by less than this fraction are equal

# --- distances ----------------------------------------------------------------------------------------------------------


def frechet_distance(real: Floats, generated: Floats) -> float:
    """Return |μ₁ − μ₂|² + tr S₁ + tr S₂ − 2 tr (S₁^½ S₂ S₁^½)^½.

    The last trace is the sum of the singular values of R₁ R₂ᵀ for any R with RᵀR = S, which avoids matrix square roots
    and keeps matrices small for few images. Each set needs at least two images; the value depends on their number.
    Heusel 2017, GANs Trained by a Two Time-Scale Update Rule, eq. 6.
    """
    _require_two(real, generated)
    R, Q = _factor(real), _factor(generated)
    difference = real.mean(axis=0, dtype=np.float64) - generated.mean(axis=0, dtype=np.float64)
    shared = np.linalg.svd(R @ Q.T, compute_uv=False).sum()
    # For equal sets, rounding may give a small negative value.
    return max(0.0, float(difference @ difference + (R**2).sum() + (Q**2).sum() - 2 * shared))


def kernel_distance(real: Floats, generated: Floats) -> float:
    """Return the unbiased MMD² for k(x, y) = (x·y / F + 1)³: 0 in expectation for equal distributions, so possibly negative.

    Bińkowski 2018, Demystifying MMD GANs, section 4.
    """
    _require_two(real, generated)
    x, y = (np.asarray(features, dtype=np.float64) for features in (real, generated))
    return _off_diagonal_mean(x) + _off_diagonal_mean(y) - 2 * _kernel_sum(x, y) / (len(x) * len(y))


def kernel_distances(
    real: Floats, generated: Floats, *, n_subsets: int, size: int, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Return the kernel distances of random subsets of `size` images of each set: (n_subsets,)."""
    if size > min(len(real), len(generated)):
        raise InvalidValueError(
            f"subsets of {size} images; expected at most {min(len(real), len(generated))}, as many as there are"
        )

    def subset(features: Floats) -> Floats:
        return features[rng.choice(len(features), size, replace=False)]

    return np.array([kernel_distance(subset(real), subset(generated)) for _ in range(n_subsets)])


def intra_class_frechet_distances(
    real: tuple[Floats, Ints], generated: tuple[Floats, Ints], n_classes: int, *, min_images: int
) -> Doubles:
    """Return the Fréchet distance of each class, (K,), from features and labels; nan for fewer than `min_images` images.

    Their mean is the intra-class FID (Miyato & Koyama 2018, cGANs with Projection Discriminator, section 4).
    """
    distances = np.full(n_classes, np.nan)
    for c in range(n_classes):
        x, y = (features[labels == c] for features, labels in (real, generated))
        if min(len(x), len(y)) >= min_images:
            distances[c] = frechet_distance(x, y)
    return distances


def _factor(features: Floats) -> Doubles:
    """Return R with RᵀR the covariance, (min(N, F), F): the QR triangle of the centered rows."""
    rows = np.asarray(features, dtype=np.float64)
    triangle = np.asarray(np.linalg.qr(rows - rows.mean(axis=0), mode="r"), dtype=np.float64)
    return triangle / math.sqrt(len(rows) - 1)


def _off_diagonal_mean(x: Doubles) -> float:
    """Return the mean of k(x_i, x_j) over i ≠ j."""
    diagonal = _cubed(np.einsum("nf,nf->n", x, x) / x.shape[1]).sum()
    return (_kernel_sum(x, x) - float(diagonal)) / (len(x) * (len(x) - 1))


def _kernel_sum(x: Doubles, y: Doubles) -> float:
    return sum(float(_cubed(x[rows] @ y.T / x.shape[1]).sum()) for rows in _blocks(len(x), len(y)))


def _cubed(products: Doubles) -> Doubles:
    base = products + 1
    return base * base * base  # ten times faster than base**3


def _require_two(real: Floats, generated: Floats) -> None:
    if min(len(real), len(generated)) < 2:
        raise InvalidValueError(f"{len(real)} real and {len(generated)} generated images; expected at least 2 of each")
    if real.shape[1:] != generated.shape[1:]:
        raise InvalidValueError(
            f"real images have features of shape {real.shape[1:]}, generated ones of {generated.shape[1:]}"
        )


# --- manifolds ------------------------------------------------------------------------------------------------------


class _PrecisionRecall(NamedTuple):
    """Fractions: `precision` of generated images within the real manifold, `recall` of real ones within the generated."""

    precision: float
    recall: float


class _DensityCoverage(NamedTuple):
    """`density`: mean number of real balls around a generated image, over k. `coverage`: fraction of real balls with one."""

    density: float
    coverage: float


def precision_recall(real: Floats, generated: Floats, k: int = 3) -> _PrecisionRecall:
    """Return mean_j 1[∃i: |generated_j − real_i| ≤ r_k(real_i)], and that with the sets exchanged.

    Kynkäänniemi 2019, Improved Precision and Recall Metric for Assessing Generative Models, eq. 1 and 2.
    """
    real_radii, generated_radii = _squared_radii(real, k), _squared_radii(generated, k)
    precise, recalled = np.zeros(len(generated), dtype=np.bool_), np.zeros(len(real), dtype=np.bool_)
    for rows, squared in _squared_distances(real, generated):
        precise |= (squared <= real_radii[rows, None] * (1 + TIE)).any(axis=0)
        recalled[rows] = (squared <= generated_radii * (1 + TIE)).any(axis=1)
    return _PrecisionRecall(float(precise.mean()), float(recalled.mean()))


def density_coverage(real: Floats, generated: Floats, k: int = 5) -> _DensityCoverage:
    """Return Σ_j Σ_i 1[|generated_j − real_i| < r_k(real_i)] / (k M) and mean_i 1[∃j: |generated_j − real_i| < r_k(real_i)].

    Balls are open, as in the code of the authors, so that a set compared with itself has density and coverage 1.
    Naeem 2020, Reliable Fidelity and Diversity Metrics for Generative Models, section 3.
    """
    radii, n_pairs, n_covered = _squared_radii(real, k), 0, 0
    for rows, squared in _squared_distances(real, generated):
        inside = squared < radii[rows, None] * (1 - TIE)
        n_pairs += int(inside.sum())
        n_covered += int(inside.any(axis=1).sum())
    return _DensityCoverage(n_pairs / (k * len(generated)), n_covered / len(real))


def _squared_radii(features: Floats, k: int) -> Doubles:
    """Return r_k²: the squared distance of each point to the k-th nearest other point, (N,)."""
    if len(features) <= k:
        raise InvalidValueError(f"{len(features)} images; expected more than k = {k}")
    radii = np.empty(len(features))
    for rows, squared in _squared_distances(features, features):
        squared[np.arange(len(squared)), np.arange(rows.start, rows.stop)] = np.inf
        radii[rows] = np.partition(squared, k - 1, axis=1)[:, k - 1]
    return radii


def _squared_distances(a: Floats, b: Floats) -> Iterator[tuple[slice, Doubles]]:
    """Yield slices of the rows of a and their squared distances to all rows of b, (rows, M)."""
    center = np.mean(b, axis=0, dtype=np.float64)  # centered vectors are short, which limits rounding errors
    x, y = a - center, b - center
    lengths, others = np.einsum("nf,nf->n", x, x), np.einsum("nf,nf->n", y, y)
    for rows in _blocks(len(x), len(y)):
        total = lengths[rows, None] + others
        squared = total - 2 * (x[rows] @ y.T)
        squared[squared < ROUNDING * total] = 0
        yield rows, squared


def _blocks(n_rows: int, n_columns: int) -> Iterator[slice]:
    """Yield slices of the rows of a pairwise matrix that fit in memory."""
    step = max(1, BLOCK // max(1, n_columns))
    yield from (slice(start, min(start + step, n_rows)) for start in range(0, n_rows, step))
