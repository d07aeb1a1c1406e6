"""Drift detection: a two-sample test of the p-values of recent images against those of validation images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class DriftOptions:
    """Constants of the test.

    `min_images`: recent images below which no decision is made. `min_difference`: smallest difference of the
    distribution functions that counts as drift, however significant. `level`: significance level. `n_quantiles`: of the
    stored reference distribution.
    """

    min_images: int = 50
    min_difference: float = 0.1
    level: float = 0.01
    n_quantiles: int = 201


DEFAULT_OPTIONS = DriftOptions()


@dataclass(frozen=True)
class Drift:
    """Result of the Kolmogorov-Smirnov test with `n` recent values: statistic D (`difference`) and p-value."""

    difference: float
    p_value: float
    n: int

    @property
    def has_drifted(self) -> bool | None:
        """True if the difference is significant and large enough to matter; None with too few images."""
        options = DEFAULT_OPTIONS
        if self.n < options.min_images:
            return None
        return self.p_value <= options.level and self.difference >= options.min_difference


def quantiles(values: Tensor) -> list[float]:
    """Return equidistant quantiles of values (N,), from the minimum to the maximum: a compact reference distribution."""
    at = torch.linspace(0, 1, DEFAULT_OPTIONS.n_quantiles, dtype=torch.float64)
    found: list[float] = values.double().quantile(at).tolist() if len(values) else []
    return found


def drift(recent: Sequence[float], reference: Sequence[float], n_reference: int) -> Drift | None:
    """Test recent values (n,) against the `quantiles` of n_reference others (Smirnov 1948); None if either is empty.

    The p-value is asymptotic: Q(λ) = 2 Σ_j (−1)^(j−1) exp(−2 j² λ²) at λ = (√N + 0.12 + 0.11 / √N) D, with N = n m / (n + m)
    (Stephens 1970).
    """
    if not len(recent) or not len(reference):
        return None
    from scipy.special import kolmogorov  # slow to import and not needed at the start of a service

    x, y = np.sort(np.asarray(recent, np.float64)), np.asarray(reference, np.float64)
    points = np.union1d(x, y)
    recent_cdf = np.searchsorted(x, points, side="right") / len(x)
    # The distribution function is linear between two quantiles; where several are equal it jumps to the last of them.
    reference_cdf = np.interp(points, y, np.linspace(0, 1, len(y)), left=0.0)
    reference_cdf[points >= y[-1]] = 1.0
    difference = float(np.abs(recent_cdf - reference_cdf).max())
    root = (len(x) * max(1, n_reference) / (len(x) + max(1, n_reference))) ** 0.5
    return Drift(difference, float(kolmogorov((root + 0.12 + 0.11 / root) * difference)), len(x))
