"""Pixels in and out: any image -> uint8 (C, H, W) of a model's own size, and back to a picture.

Training and serving both come through `read` with the same `ImageFormat`: a model is served what it was trained on.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
from PIL import Image
from pydantic import Field, field_validator, model_validator

from likely.data.decoding import Array, Mode, Source, decode, opacity, source_name, to_8bit
from likely.data.discovery import find_images as find_images
from likely.data.suggestions import did_you_mean
from likely.exceptions import ImageError, InvalidValueError
from likely.options import Options

Resize: TypeAlias = Literal["pad", "crop", "stretch"]
Color: TypeAlias = Literal["auto", "gray", "rgb"]
Size: TypeAlias = tuple[int, int]

LARGEST_SIDE = 4096
HALF = 128  # of 255
WRITABLE = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff")
# How far `reduce`, which is fast, may go before Lanczos: Pillow's own choice for results that look the same.
REDUCING_GAP = 3.0


class ImageOptions(Options):
    """What a user may ask of the images; what is left open is taken from the data."""

    size: Size | None = Field(
        default=None,
        description="height and width in pixels: 32, or 32x48 for 32 high and 48 wide; "
        "without it, the images' own size if all have one of at most 64, else 64",
    )
    resize: Resize = Field(
        default="pad",
        description="pad: the whole image, padded with its border's color; "
        "crop: fill, and cut what stands over; stretch: ignore the aspect",
    )
    center_crop_ratio: float = Field(
        default=1.0,
        ge=1,
        le=4,
        description="with crop: how many times larger than to fill the image is made before it is cut, for what is in the "
        "middle of a photograph",
    )
    color: Color = Field(default="auto", description="gray or rgb; auto: gray if the images are")

    @field_validator("size", mode="before")
    @classmethod
    def _parse_size(cls, value: object) -> object:
        sides = _sides(value)
        if sides is not None and not all(1 <= side <= LARGEST_SIDE for side in sides):
            raise InvalidValueError(f"{value!r} is out of range; sides from 1 to {LARGEST_SIDE} pixels were expected")
        return sides

    @model_validator(mode="after")
    def _agree(self) -> ImageOptions:
        if self.center_crop_ratio != 1 and self.resize != "crop":
            raise InvalidValueError(
                f"a center crop ratio of {self.center_crop_ratio:g} needs resize 'crop', not {self.resize!r}"
            )
        return self


class ImageFormat(Options):
    """What one model's images are: stored in the model, and applied to whatever it is shown."""

    channels: Literal[1, 3] = Field(description="1 for gray, 3 for red, green and blue")
    height: int = Field(ge=1, le=LARGEST_SIDE, description="pixels")
    width: int = Field(ge=1, le=LARGEST_SIDE, description="pixels")
    resize: Resize = Field(default="pad", description="how an image of another size or aspect is brought to this one")
    center_crop_ratio: float = Field(
        default=1.0, ge=1, description="with crop: how many times larger than to fill it is made"
    )

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        return self.channels, self.height, self.width

    @property
    def options(self) -> ImageOptions:
        """What asks for this format."""
        color: Color = "gray" if self.channels == 1 else "rgb"
        return ImageOptions(
            size=(self.height, self.width), resize=self.resize, center_crop_ratio=self.center_crop_ratio, color=color
        )

    @property
    def mode(self) -> Mode:
        """The Pillow mode of such an image."""
        return "L" if self.channels == 1 else "RGB"


def read_image(source: Source, format: ImageFormat, *, name: str | None = None) -> Array:
    """An image in the model's format: a path, bytes, a Pillow image or an array (H, W[, 1|3|4]) -> uint8 (C, H, W).

    An image that already has the size keeps its pixels bit for bit, and a JPEG that Pillow has opened but not yet decoded
    is read as its file would be. Raises ImageError; its message names the image.
    """
    name = source_name(source) if name is None else name
    if isinstance(source, np.ndarray):
        source = to_8bit(source, name)
        if source.shape == (format.height, format.width, *format.shape[: format.channels // 3]):
            return _channels_first(source)
    size = format.width, format.height
    image = decode(source, format.mode, size, name)
    return _channels_first(np.asarray(image if image.size == size else _brought_to(format, image)))


def read_mask(source: Source, format: ImageFormat, *, name: str | None = None) -> Array:
    """Which pixels of an image in the model's format are rather opaque: (H, W) bool; all, if it knows no transparency."""
    alpha = opacity(source, source_name(source) if name is None else name)
    if alpha is None:
        return np.ones((format.height, format.width), np.bool_)
    shown: Array = read_image(alpha, format.model_copy(update={"channels": 1}))[0] >= HALF
    return shown


def to_pil(pixels: Array) -> Image.Image:
    """uint8 (C, H, W) with C = 1 or 3, or (H, W) -> a picture."""
    if pixels.ndim == 3:
        pixels = pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0)
    return Image.fromarray(np.ascontiguousarray(pixels))


def write_image(path: str | Path, image: Image.Image | Array) -> None:
    """Save a picture, or uint8 (C, H, W) pixels, in the format that the file's name ends in; raises ImageError."""
    path = Path(path)
    picture = image if isinstance(image, Image.Image) else to_pil(image)
    if path.suffix.lower() not in WRITABLE:
        wanted = f"a name ending in {', '.join(WRITABLE)} was expected"
        raise ImageError(f"{path}: cannot be written; {wanted}{did_you_mean(path.suffix, WRITABLE)}")
    try:
        picture.save(path)
    except OSError as error:
        raise ImageError(f"{path}: cannot be written ({(error.strerror or str(error)).lower()})") from error


def _sides(value: object) -> tuple[int, int] | None:
    match value:
        case None:
            return None
        case int(side) if not isinstance(side, bool):
            return side, side
        case str() if digits := re.fullmatch(r"\s*(\d{1,9})\s*(?:[xX×]\s*(\d{1,9})\s*)?", value):
            return int(digits[1]), int(digits[2] or digits[1])
        case (int(height), int(width)) | [int(height), int(width)]:
            return height, width
    raise InvalidValueError(f"{value!r} is not understood; one number (32) or height x width (32x48) was expected")


def _brought_to(format: ImageFormat, image: Image.Image) -> Image.Image:
    size = format.width, format.height
    match format.resize:
        case "pad":
            return _fit(image, size)
        case "crop":
            return _crop(image, size, format.center_crop_ratio)
        case "stretch":
            return _scaled(image, size)


def _fit(image: Image.Image, size: Size) -> Image.Image:
    scale = min(size[0] / image.width, size[1] / image.height)
    inner = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    scaled = _scaled(image, inner)
    canvas = Image.new(image.mode, size, _border_color(np.asarray(scaled)))
    canvas.paste(scaled, ((size[0] - inner[0]) // 2, (size[1] - inner[1]) // 2))
    return canvas


def _crop(image: Image.Image, size: Size, zoom: float) -> Image.Image:
    scale = min(image.width / size[0], image.height / size[1]) / zoom
    width, height = size[0] * scale, size[1] * scale
    left, top = max(0, (image.width - width) / 2), max(0, (image.height - height) / 2)  # may round to just below 0
    box = (left, top, min(left + width, image.width), min(top + height, image.height))
    return image.resize(size, Image.Resampling.LANCZOS, box=box, reducing_gap=REDUCING_GAP)


def _scaled(image: Image.Image, size: Size) -> Image.Image:
    return image if image.size == size else image.resize(size, Image.Resampling.LANCZOS, reducing_gap=REDUCING_GAP)


def _border_color(pixels: Array) -> tuple[int, ...]:
    """The median of the outermost pixels, channel by channel: (H, W[, 3]) -> one value a channel."""
    edges = (pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1])
    return tuple(int(v) for v in np.atleast_1d(np.median(np.concatenate(edges), axis=0)))


def _channels_first(pixels: Array) -> Array:
    return np.array(pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1), order="C")
