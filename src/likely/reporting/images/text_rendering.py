"""Text rendering: names in any script as images, shortened to the available width."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

from likely.reporting.formatting import shorten

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

INK = (118, 118, 118)  # perceptually halfway between black and white: legible on dark and on light pages
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
