"""Random changes to training images, from uniform numbers given per image: the same numbers, the same images."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from likely.networks.pixel_scaling import to_eight_bit, to_unit
from likely.training.options import AugmentOptions

ASPECT = 3.0  # of a hidden rectangle's sides, at most
N_UNIFORMS = 15  # what one image's changes take, whichever are on, so that one option leaves the others' draws alone


def augment(images: Tensor, u: Tensor, options: AugmentOptions) -> Tensor:
    """Changed copies of uint8 images: (B, C, H, W) and uniforms (B, N_UNIFORMS) -> (B, C, H, W) uint8."""
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
    return to_eight_bit(x)  # the nearest 8-bit image: the discretized likelihoods know no values in between


def _shift_and_flip(images: Tensor, u: Tensor, options: AugmentOptions) -> Tensor:
    """Move whole pixels, so that every value stays one of the image's own."""
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
    """For each image the source of every row or column, (B, side): all shifts up to the largest are equally likely."""
    largest = round(fraction * side)
    shift = (u * (2 * largest + 1)).long() - largest
    return (torch.arange(side, device=u.device) + shift[:, None]).clamp(0, side - 1)


def _warp(x: Tensor, u: Tensor, options: AugmentOptions) -> Tensor:
    """Rotate, scale and crop in one interpolation."""
    signed = 2 * u - 1
    angle = signed[:, 0] * math.radians(options.rotate)
    size = 1 / (1 + signed[:, 1] * options.scale)
    kept = (1 - u[:, 2] * options.crop).sqrt()
    aspect = x.shape[3] / x.shape[2]
    cos, sin = angle.cos() * size * kept, angle.sin() * size * kept
    center = (1 - kept)[:, None] * signed[:, 3:5]
    theta = torch.stack([cos, -sin / aspect, center[:, 0], sin * aspect, cos, center[:, 1]], 1).view(-1, 2, 3)
    grid = F.affine_grid(theta, list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, padding_mode="border", align_corners=False)


def _recolor(x: Tensor, u: Tensor, strength: float) -> Tensor:
    """Contrast about the image's mean, brightness, and saturation about each pixel's gray."""
    change = (1 + strength * (2 * u - 1))[:, :, None, None, None]  # (B, 3, 1, 1, 1)
    gray = x.mean(1, keepdim=True)
    x = gray + change[:, 2] * (x - gray)
    mean = x.mean((1, 2, 3), keepdim=True)
    return ((mean + change[:, 1] * (x - mean)) * change[:, 0]).clamp(0, 1)


def fill_masked(x: Tensor, observed: Tensor) -> Tensor:
    """Images with the mean color of what is observed, (B, H, W) bool, wherever nothing is: (B, C, H, W) -> the same."""
    seen = observed[:, None].to(x.dtype)
    mean = (x * seen).sum((2, 3), keepdim=True) / seen.sum((2, 3), keepdim=True).clamp_min(1)
    return torch.where(observed[:, None], x, mean)


def _rectangles(u: Tensor, size: Sequence[int], largest: float) -> Tensor:
    """A rectangle an image, of up to that share of it, of any place and of sides up to 3 to 1 (Zhong 2020): (B, H, W)."""
    share, aspect = (u[:, 0] * largest).sqrt(), ASPECT ** (u[:, 1] - 0.5)
    inside = []
    for side, length, at in zip(size, (share * aspect, share / aspect), (u[:, 2], u[:, 3]), strict=True):
        length = length.clamp_max(1) * side
        start = at * (side - length)
        middles = torch.arange(side, device=u.device) + 0.5
        inside.append((middles >= start[:, None]) & (middles < (start + length)[:, None]))
    return inside[0][:, :, None] & inside[1][:, None, :]
