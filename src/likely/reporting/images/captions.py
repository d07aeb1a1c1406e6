"""Rows of images under headings, each image with a caption if it has one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from likely.reporting.images.image_layout import factor_for, gap, hstack, pad, row, vstack
from likely.reporting.images.text_rendering import TextRenderer

Pixels = NDArray[np.uint8]  # (C, H, W)
Row = Sequence[tuple[Pixels, str]]  # images with their captions, of one line or more

EDGE = 112  # pixels a side, about: small images are enlarged to that
IN_A_ROW = 7


def captioned(blocks: Sequence[tuple[str, Row]]) -> Image.Image:
    """Headings, which may be empty, and at least one row of images of one size, on a clear ground."""
    first = blocks[0][1][0][0]
    edge = factor_for(first[None], EDGE) * max(first.shape[1:])
    words = [heading for heading, _ in blocks] + [
        caption for _, row in blocks for _, each in row for caption in each.splitlines()
    ]
    layout = _Layout(edge, TextRenderer.of(words, int(np.clip(edge // 6, 16, 28))))
    return layout.framed([layout.block(heading, row) for heading, row in blocks])


class _Layout:
    def __init__(self, edge: int, lettering: TextRenderer) -> None:
        self.edge, self.lettering, self.gap = edge, lettering, gap(edge)
        self.line = round(1.6 * lettering.size)
        self.width = IN_A_ROW * edge + (IN_A_ROW - 1) * self.gap

    def block(self, heading: str, row: Row) -> Image.Image:
        images = hstack([self._tile(*each) for each in row], self.gap)
        return vstack([self.lettering.image(heading, (self.width, self.line)), images], 0) if heading else images

    def framed(self, blocks: Sequence[Image.Image]) -> Image.Image:
        whole, margin = vstack(blocks, 2 * self.gap), 2 * self.gap
        return pad(whole, (max(whole.width, self.width) + 2 * margin, whole.height + 2 * margin), (margin, margin))

    def _tile(self, image: Pixels, caption: str) -> Image.Image:
        tile = row(image[None], self.edge)
        lines = [self.lettering.image(line, (tile.width, self.line)) for line in caption.splitlines()]
        return vstack([tile, *lines], 0)
