"""Drift: whether what comes now is like what the model was validated on, by how typical it finds the images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

MIN_IMAGES = 50  # images of late, below which nothing is said
MIN_DIFFERENCE = 0.1  # the least difference between the distributions that is worth a word, however sure it is
LEVEL = 0.01  # the share of false alarms where nothing has drifted
N_QUANTILES = 201  # of what is kept of a distribution


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
        return None if self.n < MIN_IMAGES else self.p_value <= LEVEL and self.difference >= MIN_DIFFERENCE


def quantiles(values: Tensor) -> list[float]:
    """What is kept of a distribution (N,): its quantiles, from the least value to the largest."""
    at = torch.linspace(0, 1, N_QUANTILES, dtype=torch.float64)
    found: list[float] = values.double().quantile(at).tolist() if len(values) else []
    return found


def drift(recent: Sequence[float], reference: Sequence[float], n_reference: int) -> Drift | None:
    """The two-sample test of Kolmogorov and Smirnov (Smirnov 1948), values (n,) against the quantiles of n_kept others, as
    `quantiles` gives them. None if there is nothing to compare.

    The p-value is that of large samples, Q(λ) = 2 Σ_j (−1)^(j−1) exp(−2 j² λ²) at λ = (√N + 0.12 + 0.11 / √N) D, with
    N = n m / (n + m) (Stephens 1970).
    """
    if not len(recent) or not len(reference):
        return None
    from scipy.special import kolmogorov  # which a service need not wait for before it has images to compare

    x, y = np.sort(np.asarray(recent, np.float64)), np.asarray(reference, np.float64)
    points = np.union1d(x, y)
    of_now = np.searchsorted(x, points, side="right") / len(x)
    # Between two quantiles the share is taken to rise evenly; where several are one value it jumps to the last of them.
    of_kept = np.interp(points, y, np.linspace(0, 1, len(y)), left=0.0)
    of_kept[points >= y[-1]] = 1.0
    difference = float(np.abs(of_now - of_kept).max())
    root = (len(x) * max(1, n_reference) / (len(x) + max(1, n_reference))) ** 0.5
    return Drift(difference, float(kolmogorov((root + 0.12 + 0.11 / root) * difference)), len(x))
