"""Differentiable augmentation of real and generated images alike.

Zhao 2020, Differentiable Augmentation for Data-Efficient GAN Training: a discriminator that sees only augmented images cannot
memorize a small training set, and the generator does not learn to imitate the augmentations.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import torch
from pydantic import Field
from torch import Generator, Tensor

from likely.networks.blocks import uniform
from likely.options import Options


class DiffAugmentOptions(Options):
    """Options of differentiable augmentation."""

    max_shift: float = Field(1 / 8, ge=0, le=1, description="Maximum shift as a fraction of the side.")
    hole_size: float = Field(1 / 2, ge=0, le=1, description="Side of the cutout as a fraction of the image's side.")


DEFAULT_DIFF_AUGMENT: Final = DiffAugmentOptions()


def _color(x: Tensor, rng: Generator, options: DiffAugmentOptions) -> Tensor:
    """Change brightness by up to ±0.25, saturation by 0 to 2 and contrast by 0.5 to 1.5 times: (B, C, H, W) -> same shape."""
    brightness, saturation, contrast = _uniform(x, 3, rng)
    x = x + (brightness - 0.5) / 2
    gray = x.mean(1, keepdim=True)
    x = gray + (x - gray) * 2 * saturation
    mean = x.mean((1, 2, 3), keepdim=True)
    return mean + (x - mean) * (contrast + 0.5)


def _shift(x: Tensor, rng: Generator, options: DiffAugmentOptions) -> Tensor:
    """Translate by whole pixels up to `max_shift` of each side, filling with zeros."""
    B, _, H, W = x.shape
    rows, columns = (_source(side, B, x.device, rng, options.max_shift) for side in (H, W))
    batch = torch.arange(B, device=x.device)[:, None, None]
    padded = torch.nn.functional.pad(x, (1, 1, 1, 1)).permute(0, 2, 3, 1)  # sources outside are read from this border
    return padded[batch, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def _cutout(x: Tensor, rng: Generator, options: DiffAugmentOptions) -> Tensor:
    """Set a rectangle of `hole_size` times height and width to zero; its center is uniform over the image."""
    H, W = x.shape[2:]
    v, u = _uniform(x, 2, rng)
    inside_rows = _inside(H, v[:, :, 0, 0], options.hole_size)[:, None, :, None]
    inside_columns = _inside(W, u[:, :, 0, 0], options.hole_size)[:, None, None, :]
    return x * ~(inside_rows & inside_columns)


PATTERN = "^(none|(color|shift|cutout)(,(color|shift|cutout))*)$"

_AUGMENTATIONS: dict[str, Callable[[Tensor, Generator, DiffAugmentOptions], Tensor]] = {
    "color": _color,
    "shift": _shift,
    "cutout": _cutout,
}


def diff_augment(x: Tensor, names: str, rng: Generator, options: DiffAugmentOptions = DEFAULT_DIFF_AUGMENT) -> Tensor:
    """Apply named augmentations in turn, such as "shift,cutout": (B, C, H, W) -> same shape; "none": unchanged."""
    if names == "none" or x.ndim != 4:
        return x
    for name in names.split(","):
        x = _AUGMENTATIONS[name](x, rng, options)
    return x


def _uniform(x: Tensor, n: int, rng: Generator) -> tuple[Tensor, ...]:
    """Sample n numbers in [0, 1) per image, (B, 1, 1, 1) each."""
    return tuple(uniform((n, len(x), 1, 1, 1), x, rng))


def _source(side: int, n: int, device: torch.device, rng: Generator, max_shift: float) -> Tensor:
    """Return the source row or column in the padded image of each row or column after a random shift: (n, side)."""
    limit = int(max_shift * side)
    offset = torch.randint(-limit, limit + 1, (n, 1), generator=rng, device=rng.device).to(device)
    return (torch.arange(side, device=device) + offset + 1).clamp(0, side + 1)


def _inside(side: int, u: Tensor, hole_size: float) -> Tensor:
    """Return a mask (B, side) of the rows or columns in the hole centered at the fractions u (B, 1)."""
    center = u * side
    return (torch.arange(side, device=u.device) + 0.5 - center).abs() <= hole_size * side / 2
