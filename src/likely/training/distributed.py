"""Gradients averaged over the processes of torch.distributed; on one process nothing happens."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, distributed


def average(gradients: Sequence[Tensor]) -> Sequence[Tensor]:
    """Mean of each gradient over the processes."""
    if distributed.is_available() and distributed.is_initialized():
        # Autograd may return views that repeat one number, and the order in memory may differ between processes.
        gradients = [gradient.contiguous() for gradient in gradients]
        for gradient in gradients:
            distributed.all_reduce(gradient)
            gradient /= distributed.get_world_size()
    return gradients
