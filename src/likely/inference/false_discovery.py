"""False discovery rate: rejection of unknown images among many by their conformal p-values."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def benjamini_hochberg(p_values: Tensor, q: float) -> Tensor:
    """Return the mask (N,) of the images that are rejected as unknown from their p-values (N,); NaN is never rejected.

    Rejects the k images of lowest p-value for the largest k with p_(k) ≤ q k / N (Benjamini & Hochberg 1995). The expected
    fraction of known images among those rejected is at most q: conformal p-values of independent images that share a
    calibration set are positively dependent (PRDS; Bates 2021, Testing for outliers with conformal p-values, theorem 2).
    """
    from scipy.stats import false_discovery_control  # a service starts without scipy

    rejected, is_tested = torch.zeros_like(p_values, dtype=torch.bool), ~p_values.isnan()
    if is_tested.any():
        adjusted = false_discovery_control(p_values[is_tested].double().numpy(), method="bh")
        rejected[is_tested] = torch.from_numpy(adjusted) <= q * (1 + 1e-12)
    return rejected


def n_calibration_needed(p_values: Tensor, q: float, smallest: float) -> int | None:
    """Return the number of calibration images that a rejection among images with p-values (N,) needs.

    None if an image is rejected, or if more calibration images would not help. `smallest` is the smallest p-value that the
    present calibration images allow, 1 / (n + 1): the images that have it cannot rank lower.
    """
    n_tested, n_lowest = int((~p_values.isnan()).sum()), int((p_values <= smallest * (1 + 1e-12)).sum())
    is_possible = smallest <= q and not n_lowest  # no image is atypical enough, but one could be
    if not n_tested or is_possible or benjamini_hochberg(p_values, q).any():
        return None
    return math.ceil(n_tested / (q * max(1, n_lowest)) - 1e-9) - 1
