"""Optimizers and learning-rate schedules by name.

A schedule is the factor of the maximum learning rate at a fraction of the training, in [0, 1].
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from torch import nn, optim

from likely.training.options import TrainingOptions


def make_optimizer(parameters: Sequence[nn.Parameter], options: TrainingOptions) -> optim.Optimizer:
    """Create the optimizer of the options; biases, gains and other vectors get no weight decay."""
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": options.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    learning_rate, momentum, betas = options.learning_rate, options.momentum, (options.momentum, options.beta2)
    if options.optimizer == "sgd":
        return optim.SGD(groups, lr=learning_rate, momentum=momentum, nesterov=momentum > 0)
    if options.optimizer == "adagrad":
        return optim.Adagrad(groups, lr=learning_rate)
    if options.optimizer == "adam":
        return optim.Adam(groups, lr=learning_rate, betas=betas)
    return optim.AdamW(groups, lr=learning_rate, betas=betas)


def _one_cycle(fraction: float, *, warmup: float = 0.2) -> float:
    """Increase along a half cosine during the `warmup` fraction, then decrease along another (Smith 2018, Super-Convergence).

    >>> _one_cycle(0.2), round(_one_cycle(1.0), 3)
    (1.0, 0.001)
    """
    if fraction < warmup:
        return 0.04 + 0.96 * _half_cosine(1 - fraction / warmup)
    return max(_half_cosine((fraction - warmup) / (1 - warmup)), 1e-3)


def _cosine(fraction: float) -> float:
    """Decrease along a half cosine (Loshchilov 2017, SGDR)."""
    return max(_half_cosine(fraction), 1e-3)


def _step(fraction: float) -> float:
    """Decrease to a tenth after one half and to a hundredth after three quarters."""
    return 1.0 if fraction < 0.5 else 0.1 if fraction < 0.75 else 0.01


def _constant(fraction: float) -> float:
    """Keep the maximum rate."""
    return 1.0


def _wsd(fraction: float, *, cooldown: float = 0.3) -> float:
    """Keep the maximum rate, then decrease linearly during the `cooldown` fraction: warmup-stable-decay without warmup.

    Source: Hägele 2024, Scaling Laws and Compute-Optimal Training Beyond Fixed Training Durations.

    >>> _wsd(0.0), _wsd(0.7), round(_wsd(0.85), 3)
    (1.0, 1.0, 0.5)
    """
    return max(min(1.0, (1 - fraction) / cooldown), 1e-3)


def _half_cosine(fraction: float) -> float:
    return 0.5 * (1 + math.cos(math.pi * min(max(fraction, 0.0), 1.0)))


SCHEDULES: dict[str, Callable[[float], float]] = {
    "one_cycle": _one_cycle,
    "cosine": _cosine,
    "step": _step,
    "constant": _constant,
    "wsd": _wsd,
}
