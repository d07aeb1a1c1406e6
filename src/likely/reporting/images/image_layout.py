"""Image layout: rows and stacks of images on a transparent background."""

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

TRANSPARENT = (*INK, 0)  # transparent text color, which avoids fringes around text when the image is downscaled
SUPERSAMPLING = 4  # of rounded corners


def row(images: Pixels, edge: int) -> Image.Image:
    """Put images (n, C, H, W) in a row, small ones enlarged by an integer factor to about `edge` pixels."""
    factor = factor_for(images, edge)
    tiles = [_rounded(to_pil(image.repeat(factor, axis=1).repeat(factor, axis=2))) for image in images]
    return hstack(tiles, gap(factor * max(images.shape[2:])))


def factor_for(images: Pixels, edge: int) -> int:
    """Return the integer factor that brings the larger side of images closest to `edge` pixels, at least 1."""
    side: int = max(images.shape[2:])
    return max(1, round(edge / side))


def gap(side: int) -> int:
    """Return the gap between images: an eighth of their side, from 4 to 16 pixels."""
    return int(np.clip(side // 8, 4, 16))


def hstack(images: Sequence[Image.Image], space: int) -> Image.Image:
    """Put images from left to right, vertically centered; images without width take no space."""
    shown = [image for image in images if image.width]
    height = max((image.height for image in images), default=0)
    whole = blank((sum(image.width + space for image in shown) - space if shown else 0, height))
    left = 0
    for image in shown:
        whole.paste(image, (left, (height - image.height) // 2))
        left += image.width + space
    return whole


def vstack(images: Sequence[Image.Image], space: int) -> Image.Image:
    """Put images from top to bottom, aligned at the left; images without height take no space."""
    shown = [image for image in images if image.height]
    width = max((image.width for image in images), default=0)
    whole = blank((width, sum(image.height + space for image in shown) - space if shown else 0))
    top = 0
    for image in shown:
        whole.paste(image, (0, top))
        top += image.height + space
    return whole


def pad(image: Image.Image, size: Size, at: Size = (0, 0)) -> Image.Image:
    """Put an image on a transparent background of another size."""
    whole = blank(size)
    whole.paste(image, at)
    return whole


def blank(size: Size) -> Image.Image:
    """Return a transparent image of this width and height."""
    return Image.new("RGBA", size, TRANSPARENT)


def _rounded(image: Image.Image) -> Image.Image:
    image = image.convert("RGBA")
    image.putalpha(_corners(image.size))
    return image


@cache
def _corners(size: Size) -> Image.Image:
    """Return the mask of a rectangle with rounded corners, of a radius of a twenty-fourth of its side."""
    width, height = SUPERSAMPLING * size[0], SUPERSAMPLING * size[1]
    mask = Image.new("L", (width, height), 0)
    ImageDraw.Draw(mask).rounded_rectangle((0, 0, width - 1, height - 1), SUPERSAMPLING * min(size) // 24, fill=255)
    return mask.resize(size, Image.Resampling.BOX)
