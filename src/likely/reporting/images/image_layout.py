"""Image layout: rows, stacks and text, in any script, as images on a transparent background."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from likely.data.preprocessing import to_pil
from likely.reporting.formatting import shorten

Pixels = NDArray[np.uint8]
Size = tuple[int, int]
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

INK = (118, 118, 118)  # perceptually halfway between black and white: legible on dark and on light pages
TRANSPARENT = (*INK, 0)  # transparent text color, which avoids fringes around text when the image is downscaled
SUPERSAMPLING = 4  # of rounded corners
STROKE = 0.25  # pixels: thin gray letters need a little more weight
# The font of Pillow has few letters besides English ones. For others, common system fonts, if installed.
FONTS = (
    "NotoSans-Regular.ttf",
    "DejaVuSans.ttf",
    "Arial.ttf",
    "NotoSansCJK-Regular.ttc",
    "msyh.ttc",
    "Arial Unicode.ttf",
)
_NONCHARACTER = "\uffff"  # every font renders it as its sign for missing letters


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


# --- text -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TextRenderer:
    """A font at a size in pixels, with replacements for letters that it lacks."""

    font: Font
    size: int
    replacements: Mapping[int, str]

    @classmethod
    def for_texts(cls, texts: Iterable[str], size: int) -> TextRenderer:
        """Choose the first font with all letters of the texts, else the font that lacks the fewest.

        Missing letters lose their accents.
        """
        letters = set("".join(texts))
        font, missing = min(_fonts(letters, size), key=lambda candidate: len(candidate[1]))
        return cls(font, size, {ord(letter): _without_accents(letter) for letter in missing})

    def width(self, name: str) -> int:
        """Return the width of a name in pixels."""
        return math.ceil(self.font.getlength(self._replaced(name)) + 2 * STROKE) if name else 0

    def fitted(self, name: str, width: int) -> str:
        """Shorten a name with an ellipsis until it fits the width."""
        candidates = (shorten(name, limit) for limit in range(len(name), 0, -1))
        return next((text for text in candidates if self.width(text) <= width), "")

    def image(self, name: str, size: tuple[int, int]) -> Image.Image:
        """Render the name at the left of a transparent image of this width and height, vertically centered."""
        image = Image.new("RGBA", size, (*INK, 0))
        text = self._replaced(self.fitted(name, size[0]))
        position = (STROKE, size[1] / 2)
        ImageDraw.Draw(image).text(position, text, (*INK, 255), self.font, anchor="lm", stroke_width=STROKE)
        return image

    def _replaced(self, name: str) -> str:
        return " ".join(name.split()).translate(self.replacements)


def _fonts(letters: Iterable[str], size: int) -> Iterator[tuple[Font, list[str]]]:
    """Yield the font of Pillow and, if it lacks letters, installed system fonts; each with its missing letters."""
    default = ImageFont.load_default(size)
    missing = _missing(default, letters)
    yield default, missing
    for name in FONTS if missing else ():
        try:
            font = ImageFont.truetype(name, size)
        except OSError:
            continue
        yield font, _missing(font, letters)


def _missing(font: Font, letters: Iterable[str]) -> list[str]:
    sign = _shape(font, _NONCHARACTER)
    return [letter for letter in letters if not letter.isspace() and _shape(font, letter) == sign]


def _shape(font: Font, letter: str) -> tuple[tuple[int, int], bytes]:
    mask = font.getmask(letter)
    return mask.size, bytes(mask)


def _without_accents(letter: str) -> str:
    """Decompose a letter and drop its accents.

    >>> _without_accents("é"), _without_accents("ﬁ"), _without_accents("猫")
    ('e', 'fi', '猫')
    """
    return "".join(c for c in unicodedata.normalize("NFKD", letter) if not unicodedata.combining(c))
