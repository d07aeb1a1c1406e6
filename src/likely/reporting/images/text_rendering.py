"""Lettering: names as pictures of text, in whatever alphabet they are written, shortened to the room there is."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

from likely.reporting.formatting import shorten

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

INK = (118, 118, 118)  # half way between black and white to the eye: as legible on a dark page as on a light one
STROKE = 0.25  # pixels: thin gray letters ask for a little more weight
# Pillow's own face has hardly more than English letters. For others, faces that systems usually have; none need be there.
FACES = (
    "NotoSans-Regular.ttf",
    "DejaVuSans.ttf",
    "Arial.ttf",
    "NotoSansCJK-Regular.ttc",
    "msyh.ttc",
    "Arial Unicode.ttf",
)
_NO_LETTER = "\uffff"  # never a letter: every face draws its sign for a missing one


@dataclass(frozen=True)
class TextRenderer:
    """A face at a size in pixels, and how the letters that it lacks are spelled."""

    font: Font
    size: int
    spelling: Mapping[int, str]

    @classmethod
    def of(cls, names: Iterable[str], size: int) -> TextRenderer:
        """The first face with every letter of the names, else the one that lacks the fewest, with those less their accents."""
        letters = set("".join(names))
        font, lacking = min(_faces(letters, size), key=lambda face: len(face[1]))
        return cls(font, size, {ord(letter): _plain(letter) for letter in lacking})

    def width(self, name: str) -> int:
        """How wide a name is, in pixels."""
        return math.ceil(self.font.getlength(self._spelled(name)) + 2 * STROKE) if name else 0

    def fitted(self, name: str, width: int) -> str:
        """The name, with an ellipsis for what a width has no room for."""
        shorter = (shorten(name, limit) for limit in range(len(name), 0, -1))
        return next((words for words in shorter if self.width(words) <= width), "")

    def image(self, name: str, size: tuple[int, int]) -> Image.Image:
        """The name on a clear ground of this width and height, at its left, half way up."""
        picture = Image.new("RGBA", size, (*INK, 0))
        words = self._spelled(self.fitted(name, size[0]))
        place = (STROKE, size[1] / 2)
        ImageDraw.Draw(picture).text(place, words, (*INK, 255), self.font, anchor="lm", stroke_width=STROKE)
        return picture

    def _spelled(self, name: str) -> str:
        return " ".join(name.split()).translate(self.spelling)


def _faces(letters: Iterable[str], size: int) -> Iterator[tuple[Font, list[str]]]:
    """Pillow's own face and, if need be, those that this machine has; each with the letters that it lacks."""
    own = ImageFont.load_default(size)
    lacking = _lacking(own, letters)
    yield own, lacking
    for name in FACES if lacking else ():
        try:
            font = ImageFont.truetype(name, size)
        except OSError:
            continue
        yield font, _lacking(font, letters)


def _lacking(font: Font, letters: Iterable[str]) -> list[str]:
    sign = _shape(font, _NO_LETTER)
    return [letter for letter in letters if not letter.isspace() and _shape(font, letter) == sign]


def _shape(font: Font, letter: str) -> tuple[tuple[int, int], bytes]:
    mask = font.getmask(letter)
    return mask.size, bytes(mask)


def _plain(letter: str) -> str:
    """
    >>> _plain("é"), _plain("ﬁ"), _plain("猫")
    ('e', 'fi', '猫')
    """
    return "".join(part for part in unicodedata.normalize("NFKD", letter) if not unicodedata.combining(part))
