"""Augmentation of training images as a deterministic function of uniform numbers per image."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from likely.base import to_eight_bit, to_unit
from likely.training.options import AugmentOptions

N_UNIFORMS = 15  # per image, whichever options are on, so that an option does not change the random numbers of another


def augment(images: Tensor, u: Tensor, options: AugmentOptions) -> Tensor:
    """Augment uint8 images (B, C, H, W) by uniform numbers (B, N_UNIFORMS) -> (B, C, H, W) uint8."""
    u = u.to(images.device)
    images = _shift_and_flip(images, u[:, :3], options)
    if not (options.rotate or options.scale or options.crop or options.color or options.erase):
        return images
    x = to_unit(images)
    if options.rotate or options.scale or options.crop:
        x = _warp(x, u[:, 3:8], options)
    if options.color:
        x = _recolor(x, u[:, 8:11], options.color)
    if options.erase:
        x = fill_masked(x, ~_rectangles(u[:, 11:15], x.shape[2:], options.erase))
    return to_eight_bit(x)  # discretized likelihoods are defined on 8-bit values


def _shift_and_flip(images: Tensor, u: Tensor, options: AugmentOptions) -> Tensor:
    """Shift and mirror by whole pixels, which preserves pixel values."""
    if not (options.shift or options.flip):
        return images
    B, _, H, W = images.shape
    rows = _shifted(u[:, 0], H, options.shift)
    columns = _shifted(u[:, 1], W, options.shift)
    if options.flip:
        columns = torch.where(u[:, 2:3] < 0.5, W - 1 - columns, columns)
    batch = torch.arange(B, device=images.device)[:, None, None]
    channels_last = images.permute(0, 2, 3, 1)
    return channels_last[batch, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def _shifted(u: Tensor, side: int, fraction: float) -> Tensor:
    """Return the source of every row or column per image, (B, side), for uniformly distributed shifts."""
    limit = round(fraction * side)
    shift = (u * (2 * limit + 1)).long() - limit
    return (torch.arange(side, device=u.device) + shift[:, None]).clamp(0, side - 1)


def _warp(x: Tensor, u: Tensor, options: AugmentOptions) -> Tensor:
    """Rotate, scale and crop with a single interpolation."""
    signed = 2 * u - 1
    angle = signed[:, 0] * math.radians(options.rotate)
    size = 1 / (1 + signed[:, 1] * options.scale)
    crop_side = (1 - u[:, 2] * options.crop).sqrt()
    aspect = x.shape[3] / x.shape[2]
    cos, sin = angle.cos() * size * crop_side, angle.sin() * size * crop_side
    center = (1 - crop_side)[:, None] * signed[:, 3:5]
    theta = torch.stack([cos, -sin / aspect, center[:, 0], sin * aspect, cos, center[:, 1]], 1).view(-1, 2, 3)
    grid = F.affine_grid(theta, list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, padding_mode="border", align_corners=False)


def _recolor(x: Tensor, u: Tensor, strength: float) -> Tensor:
    """Change brightness, contrast about the image mean, and saturation about the gray value of each pixel."""
    change = (1 + strength * (2 * u - 1))[:, :, None, None, None]  # (B, 3, 1, 1, 1)
    gray = x.mean(1, keepdim=True)
    x = gray + change[:, 2] * (x - gray)
    mean = x.mean((1, 2, 3), keepdim=True)
    return ((mean + change[:, 1] * (x - mean)) * change[:, 0]).clamp(0, 1)


def fill_masked(x: Tensor, observed: Tensor) -> Tensor:
    """Replace hidden pixels of images (B, C, H, W) by the mean color of the `observed` ones, (B, H, W) bool."""
    weight = observed[:, None].to(x.dtype)
    mean = (x * weight).sum((2, 3), keepdim=True) / weight.sum((2, 3), keepdim=True).clamp_min(1)
    return torch.where(observed[:, None], x, mean)


def _rectangles(u: Tensor, size: Sequence[int], max_area: float, max_aspect_ratio: float = 3.0) -> Tensor:
    """Return one random rectangle per image, its area relative to the image's (Zhong 2020): (B, H, W) bool."""
    area_side, aspect = (u[:, 0] * max_area).sqrt(), max_aspect_ratio ** (u[:, 1] - 0.5)
    inside_axis = []
    for side, length, position in zip(size, (area_side * aspect, area_side / aspect), (u[:, 2], u[:, 3]), strict=True):
        length = length.clamp_max(1) * side
        start = position * (side - length)
        pixel_centers = torch.arange(side, device=u.device) + 0.5
        inside_axis.append((pixel_centers >= start[:, None]) & (pixel_centers < (start + length)[:, None]))
    return inside_axis[0][:, :, None] & inside_axis[1][:, None, :]
