"""Images as PNG data URIs: single ones, strips of several, and pairs one above the other."""

from __future__ import annotations

import base64
import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from likely.reporting.html.blocks import ReportImage

_TINY = 48  # up to here an image is drawn with visible pixels, above it is a photograph
_MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}

Pixels = NDArray[np.uint8]


def report_image(image: Pixels, alt: str, edge: int, caption: tuple[str, ...] = ()) -> ReportImage:
    """One image (C, H, W) about `edge` CSS pixels high, with the words to stand under it."""
    small = _reduced(image, edge)
    return _shown(small, alt, _zoom(small, edge))._replace(caption=caption)


def row(images: Pixels, alt: str, edge: int) -> ReportImage:
    """Images (N, C, H, W) side by side, about `edge` CSS pixels high, as one picture."""
    small = np.stack([_reduced(image, edge) for image in images])
    gap = np.zeros((small.shape[1] + 1, small.shape[2], _gap(small)), dtype=np.uint8)
    parts = [part for image in small for part in (_opaque(image), gap)]
    return _shown(np.concatenate(parts[:-1], axis=2), alt, _zoom(small[0], edge))


def pair(upper: Pixels, lower: Pixels, alt: str, edge: int) -> ReportImage:
    """Two images (C, H, W), one above the other, each about `edge` CSS pixels high."""
    small = np.stack([_reduced(upper, edge), _reduced(lower, edge)])
    gap = np.zeros((small.shape[1] + 1, _gap(small), small.shape[3]), dtype=np.uint8)
    both = np.concatenate([_opaque(small[0]), gap, _opaque(small[1])], axis=1)
    return _shown(both, alt, _zoom(small[0], edge))


def png_uri(image: Pixels) -> str:
    """(C, H, W) uint8 with 1 to 4 channels -> data:image/png;base64,…"""
    mode = _MODES[image.shape[0]]
    pixels = image[0] if mode == "L" else np.ascontiguousarray(image.transpose(1, 2, 0))
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


def _shown(image: Pixels, alt: str, zoom: float) -> ReportImage:
    width, height = round(image.shape[2] * zoom), round(image.shape[1] * zoom)
    return ReportImage(png_uri(image), alt, width, height, tiny=zoom > 1.5)


def _zoom(image: Pixels, edge: int) -> float:
    """How much larger an image is shown: a tiny one a whole number of times, others to just `edge`."""
    height: int = image.shape[1]
    return max(1, round(edge / height)) if height <= _TINY else edge / height


def _reduced(image: Pixels, edge: int) -> Pixels:
    """An image much larger than it is shown, made smaller: a report is looked at, not measured."""
    if image.shape[1] <= 1.5 * edge:
        return image
    size = (round(image.shape[2] * edge / image.shape[1]), edge)
    channels = [np.asarray(Image.fromarray(channel).resize(size, Image.Resampling.LANCZOS)) for channel in image]
    return np.stack(channels)


def _gap(images: Pixels) -> int:
    """A twelfth of an image, at least one pixel."""
    width: int = images.shape[3]
    return max(1, width // 12)


def _opaque(image: Pixels) -> Pixels:
    """The image with a channel of full opacity, so that the gaps beside it can be transparent."""
    return np.concatenate([image, np.full((1, *image.shape[1:]), 255, dtype=np.uint8)])
