"""Preprocessing of images to uint8 (C, H, W) in a model's format, and conversion back to Pillow images and files.

Training and prediction both call `read_image` with the same `ImageFormat`.
"""

from __future__ import annotations

import re
from io import BytesIO
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
from PIL import Image
from pydantic import Field, field_validator, model_validator

from likely.data.decoding import Array, Mode, Source, decode, opacity, source_name, to_8bit
from likely.exceptions import ImageError, InvalidValueError, did_you_mean
from likely.options import Options

Resize: TypeAlias = Literal["pad", "crop", "stretch"]
Color: TypeAlias = Literal["auto", "gray", "rgb"]
Resample: TypeAlias = Literal[
    "nearest", "lanczos", "bilinear", "bicubic", "box", "hamming"
]  # by Pillow's codes, 0 to 5
Size: TypeAlias = tuple[int, int]

MAX_SIDE = 4096
HALF = 128  # of 255: the threshold of masks
_WRITABLE = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff")
# Pillow's recommended ratio of the fast box reduction before a filter, with results close to the filter alone.
_REDUCING_GAP = 3.0


class ImageOptions(Options):
    """Requested size, resizing and color of images; unset options are inferred from the data."""

    size: Size | None = Field(
        default=None,
        description="height and width in pixels: 32, or 32x48 for 32 high and 48 wide; "
        "by default the images' own size if all have the same of at most 64, else 64",
    )
    resize: Resize = Field(
        default="pad",
        description="pad: the whole image, padded with its border's color; "
        "crop: scale to fill, then crop the center; stretch: ignore the aspect ratio",
    )
    center_crop_ratio: float = Field(
        default=1.0,
        ge=1,
        le=4,
        description="with crop: scale of the image before cropping, relative to the scale that fills the size; above 1 it "
        "keeps only the center of a photograph",
    )
    resample: Resample = Field(
        default="lanczos",
        description="filter of resizing, by Pillow's names; a backbone's own is the default of its features",
    )
    color: Color = Field(default="auto", description="gray or rgb; auto: gray if the images are")

    @field_validator("size", mode="before")
    @classmethod
    def _parse_size(cls, value: object) -> object:
        sides = _sides(value)
        if sides is not None and not all(1 <= side <= MAX_SIDE for side in sides):
            raise InvalidValueError(f"{value!r} is out of range; sides from 1 to {MAX_SIDE} pixels were expected")
        return sides

    @model_validator(mode="after")
    def _agree(self) -> ImageOptions:
        if self.center_crop_ratio != 1 and self.resize != "crop":
            raise InvalidValueError(
                f"a center crop ratio of {self.center_crop_ratio:g} needs resize 'crop', not {self.resize!r}"
            )
        return self


class ImageFormat(Options):
    """Format of a model's images, stored in the model folder and applied to every input."""

    channels: Literal[1, 3] = Field(description="1 for gray, 3 for red, green and blue")
    height: int = Field(ge=1, le=MAX_SIDE, description="pixels")
    width: int = Field(ge=1, le=MAX_SIDE, description="pixels")
    resize: Resize = Field(default="pad", description="resizing of images of another size or aspect ratio")
    center_crop_ratio: float = Field(
        default=1.0, ge=1, description="with crop: scale before cropping, relative to the scale that fills the size"
    )
    resample: Resample = Field(default="lanczos", description="filter of resizing, by Pillow's names")

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape (C, H, W)."""
        return self.channels, self.height, self.width

    @property
    def options(self) -> ImageOptions:
        """Options that request this format."""
        color: Color = "gray" if self.channels == 1 else "rgb"
        return ImageOptions(
            size=(self.height, self.width),
            resize=self.resize,
            center_crop_ratio=self.center_crop_ratio,
            resample=self.resample,
            color=color,
        )

    @property
    def mode(self) -> Mode:
        """Pillow mode of an image in this format."""
        return "L" if self.channels == 1 else "RGB"


def read_image(source: Source, format: ImageFormat, *, name: str | None = None) -> Array:
    """Read a path, bytes, a Pillow image or an array (H, W[, 1|3|4]) as uint8 (C, H, W) in the model's format.

    An image that has the size already keeps its exact pixels, and a JPEG that Pillow has opened but not decoded gives the
    same pixels as its file. Raises ImageError, whose message names the image.
    """
    name = source_name(source) if name is None else name
    if isinstance(source, np.ndarray):
        source = to_8bit(source, name)
        if source.shape == (format.height, format.width, *format.shape[: format.channels // 3]):
            return _channels_first(source)
    size = format.width, format.height
    image = decode(source, format.mode, size, name)
    return _channels_first(np.asarray(image if image.size == size else _resized(format, image)))


def read_mask(source: Source, format: ImageFormat, *, name: str | None = None) -> Array:
    """Read the mask of pixels that are at least half opaque, (H, W) bool in the model's format; True without transparency."""
    alpha = opacity(source, source_name(source) if name is None else name)
    if alpha is None:
        return np.ones((format.height, format.width), np.bool_)
    mask: Array = read_image(alpha, format.model_copy(update={"channels": 1}))[0] >= HALF
    return mask


def to_pil(pixels: Array) -> Image.Image:
    """Convert uint8 (C, H, W) with C = 1 or 3, or (H, W), to a Pillow image."""
    if pixels.ndim == 3:
        pixels = pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0)
    return Image.fromarray(np.ascontiguousarray(pixels))


def to_png(pixels: Array) -> bytes:
    """Encode uint8 (C, H, W) with C = 1 or 3, or (H, W), as PNG."""
    file = BytesIO()
    to_pil(pixels).save(file, "PNG")
    return file.getvalue()


def write_image(path: str | Path, image: Image.Image | Array) -> None:
    """Write an image, or pixels uint8 (C, H, W), in the format of the file's suffix; raise ImageError."""
    path = Path(path)
    pil_image = image if isinstance(image, Image.Image) else to_pil(image)
    if path.suffix.lower() not in _WRITABLE:
        expected = f"a name ending in {', '.join(_WRITABLE)} was expected"
        raise ImageError(f"{path}: cannot be written; {expected}{did_you_mean(path.suffix, _WRITABLE)}")
    try:
        pil_image.save(path)
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
    raise InvalidValueError(f"{value!r} is not a size; one number (32) or height x width (32x48) was expected")


def _resized(format: ImageFormat, image: Image.Image) -> Image.Image:
    size, filter = (format.width, format.height), Image.Resampling[format.resample.upper()]
    match format.resize:
        case "pad":
            return _pad(image, size, filter)
        case "crop":
            return _crop(image, size, format.center_crop_ratio, filter)
        case "stretch":
            return _scaled(image, size, filter)


def _pad(image: Image.Image, size: Size, filter: Image.Resampling) -> Image.Image:
    scale = min(size[0] / image.width, size[1] / image.height)
    inner = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    scaled = _scaled(image, inner, filter)
    canvas = Image.new(image.mode, size, _border_color(np.asarray(scaled)))
    canvas.paste(scaled, ((size[0] - inner[0]) // 2, (size[1] - inner[1]) // 2))
    return canvas


def _crop(image: Image.Image, size: Size, ratio: float, filter: Image.Resampling) -> Image.Image:
    scale = min(image.width / size[0], image.height / size[1]) / ratio
    width, height = size[0] * scale, size[1] * scale
    left, top = max(0, (image.width - width) / 2), max(0, (image.height - height) / 2)  # may round to just below 0
    box = (left, top, min(left + width, image.width), min(top + height, image.height))
    return image.resize(size, filter, box=box, reducing_gap=_REDUCING_GAP)


def _scaled(image: Image.Image, size: Size, filter: Image.Resampling) -> Image.Image:
    return image if image.size == size else image.resize(size, filter, reducing_gap=_REDUCING_GAP)


def _border_color(pixels: Array) -> tuple[int, ...]:
    """Return the median of the border pixels (H, W[, 3]) per channel."""
    edges = (pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1])
    return tuple(int(v) for v in np.atleast_1d(np.median(np.concatenate(edges), axis=0)))


def _channels_first(pixels: Array) -> Array:
    return np.array(pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1), order="C")
