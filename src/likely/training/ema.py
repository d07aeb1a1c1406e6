"""The exponential moving average of the weights, which is what a training keeps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel


def ema_model(model: nn.Module, decay: float) -> AveragedModel:
    """A copy of the model that follows it: w̄ ← d w̄ + (1 − d) w, d = min(decay, (1 + n)/(10 + n)) at the n-th update.

    The smaller d of the first updates forgets the untrained weights, which would otherwise rule a short training.
    """
    return AveragedModel(model, multi_avg_fn=_follow(decay), use_buffers=True)


def _follow(decay: float) -> Callable[..., None]:
    @torch.no_grad()
    def follow(averages: list[Tensor], currents: list[Tensor], n_averaged: Tensor | int) -> Any:
        n = float(n_averaged)
        weight = 1 - min(decay, (1 + n) / (10 + n))
        if averages[0].is_floating_point():
            torch._foreach_lerp_(averages, currents, weight)
        else:
            torch._foreach_copy_(averages, currents)  # counters have no average

    return follow
