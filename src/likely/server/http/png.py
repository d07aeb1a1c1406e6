"""Pictures over the wire: pixels as PNG, and as base64 within JSON."""

from __future__ import annotations

import base64
from io import BytesIO

from likely.data.decoding import Array
from likely.data.preprocessing import to_pil


def png(pixels: Array) -> bytes:
    """uint8 (C, H, W)."""
    file = BytesIO()
    to_pil(pixels).save(file, "PNG")
    return file.getvalue()


def encoded(pixels: Array) -> str:
    """A PNG in base64, for JSON."""
    return base64.b64encode(png(pixels)).decode("ascii")
