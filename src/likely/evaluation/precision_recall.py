"""Precision and recall, density and coverage: realism and diversity by nearest neighbors.

`real` is (N, F), `generated` is (M, F). The manifold of a set is the union of balls around its points, each with the
distance to the k-th nearest other point as its radius.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from likely.evaluation.frechet_and_kernel import Doubles, blocks
from likely.evaluation.metrics import Floats
from likely.exceptions import InvalidValueError

ROUNDING = 1e-12  # squared distances below this fraction of the squared lengths are rounding errors
TIE = 1e-9  # squared distances that differ by less than this fraction are equal


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
    real_radii, generated_radii = squared_radii(real, k), squared_radii(generated, k)
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
    radii, n_pairs, n_covered = squared_radii(real, k), 0, 0
    for rows, squared in _squared_distances(real, generated):
        inside = squared < radii[rows, None] * (1 - TIE)
        n_pairs += int(inside.sum())
        n_covered += int(inside.any(axis=1).sum())
    return _DensityCoverage(n_pairs / (k * len(generated)), n_covered / len(real))


def squared_radii(features: Floats, k: int) -> Doubles:
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
    for rows in blocks(len(x), len(y)):
        total = lengths[rows, None] + others
        squared = total - 2 * (x[rows] @ y.T)
        squared[squared < ROUNDING * total] = 0
        yield rows, squared
