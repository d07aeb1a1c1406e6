"""Image grids: labeled rows of images, one per class or per interpolation, for one or several models side by side.

The background is transparent and the text gray, so that a grid fits light and dark pages.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from likely.exceptions import InvalidValueError
from likely.reporting.images.image_layout import Pixels, TextRenderer, blank, factor_for, gap, hstack, pad, row, vstack

Panels = Mapping[str, Sequence[Pixels]]
Ends = Sequence[tuple[str, str]]

EDGE, SMALL_EDGE = 96, 64  # pixels: small images are enlarged to about this side, in grids of few or of many rows
MAX_LABELED_ROWS = 20  # more rows form several columns
MAX_WIDTH = 2000  # pixels of a grid with several columns
ROW_LENGTH = 10  # images; more form several rows
MAX_NAME_LENGTH = 9  # ems
TRANSPARENT_FORMATS = (".png", ".webp", ".tif", ".tiff")


def grid_by_class(panels: Panels, names: Sequence[str]) -> Image.Image:
    """Compose a row for each class with its name at the left, and panels side by side, each under its title.

    A panel, for example of one model, holds uint8 images (n, C, H, W) for each class in the order of `names`. Titles and
    names may be empty. Raise InvalidValueError if a panel does not have a row for each name.
    """
    return _composed(panels, [(name, "") for name in names])


def grid(images: Pixels, title: str = "") -> Image.Image:
    """Arrange uint8 images (n, C, H, W) in a grid under a title."""
    columns = _columns(len(images))
    rows = [images[start : start + columns] for start in range(0, len(images), columns)]
    return grid_by_class({title: rows}, [""] * len(rows))


def labeled_rows(rows: Sequence[Pixels], ends: Ends) -> Image.Image:
    """Compose rows of uint8 images (n, C, H, W), each between the names of its two ends."""
    return _composed({"": rows}, ends)


def opaque(image: Image.Image) -> Image.Image:
    """Put a transparent image on white, for file formats without transparency."""
    background = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(background, image.convert("RGBA")).convert(image.mode.removesuffix("A"))


def _columns(n: int) -> int:
    """Return about twice as many columns as rows, with a full last row if possible."""
    if n <= ROW_LENGTH:
        return max(1, n)
    full = [columns for columns in range(math.isqrt(4 * n), math.isqrt(n), -1) if n % columns == 0]
    return full[0] if full else math.ceil(math.sqrt(2 * n))


def _composed(panels: Panels, ends: Ends) -> Image.Image:
    _check(panels, ends)
    images = [images for rows in panels.values() for images in rows]
    edge = EDGE if len(ends) <= MAX_LABELED_ROWS else SMALL_EDGE
    layout = _Layout.for_images(images, edge, [*panels, *(name for pair in ends for name in pair)])
    image = layout.grid({title: [row(images, edge) for images in rows] for title, rows in panels.items()}, ends)
    return image.convert("LA") if all(row.shape[1] == 1 for row in images) else image


def _check(panels: Panels, ends: Ends) -> None:
    if not panels or not ends:
        raise InvalidValueError("no images; expected at least one row")
    for title, rows in panels.items():
        if len(rows) != len(ends):
            raise InvalidValueError(f"panel {title!r} has {len(rows)} rows; expected {len(ends)}, one per name")


@dataclass(frozen=True)
class _Layout:
    """The gap between images and the text size of a grid."""

    gap: int
    renderer: TextRenderer

    @classmethod
    def for_images(cls, images: Sequence[Pixels], edge: int, names: Sequence[str]) -> _Layout:
        """Choose both in proportion to the largest image, as enlarged for `edge`."""
        side = max((factor_for(row, edge) * max(row.shape[2:]) for row in images), default=edge)
        return cls(gap(side), TextRenderer.for_texts(names, int(np.clip(side // 4, 16, 40))))

    def grid(self, panels: Mapping[str, Sequence[Image.Image]], ends: Ends) -> Image.Image:
        """Compose rows between their names, in as many columns as fit, with a margin."""
        left, right = (self._names([pair[side] for pair in ends]) for side in (0, 1))
        widths = [max(self._width([title]), *(row.width for row in rows)) for title, rows in panels.items()]
        head = self._row(blank((left[0].width, 0)), self._titles(list(panels), widths), blank((right[0].width, 0)))
        aligned = [
            [pad(row, (width, row.height)) for row in rows] for rows, width in zip(panels.values(), widths, strict=True)
        ]
        rows = [self._row(*cells) for cells in zip(left, zip(*aligned, strict=True), right, strict=True)]
        return self._framed(self._in_columns(head, rows))

    def _names(self, names: Sequence[str]) -> list[Image.Image]:
        """Render the names of all rows with the width of the longest."""
        width = self._width(names)
        return [self._line(name, width) for name in names]

    def _width(self, names: Sequence[str]) -> int:
        return min(MAX_NAME_LENGTH * self.renderer.size, max(map(self.renderer.width, names)))

    def _titles(self, titles: Sequence[str], widths: Sequence[int]) -> list[Image.Image]:
        if not any(titles):
            return [blank((width, 0)) for width in widths]
        return [self._line(title, width) for title, width in zip(titles, widths, strict=True)]

    def _line(self, text: str, width: int) -> Image.Image:
        return self.renderer.image(text, (width, round(1.5 * self.renderer.size)))

    def _row(self, left: Image.Image, panels: Sequence[Image.Image], right: Image.Image) -> Image.Image:
        return hstack([left, hstack(panels, 4 * self.gap), right], 2 * self.gap)

    def _in_columns(self, head: Image.Image, rows: Sequence[Image.Image]) -> Image.Image:
        """Stack all rows; many of them in columns of about the same length, each under the head."""
        space = 6 * self.gap
        n = max(1, min(-(-len(rows) // MAX_LABELED_ROWS), (MAX_WIDTH + space) // (rows[0].width + space)))
        length = -(-len(rows) // n)
        columns = [vstack([head, *rows[start : start + length]], self.gap) for start in range(0, len(rows), length)]
        return hstack([pad(column, (column.width, columns[0].height)) for column in columns], space)

    def _framed(self, image: Image.Image) -> Image.Image:
        margin = 2 * self.gap
        return pad(image, (image.width + 2 * margin, image.height + 2 * margin), (margin, margin))
