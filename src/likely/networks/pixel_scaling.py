"""Eight bits and the unit interval: the two scalings between a stored image and what a network sees."""

from __future__ import annotations

import torch
from torch import Tensor


def to_unit(x: Tensor) -> Tensor:
    """x / 255: uint8 of any shape -> float32 in [0, 1]."""
    return x.to(torch.float32) / 255


def to_eight_bit(x: Tensor) -> Tensor:
    """round(255 x), clamped: floats in [0, 1] of any shape -> uint8, the inverse of `to_unit` on every 8-bit value."""
    return (x.to(torch.float32) * 255).round().clamp(0, 255).to(torch.uint8)
