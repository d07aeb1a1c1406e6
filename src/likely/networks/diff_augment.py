"""The same random changes to real and to made images, through which gradients flow.

Zhao 2020, Differentiable Augmentation for Data-Efficient GAN Training: a discriminator that sees every image changed cannot
learn a small training set by heart, and a generator that is judged through the changes does not learn to make them.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Generator, Tensor

from likely.networks.blocks import uniform

SHIFT = 1 / 8  # of a side, at most
HOLE = 1 / 2  # of a side


def color(x: Tensor, rng: Generator) -> Tensor:
    """Brightness by up to ±0.25, saturation from 0 to 2 times, contrast from 0.5 to 1.5 times: (B, C, H, W) -> the same."""
    brightness, saturation, contrast = _uniform(x, 3, rng)
    x = x + (brightness - 0.5) / 2
    gray = x.mean(1, keepdim=True)
    x = gray + (x - gray) * 2 * saturation
    middle = x.mean((1, 2, 3), keepdim=True)
    return middle + (x - middle) * (contrast + 0.5)


def shift(x: Tensor, rng: Generator) -> Tensor:
    """By whole pixels up to an eighth of each side, zeros moving in."""
    B, _, H, W = x.shape
    rows, columns = (_source(side, B, x.device, rng) for side in (H, W))
    batch = torch.arange(B, device=x.device)[:, None, None]
    padded = torch.nn.functional.pad(x, (1, 1, 1, 1)).permute(0, 2, 3, 1)  # sources outside are read from this border
    return padded[batch, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def cutout(x: Tensor, rng: Generator) -> Tensor:
    """A hole of zeros, half as high and as wide as the image, anywhere; it may reach over the edge."""
    H, W = x.shape[2:]
    v, u = _uniform(x, 2, rng)
    inside_rows = _inside(H, v[:, :, 0, 0])[:, None, :, None]
    inside_columns = _inside(W, u[:, :, 0, 0])[:, None, None, :]
    return x * ~(inside_rows & inside_columns)


PATTERN = "^(none|(color|shift|cutout)(,(color|shift|cutout))*)$"

CHANGES: dict[str, Callable[[Tensor, Generator], Tensor]] = {"color": color, "shift": shift, "cutout": cutout}


def diff_augment(x: Tensor, changes: str, rng: Generator) -> Tensor:
    """The named changes in turn, such as "shift,cutout": (B, C, H, W) -> the same shape; "none" or vectors: as they are."""
    if changes == "none" or x.ndim != 4:
        return x
    for name in changes.split(","):
        x = CHANGES[name](x, rng)
    return x


def _uniform(x: Tensor, n: int, rng: Generator) -> tuple[Tensor, ...]:
    """n numbers in [0, 1) an image, each (B, 1, 1, 1)."""
    return tuple(uniform((n, len(x), 1, 1, 1), x, rng))


def _source(side: int, n: int, device: torch.device, rng: Generator) -> Tensor:
    """Where each row or column of the shifted images comes from, in the padded image: (n, side)."""
    largest = int(SHIFT * side)
    moved = torch.randint(-largest, largest + 1, (n, 1), generator=rng, device=rng.device).to(device)
    return (torch.arange(side, device=device) + moved + 1).clamp(0, side + 1)


def _inside(side: int, u: Tensor) -> Tensor:
    """Which rows or columns lie in the hole whose center u (B, 1) places: (B, side)."""
    center = u * side
    return (torch.arange(side, device=u.device) + 0.5 - center).abs() <= HOLE * side / 2
