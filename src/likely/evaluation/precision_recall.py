"""Realism and variety apart, by nearest neighbors: is every generated image like a real one, and every real one matched?

`real` is (N, F), `made` is (M, F). A set's manifold is the union of balls about its points, each as wide as the way to the
k-th nearest other point of the set.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from likely.evaluation.frechet_and_kernel import Doubles, blocks
from likely.evaluation.metrics import Floats
from likely.exceptions import InvalidValueError

ROUNDING = 1e-12  # of the points' own squared lengths: a smaller squared distance is 0, rounded
TIE = 1e-9  # squared distances that differ by less than this share are equal, rounded


class PrecisionRecall(NamedTuple):
    """`precision`: generated images within the real manifold. `recall`: real images within the generated one. Shares."""

    precision: float
    recall: float


class DensityCoverage(NamedTuple):
    """`density`: how many real balls hold a generated image, over k. `coverage`: the share of real balls that hold one."""

    density: float
    coverage: float


def precision_recall(real: Floats, generated: Floats, k: int = 3) -> PrecisionRecall:
    """mean_j 1[∃i: |made_j − real_i| ≤ r_k(real_i)], and the same with the sets exchanged.

    Kynkäänniemi 2019, Improved Precision and Recall Metric for Assessing Generative Models, eq. 1 and 2.
    """
    real_radii, made_radii = squared_radii(real, k), squared_radii(generated, k)
    precise, recalled = np.zeros(len(generated), dtype=np.bool_), np.zeros(len(real), dtype=np.bool_)
    for rows, apart in _squared_distances(real, generated):
        precise |= (apart <= real_radii[rows, None] * (1 + TIE)).any(axis=0)
        recalled[rows] = (apart <= made_radii * (1 + TIE)).any(axis=1)
    return PrecisionRecall(float(precise.mean()), float(recalled.mean()))


def density_coverage(real: Floats, generated: Floats, k: int = 5) -> DensityCoverage:
    """Σ_j Σ_i 1[|made_j − real_i| < r_k(real_i)] / (k M), and mean_i 1[∃j: |made_j − real_i| < r_k(real_i)].

    Naeem 2020, Reliable Fidelity and Diversity Metrics for Generative Models, section 3. Balls are open, as in its
    authors' own measurements, so that a set compared with itself has a density and a coverage of 1.
    """
    radii, n_pairs, n_covered = squared_radii(real, k), 0, 0
    for rows, apart in _squared_distances(real, generated):
        inside = apart < radii[rows, None] * (1 - TIE)
        n_pairs += int(inside.sum())
        n_covered += int(inside.any(axis=1).sum())
    return DensityCoverage(n_pairs / (k * len(generated)), n_covered / len(real))


def squared_radii(features: Floats, k: int) -> Doubles:
    """r_k²: the squared distance of each point to the k-th nearest of the others, (N,)."""
    if len(features) <= k:
        raise InvalidValueError(
            f"there are {len(features)} images; more than k = {k} were expected, for each to have k others"
        )
    radii = np.empty(len(features))
    for rows, apart in _squared_distances(features, features):
        apart[np.arange(len(apart)), np.arange(rows.start, rows.stop)] = np.inf
        radii[rows] = np.partition(apart, k - 1, axis=1)[:, k - 1]
    return radii


def _squared_distances(a: Floats, b: Floats) -> Iterator[tuple[slice, Doubles]]:
    """Some rows of a at a time, and their squared distances to all of b: (rows, M)."""
    middle = np.mean(
        b, axis=0, dtype=np.float64
    )  # lengths from there are short, and little is lost of their differences
    x, y = a - middle, b - middle
    lengths, others = np.einsum("nf,nf->n", x, x), np.einsum("nf,nf->n", y, y)
    for rows in blocks(len(x), len(y)):
        both = lengths[rows, None] + others
        apart = both - 2 * (x[rows] @ y.T)
        apart[apart < ROUNDING * both] = 0
        yield rows, apart
