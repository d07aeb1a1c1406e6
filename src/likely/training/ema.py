"""Exponential moving average of the weights, the result of training."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel


def ema_model(model: nn.Module, decay: float) -> AveragedModel:
    """Create the exponential moving average of a model: w̄ ← d w̄ + (1 − d) w, d = min(decay, (1 + n)/(10 + n)).

    n counts the updates. The smaller d of early updates removes the untrained weights, which would dominate short trainings.
    """
    return AveragedModel(model, multi_avg_fn=_average(decay), use_buffers=True)


def _average(decay: float) -> Callable[..., None]:
    @torch.no_grad()
    def average(averages: list[Tensor], currents: list[Tensor], n_averaged: Tensor | int) -> Any:
        n = float(n_averaged)
        weight = 1 - min(decay, (1 + n) / (10 + n))
        if averages[0].is_floating_point():
            torch._foreach_lerp_(averages, currents, weight)
        else:
            torch._foreach_copy_(averages, currents)  # counters are copied

    return average
