"""Sheets: many images on one picture, in rows with names: the classes, several models side by side, or walks.

The ground is clear and the names are gray, so that a sheet does on a light page and on a dark one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from likely.exceptions import InvalidValueError
from likely.reporting.images.image_layout import blank, factor_for, gap, hstack, pad, row, vstack
from likely.reporting.images.text_rendering import TextRenderer

Pixels = NDArray[np.uint8]
Panels = Mapping[str, Sequence[Pixels]]
Ends = Sequence[tuple[str, str]]

EDGE, SMALL_EDGE = 96, 64  # pixels a side: small images are enlarged to about this, on a sheet of few rows or of many
MAX_LABELED_ROWS = 20  # rows; more than these stand in several columns
MAX_WIDTH = 2000  # pixels: what columns beside the first may come to
LINE = 10  # images; more than these of a single kind stand in several lines
MAX_NAME_LENGTH = 9  # of a name, in ems
TRANSPARENT_FORMATS = (".png", ".webp", ".tif", ".tiff")  # kinds of file that know a clear ground


def grid_by_class(panels: Panels, names: Sequence[str]) -> Image.Image:
    """A row for each class with its name at the left, and panels side by side, each under its title.

    A panel, a model's say, is an array of images for each class in the order of `names`: (n, C, H, W) uint8, or all in one,
    (K, n, C, H, W). A title or a name may be empty. A ValueError if a panel has not a row for each name.
    """
    return _composed(panels, [(name, "") for name in names])


def grid(images: Pixels, title: str = "") -> Image.Image:
    """Images of one kind, (n, C, H, W) uint8, in as many lines as look well, under a title."""
    columns = _columns(len(images))
    lines = [images[start : start + columns] for start in range(0, len(images), columns)]
    return grid_by_class({title: lines}, [""] * len(lines))


def labeled_rows(rows: Sequence[Pixels], ends: Ends) -> Image.Image:
    """A row of images, (n, C, H, W) uint8, for each walk, between the names of its two ends."""
    return _composed({"": rows}, ends)


def opaque(picture: Image.Image) -> Image.Image:
    """A sheet on white, for the other kinds of file."""
    paper = Image.new("RGBA", picture.size, "white")
    return Image.alpha_composite(paper, picture.convert("RGBA")).convert(picture.mode.removesuffix("A"))


def _columns(n: int) -> int:
    """About twice as many columns as lines, and if possible so that the last line is full."""
    if n <= LINE:
        return max(1, n)
    full = [columns for columns in range(math.isqrt(4 * n), math.isqrt(n), -1) if n % columns == 0]
    return full[0] if full else math.ceil(math.sqrt(2 * n))


def _composed(panels: Panels, ends: Ends) -> Image.Image:
    _check(panels, ends)
    images = [images for rows in panels.values() for images in rows]
    edge = EDGE if len(ends) <= MAX_LABELED_ROWS else SMALL_EDGE
    layout = _Layout.of(images, edge, [*panels, *(name for pair in ends for name in pair)])
    picture = layout.sheet({title: [row(images, edge) for images in rows] for title, rows in panels.items()}, ends)
    return picture.convert("LA") if all(row.shape[1] == 1 for row in images) else picture


def _check(panels: Panels, ends: Ends) -> None:
    if not panels or not ends:
        raise InvalidValueError("there are no images to show; at least one row of them was expected")
    for title, rows in panels.items():
        if len(rows) != len(ends):
            raise InvalidValueError(f"panel {title!r} has {len(rows)} rows of images for {len(ends)} names")


@dataclass(frozen=True)
class _Layout:
    """What a sheet is measured in: the space between two images, and the letters."""

    gap: int
    lettering: TextRenderer

    @classmethod
    def of(cls, images: Sequence[Pixels], edge: int, names: Sequence[str]) -> _Layout:
        """Both in proportion to the largest image, as enlarged for `edge`."""
        side = max((factor_for(row, edge) * max(row.shape[2:]) for row in images), default=edge)
        return cls(gap(side), TextRenderer.of(names, int(np.clip(side // 4, 16, 40))))

    def sheet(self, panels: Mapping[str, Sequence[Image.Image]], ends: Ends) -> Image.Image:
        """Strips between their names, in as many columns as there is room for, within a margin."""
        left, right = (self._names([pair[side] for pair in ends]) for side in (0, 1))
        widths = [max(self._width([title]), *(row.width for row in rows)) for title, rows in panels.items()]
        head = self._row(blank((left[0].width, 0)), self._titles(list(panels), widths), blank((right[0].width, 0)))
        aligned = [
            [pad(row, (width, row.height)) for row in rows] for rows, width in zip(panels.values(), widths, strict=True)
        ]
        rows = [self._row(*parts) for parts in zip(left, zip(*aligned, strict=True), right, strict=True)]
        return self._framed(self._in_columns(head, rows))

    def _names(self, names: Sequence[str]) -> list[Image.Image]:
        """The names of all rows, each as wide as the longest."""
        width = self._width(names)
        return [self._line(name, width) for name in names]

    def _width(self, names: Sequence[str]) -> int:
        return min(MAX_NAME_LENGTH * self.lettering.size, max(map(self.lettering.width, names)))

    def _titles(self, titles: Sequence[str], widths: Sequence[int]) -> list[Image.Image]:
        if not any(titles):
            return [blank((width, 0)) for width in widths]
        return [self._line(title, width) for title, width in zip(titles, widths, strict=True)]

    def _line(self, words: str, width: int) -> Image.Image:
        return self.lettering.image(words, (width, round(1.5 * self.lettering.size)))

    def _row(self, left: Image.Image, strips: Sequence[Image.Image], right: Image.Image) -> Image.Image:
        return hstack([left, hstack(strips, 4 * self.gap), right], 2 * self.gap)

    def _in_columns(self, head: Image.Image, rows: Sequence[Image.Image]) -> Image.Image:
        """All rows below each other; many of them in columns of about the same length, each under the head."""
        space = 6 * self.gap
        n = max(1, min(-(-len(rows) // MAX_LABELED_ROWS), (MAX_WIDTH + space) // (rows[0].width + space)))
        length = -(-len(rows) // n)
        columns = [vstack([head, *rows[start : start + length]], self.gap) for start in range(0, len(rows), length)]
        return hstack([pad(column, (column.width, columns[0].height)) for column in columns], space)

    def _framed(self, picture: Image.Image) -> Image.Image:
        margin = 2 * self.gap
        return pad(picture, (picture.width + 2 * margin, picture.height + 2 * margin), (margin, margin))
