"""Conversion between stored 8-bit images and network inputs in [0, 1]."""

from __future__ import annotations

import torch
from torch import Tensor


def to_unit(x: Tensor) -> Tensor:
    """Return x / 255: uint8 of any shape -> float32 in [0, 1]."""
    return x.to(torch.float32) / 255


def to_eight_bit(x: Tensor) -> Tensor:
    """Return round(255 x), clamped: floats in [0, 1] of any shape -> uint8; inverts `to_unit`."""
    return (x.to(torch.float32) * 255).round().clamp(0, 255).to(torch.uint8)
