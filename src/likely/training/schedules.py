"""Learning-rate schedules: the factor of the maximum learning rate at a fraction of the training, in [0, 1]."""

from __future__ import annotations

import math
from collections.abc import Callable

WARMUP_FRACTION = 0.2  # fraction of the training in which one_cycle increases the rate
COOLDOWN_FRACTION = 0.3  # fraction of the training in which wsd decreases the rate


def _one_cycle(fraction: float) -> float:
    """Increase and decrease along half cosines (Smith 2018, Super-Convergence).

    >>> _one_cycle(0.2), round(_one_cycle(1.0), 3)
    (1.0, 0.001)
    """
    if fraction < WARMUP_FRACTION:
        return 0.04 + 0.96 * _half_cosine(1 - fraction / WARMUP_FRACTION)
    return max(_half_cosine((fraction - WARMUP_FRACTION) / (1 - WARMUP_FRACTION)), 1e-3)


def _cosine(fraction: float) -> float:
    """Decrease along a half cosine (Loshchilov 2017, SGDR)."""
    return max(_half_cosine(fraction), 1e-3)


def _step(fraction: float) -> float:
    """Decrease to a tenth after one half and to a hundredth after three quarters."""
    return 1.0 if fraction < 0.5 else 0.1 if fraction < 0.75 else 0.01


def _constant(fraction: float) -> float:
    """Keep the maximum rate."""
    return 1.0


def _wsd(fraction: float) -> float:
    """Keep the maximum rate, then decrease linearly: warmup-stable-decay without warmup (Hägele 2024, Scaling Laws and
    Compute-Optimal Training Beyond Fixed Training Durations).

    >>> _wsd(0.0), _wsd(0.7), round(_wsd(0.85), 3)
    (1.0, 1.0, 0.5)
    """
    return max(min(1.0, (1 - fraction) / COOLDOWN_FRACTION), 1e-3)


def _half_cosine(fraction: float) -> float:
    return 0.5 * (1 + math.cos(math.pi * min(max(fraction, 0.0), 1.0)))


SCHEDULES: dict[str, Callable[[float], float]] = {
    "one_cycle": _one_cycle,
    "cosine": _cosine,
    "step": _step,
    "constant": _constant,
    "wsd": _wsd,
}
