"""Drift: whether what comes now is like what the model was validated on, by how typical it finds the images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

LEAST = 50  # images of late, below which nothing is said
EFFECT = 0.1  # the least difference between the distributions that is worth a word, however sure it is
LEVEL = 0.01  # the share of false alarms where nothing has drifted
N_QUANTILES = 201  # of what is kept of a distribution
TERMS = 100  # of Kolmogorov's series


@dataclass(frozen=True)
class Drift:
    """Between p-values of now and of validation: the largest difference of the shares below a value, how probable it is where
    nothing has drifted, and from how many images."""

    difference: float
    p_value: float
    n: int

    @property
    def has_drifted(self) -> bool | None:
        """Whether it is sure, and large enough to matter; None of fewer than LEAST images."""
        return None if self.n < LEAST else self.p_value <= LEVEL and self.difference >= EFFECT


def quantiles(values: Tensor) -> list[float]:
    """What is kept of a distribution (N,): its quantiles, from the least value to the largest."""
    at = torch.linspace(0, 1, N_QUANTILES, dtype=torch.float64)
    found: list[float] = values.double().quantile(at).tolist() if len(values) else []
    return found


def drift(now: Sequence[float], kept: Sequence[float], n_kept: int) -> Drift | None:
    """The two-sample test of Kolmogorov and Smirnov (Smirnov 1948), values (n,) against the quantiles of n_kept others, as
    `quantiles` gives them. None if there is nothing to compare.

    The p-value is that of large samples, Q(λ) = 2 Σ_j (−1)^(j−1) exp(−2 j² λ²) at λ = (√N + 0.12 + 0.11 / √N) D, with
    N = n m / (n + m) (Stephens 1970).
    """
    if not len(now) or not len(kept):
        return None
    x, y = torch.tensor(sorted(now), dtype=torch.float64), torch.tensor(kept, dtype=torch.float64)
    n, m = len(x), max(1, n_kept)
    shares = torch.linspace(0, 1, len(y), dtype=torch.float64)
    points: Tensor = torch.cat([x, y]).unique()  # type: ignore[no-untyped-call]
    of_now = _n_up_to(x, points).double() / n
    # Between two quantiles the share is taken to rise evenly; where several are one value it jumps to the last of them.
    above = _n_up_to(y, points).clamp(1, len(y) - 1)
    step = (y[above] - y[above - 1]).clamp_min(1e-300)
    of_kept = (shares[above - 1] + (points - y[above - 1]) / step * (shares[above] - shares[above - 1])).clamp(0, 1)
    of_kept = torch.where(points >= y[-1], 1.0, torch.where(points < y[0], 0.0, of_kept))
    difference = float((of_now - of_kept).abs().max())
    return Drift(difference, _kolmogorov(difference, n * m / (n + m)), n)


def _n_up_to(values: Tensor, at: Tensor) -> Tensor:
    """How many of the sorted values are at most those."""
    return torch.searchsorted(values, at, right=True)


def _kolmogorov(difference: float, n: float) -> float:
    """How often the difference is as large by chance."""
    scaled = (n**0.5 + 0.12 + 0.11 / n**0.5) * difference
    if scaled < 0.2:
        return 1.0
    j = torch.arange(1, TERMS + 1, dtype=torch.float64)
    return float((2 * (-1) ** (j - 1) * torch.exp(-2 * j**2 * scaled**2)).sum().clamp(0, 1))
