"""PNG encoding of pixels, raw or in base64."""

from __future__ import annotations

import base64
from io import BytesIO

from likely.data.decoding import Array
from likely.data.preprocessing import to_pil


def png(pixels: Array) -> bytes:
    """Encode uint8 pixels (C, H, W) as PNG."""
    file = BytesIO()
    to_pil(pixels).save(file, "PNG")
    return file.getvalue()


def encoded(pixels: Array) -> str:
    """Encode pixels as PNG in base64, for JSON."""
    return base64.b64encode(png(pixels)).decode("ascii")
