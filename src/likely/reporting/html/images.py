"""Images as PNG data URIs: single images, rows, and pairs one above the other."""

from __future__ import annotations

import base64
import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from likely.reporting.html.blocks import ReportImage

_TINY = 48  # pixels: smaller images are shown with visible pixels
_MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}

Pixels = NDArray[np.uint8]


def report_image(image: Pixels, alt: str, edge: int, caption: tuple[str, ...] = ()) -> ReportImage:
    """Encode an image (C, H, W), about `edge` CSS pixels high, with caption lines."""
    small = _reduced(image, edge)
    return _encoded(small, alt, _zoom(small, edge))._replace(caption=caption)


def image_row(images: Pixels, alt: str, edge: int) -> ReportImage:
    """Encode images (N, C, H, W) side by side, about `edge` CSS pixels high, as one image."""
    small = np.stack([_reduced(image, edge) for image in images])
    gap = np.zeros((small.shape[1] + 1, small.shape[2], _gap(small)), dtype=np.uint8)
    tiles = [tile for image in small for tile in (_opaque(image), gap)]
    return _encoded(np.concatenate(tiles[:-1], axis=2), alt, _zoom(small[0], edge))


def image_pair(upper: Pixels, lower: Pixels, alt: str, edge: int) -> ReportImage:
    """Encode two images (C, H, W), one above the other, each about `edge` CSS pixels high."""
    small = np.stack([_reduced(upper, edge), _reduced(lower, edge)])
    gap = np.zeros((small.shape[1] + 1, _gap(small), small.shape[3]), dtype=np.uint8)
    both = np.concatenate([_opaque(small[0]), gap, _opaque(small[1])], axis=1)
    return _encoded(both, alt, _zoom(small[0], edge))


def _png_uri(image: Pixels) -> str:
    """Return a data URI of uint8 pixels (C, H, W) with 1 to 4 channels."""
    mode = _MODES[image.shape[0]]
    pixels = image[0] if mode == "L" else np.ascontiguousarray(image.transpose(1, 2, 0))
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


def _encoded(image: Pixels, alt: str, zoom: float) -> ReportImage:
    width, height = round(image.shape[2] * zoom), round(image.shape[1] * zoom)
    return ReportImage(_png_uri(image), alt, width, height, tiny=zoom > 1.5)


def _zoom(image: Pixels, edge: int) -> float:
    """Return the display scale: an integer for tiny images, exactly `edge` pixels for others."""
    height: int = image.shape[1]
    return max(1, round(edge / height)) if height <= _TINY else edge / height


def _reduced(image: Pixels, edge: int) -> Pixels:
    """Downscale an image that is much larger than its display size, to keep the report small."""
    if image.shape[1] <= 1.5 * edge:
        return image
    size = (round(image.shape[2] * edge / image.shape[1]), edge)
    channels = [np.asarray(Image.fromarray(channel).resize(size, Image.Resampling.LANCZOS)) for channel in image]
    return np.stack(channels)


def _gap(images: Pixels) -> int:
    """Return a twelfth of the image width, at least one pixel."""
    width: int = images.shape[3]
    return max(1, width // 12)


def _opaque(image: Pixels) -> Pixels:
    """Add an opaque alpha channel, so that the gaps beside the image can be transparent."""
    return np.concatenate([image, np.full((1, *image.shape[1:]), 255, dtype=np.uint8)])
