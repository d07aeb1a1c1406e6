"""Learning-rate schedules: the share of the largest rate at each fraction of a training, 0 at its start and 1 at its end."""

from __future__ import annotations

import math
from collections.abc import Callable

WARM_UP = 0.2  # of the training: the share in which one_cycle climbs
COOL_DOWN = 0.3  # the share in which wsd descends


def one_cycle(fraction: float) -> float:
    """Up in a half cosine, down in another (Smith 2018, Super-Convergence).

    >>> one_cycle(0.2), round(one_cycle(1.0), 3)
    (1.0, 0.001)
    """
    if fraction < WARM_UP:
        return 0.04 + 0.96 * _half_cosine(1 - fraction / WARM_UP)
    return max(_half_cosine((fraction - WARM_UP) / (1 - WARM_UP)), 1e-3)


def cosine(fraction: float) -> float:
    """Down in a half cosine (Loshchilov 2017, SGDR)."""
    return max(_half_cosine(fraction), 1e-3)


def step(fraction: float) -> float:
    """A tenth after one half, a hundredth after three quarters."""
    return 1.0 if fraction < 0.5 else 0.1 if fraction < 0.75 else 0.01


def constant(fraction: float) -> float:
    """The same from first to last."""
    return 1.0


def wsd(fraction: float) -> float:
    """The same for most of the training, then down in a straight line (Hägele 2024, Scaling Laws and Compute-Optimal Training
    Beyond Fixed Training Durations).

    >>> wsd(0.0), wsd(0.7), round(wsd(0.85), 3)
    (1.0, 1.0, 0.5)
    """
    return max(min(1.0, (1 - fraction) / COOL_DOWN), 1e-3)


def _half_cosine(fraction: float) -> float:
    return 0.5 * (1 + math.cos(math.pi * min(max(fraction, 0.0), 1.0)))


SCHEDULES: dict[str, Callable[[float], float]] = {
    "one_cycle": one_cycle,
    "cosine": cosine,
    "step": step,
    "constant": constant,
    "wsd": wsd,
}
