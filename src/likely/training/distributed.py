"""Gradients averaged over the processes of torch.distributed; on one process nothing happens."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, distributed


def average(gradients: Sequence[Tensor]) -> Sequence[Tensor]:
    """g ← mean of g over processes, in place."""
    if distributed.is_available() and distributed.is_initialized():
        for gradient in gradients:
            distributed.all_reduce(gradient)
            gradient /= distributed.get_world_size()
    return gradients
