"""Tiling: pictures put beside and above each other on a clear ground."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from likely.data.preprocessing import to_pil
from likely.reporting.images.text_rendering import INK

Pixels = NDArray[np.uint8]
Size = tuple[int, int]

TRANSPARENT = (*INK, 0)  # of the ink's color: whoever shrinks a sheet gets no dark or bright fringe around its letters
SMOOTH = 4  # a corner is drawn so many times its size, then made smaller


def row(images: Pixels, edge: int) -> Image.Image:
    """Images (n, C, H, W) in a row, small ones enlarged by a whole factor to about `edge` pixels a side."""
    factor = factor_for(images, edge)
    tiles = [_rounded(to_pil(image.repeat(factor, axis=1).repeat(factor, axis=2))) for image in images]
    return hstack(tiles, gap(factor * max(images.shape[2:])))


def factor_for(images: Pixels, edge: int) -> int:
    """The whole factor that brings an image's larger side nearest to `edge` pixels; 1 if it is that large already."""
    side: int = max(images.shape[2:])
    return max(1, round(edge / side))


def gap(side: int) -> int:
    """The space between two images: an eighth of a small one's side, and no more than is needed to tell large ones apart."""
    return int(np.clip(side // 8, 4, 16))


def hstack(images: Sequence[Image.Image], space: int) -> Image.Image:
    """Pictures from left to right, their middles in line; those of no width take no space."""
    shown = [picture for picture in images if picture.width]
    height = max((picture.height for picture in images), default=0)
    whole = blank((sum(picture.width + space for picture in shown) - space if shown else 0, height))
    left = 0
    for picture in shown:
        whole.paste(picture, (left, (height - picture.height) // 2))
        left += picture.width + space
    return whole


def vstack(images: Sequence[Image.Image], space: int) -> Image.Image:
    """Pictures from top to bottom, their left sides in line."""
    shown = [picture for picture in images if picture.height]
    width = max((picture.width for picture in images), default=0)
    whole = blank((width, sum(picture.height + space for picture in shown) - space if shown else 0))
    top = 0
    for picture in shown:
        whole.paste(picture, (0, top))
        top += picture.height + space
    return whole


def pad(image: Image.Image, size: Size, at: Size = (0, 0)) -> Image.Image:
    """The picture on a clear ground of another size."""
    whole = blank(size)
    whole.paste(image, at)
    return whole


def blank(size: Size) -> Image.Image:
    """Nothing, of this width and height."""
    return Image.new("RGBA", size, TRANSPARENT)


def _rounded(image: Image.Image) -> Image.Image:
    image = image.convert("RGBA")
    image.putalpha(_corners(image.size))
    return image


@cache
def _corners(size: Size) -> Image.Image:
    """What is left of a rectangle when its corners are taken off: a twenty-fourth of its side."""
    width, height = SMOOTH * size[0], SMOOTH * size[1]
    mask = Image.new("L", (width, height), 0)
    ImageDraw.Draw(mask).rounded_rectangle((0, 0, width - 1, height - 1), SMOOTH * min(size) // 24, fill=255)
    return mask.resize(size, Image.Resampling.BOX)
