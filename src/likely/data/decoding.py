"""Decoding: a file, bytes, an array or a Pillow image -> an upright 8-bit image, or one sentence on why not.

Whatever an image can be on disk is settled here: orientation, transparency, palettes, 16 bits, CMYK, bombs, damage.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from io import BytesIO
from itertools import islice
from pathlib import Path
from threading import Lock
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from PIL.JpegImagePlugin import JpegImageFile

from likely.data.pillow_warnings import QUIET
from likely.data.suggestions import did_you_mean
from likely.exceptions import ImageError

Array: TypeAlias = NDArray[Any]
Source: TypeAlias = str | Path | bytes | Image.Image | Array
Mode: TypeAlias = Literal["L", "RGB"]

# Pillow knows more, but some of those start other programs (EPS) or take any bytes for an image (TGA).
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "JPEG2000", "AVIF", "ICO")
# Twice 1 GiB / (4 x 3), which is where Pillow itself refuses: 178,956,970.
PIXEL_LIMIT = 2 * (2**30 // 12)
ORIENTATION = 0x0112
STORED = Lock()  # two threads may be given the same open file
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
LYING = {5, 6, 7, 8}
GRAY_MODES = {"1", "L", "LA", "La"}
COLOR_MODES = {"P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "HSV"}
DEEP_MODES = {"I", "I;16", "I;16L", "I;16B", "I;16N"}


class ImageWarning(UserWarning):
    """One image could not be read and is passed over; the message is as that of an ImageError."""


@dataclass(frozen=True)
class ImageHeader:
    """What an image says of itself before it is decoded: its size once upright, and whether it must be gray."""

    height: int
    width: int
    is_gray: bool


def source_name(source: Source) -> str:
    """What to call a source in a message: a file's path as it was given, else what it is."""
    if isinstance(source, str | Path):
        return str(source)
    return {bytes: "the bytes given", np.ndarray: "the array given"}.get(type(source), "the image given")


def read_header(source: Source, name: str) -> ImageHeader:
    """The image's header, without decoding it; raises ImageError."""
    with open_image(source, name) as image:
        across, down = reversed(image.size) if _orientation(image) in LYING else image.size
        return ImageHeader(height=down, width=across, is_gray=image.mode in GRAY_MODES | DEEP_MODES)


def decode(source: Source, mode: Mode, size: tuple[int, int], name: str) -> Image.Image:
    """The image upright, 8 bits a channel, transparency laid over white, in `mode`; raises ImageError.

    `size` is what the image is needed for, (width, height) in pixels: a JPEG may come back smaller than it is on disk,
    but never smaller than twice that.
    """
    with open_image(source, name) as image:
        if image.format in ("JPEG", "MPO") and image is not source:
            across, down = size[::-1] if _orientation(image) in LYING else size
            image.draft(mode, (2 * across, 2 * down))
        image.load()
        turn = UPRIGHT.get(_orientation(image))
        return _converted(image if turn is None else image.transpose(turn), mode, name)


def opacity(source: Source, name: str) -> Image.Image | None:
    """How opaque each pixel is, upright, "L" from 0 to 255; None if the image knows no transparency. Raises ImageError."""
    with open_image(source, name) as image:
        if not image.has_transparency_data:
            return None
        image.load()
        turn = UPRIGHT.get(_orientation(image))
        alpha = image.convert("LA" if image.mode == "La" else "RGBA").getchannel("A")
        return alpha if turn is None else alpha.transpose(turn)


@contextmanager
def open_image(source: Source, name: str) -> Iterator[Image.Image]:
    """The image, its header read and its size checked; whatever goes wrong inside is an ImageError that names it."""
    try:
        with QUIET, _open(source, name) as image:
            if image.width * image.height > PIXEL_LIMIT:
                raise Image.DecompressionBombError
            yield image
    except ImageError:
        raise
    except Exception as error:  # hostile bytes make a decoder raise anything at all, and one bad file never ends a run
        raise ImageError(f"{name}: {_reason(error, source)}") from error


def _open(source: Source, name: str) -> AbstractContextManager[Image.Image]:
    if isinstance(source, Image.Image):
        stored = _stored(source)
        # The caller's own is not ours to close.
        return nullcontext(source) if stored is None else Image.open(BytesIO(stored), formats=FORMATS)
    if isinstance(source, np.ndarray):
        return Image.fromarray(to_8bit(source, name))
    if isinstance(source, bytes):
        _require_content(len(source), name)
        return Image.open(BytesIO(source), formats=FORMATS)
    if isinstance(source, str | Path):
        return Image.open(_regular(Path(source), name), formats=FORMATS)
    raise ImageError(f"{name}: is a {type(source).__name__}; a path, bytes, an array or a Pillow image was expected")


def _stored(image: Image.Image) -> bytes | None:
    """The file's bytes of a JPEG that Pillow has opened and not yet decoded, None for any other image.

    A file is decoded at a reduced size, which looks a little different: so must the same file in a Pillow image be.
    """
    if not (isinstance(image, JpegImageFile) and image.tile and image.fp and image.tell() == 0):
        return None
    with STORED:
        place = image.fp.tell()
        image.fp.seek(0)
        stored = image.fp.read()
        image.fp.seek(place)
    return stored


def _regular(path: Path, name: str) -> Path:
    status = path.stat()
    if stat.S_ISDIR(status.st_mode):
        raise ImageError(f"{name}: is a folder; an image file was expected")
    if not stat.S_ISREG(status.st_mode):
        raise ImageError(f"{name}: is not a regular file; an image file was expected")
    _require_content(status.st_size, name)
    return path


def _require_content(n_bytes: int, name: str) -> None:
    if n_bytes == 0:
        raise ImageError(f"{name}: is empty (0 bytes); an image was expected")


def _reason(error: Exception, source: Source) -> str:
    """What went wrong, as the rest of a sentence that began with the image's name."""
    match error:
        case FileNotFoundError() | NotADirectoryError():
            return f"there is no such file{_neighbor(Path(str(source)))}"
        case UnidentifiedImageError():
            return f"is not an image, or damaged at its start; {', '.join(FORMATS)} are read"
        case Image.DecompressionBombError():
            return f"has more pixels than the {PIXEL_LIMIT / 1e6:.0f} million that are decoded; make it smaller"
        case OSError(strerror=str(why)):
            return f"cannot be opened ({why.lower()})"
        case _:
            return f"is damaged or cut short ({str(error).rstrip('.') or type(error).__name__})"


def _neighbor(path: Path) -> str:
    """A look at the names beside a missing file; a bounded one, as folders may hold millions."""
    if not path.parent.is_dir():
        return ""
    return did_you_mean(path.name, (entry.name for entry in islice(path.parent.iterdir(), 2000)))


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(ORIENTATION, 1))
    except Exception:  # broken EXIF is common, may raise anything, and does not make the pixels unreadable
        return 1


def _converted(image: Image.Image, mode: Mode, name: str) -> Image.Image:
    if image.mode in DEEP_MODES:
        image = Image.fromarray(_from_sixteen_bit(np.asarray(image), name))
    if image.mode not in GRAY_MODES | COLOR_MODES:
        kinds = {"F": "32-bit floating-point pixels", "LAB": "CIELAB colors"}
        raise ImageError(f"{name}: has {kinds.get(image.mode, image.mode)}; 8 or 16 bits a channel were expected")
    if image.has_transparency_data:
        image = _over_white(image)
    if mode == "L" and image.mode in COLOR_MODES:
        image = image.convert("RGB")  # Pillow has no direct way to gray from some of them
    return image.convert(mode)


def _over_white(image: Image.Image) -> Image.Image:
    colors = image.convert("LA" if image.mode == "La" else "RGBA").convert("RGBA")
    canvas = Image.new("RGBA", image.size, "white")
    canvas.alpha_composite(colors)
    return canvas.convert("RGB")


def _from_sixteen_bit(values: Array, name: str) -> Array:
    """round(v / 257): 0..65535 -> 0..255, of any integer type; raises ImageError for what is not 16-bit."""
    if values.size and (values.min() < 0 or values.max() > 65535):
        raise ImageError(f"{name}: has 32-bit values from {values.min()} to {values.max()}; 0 to 65535 were expected")
    return ((values.astype(np.int64) + 128) // 257).astype(np.uint8)


def to_8bit(array: Array, name: str) -> Array:
    """An array of pixels as uint8: (H, W[, 1|3|4]) of uint8, uint16, bool, or floats in [0, 1] -> (H, W[, 3|4]).

    Raises ImageError.
    """
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))) or array.size == 0:
        raise ImageError(f"{name}: has the shape {array.shape}; (height, width) or (height, width, 1|3|4) was expected")
    return quantize(array, name)


def quantize(array: Array, name: str) -> Array:
    """Pixels of an array of any shape as uint8, from uint8, uint16, bool, or floats in [0, 1]; raises ImageError."""
    if array.dtype == np.uint8:
        return array
    if array.dtype == np.bool_:
        return array.astype(np.uint8) * np.uint8(255)
    if array.dtype == np.uint16:
        return _from_sixteen_bit(array, name)
    if np.issubdtype(array.dtype, np.floating):
        return _from_unit(array, name)
    raise ImageError(f"{name}: holds {array.dtype}; uint8, uint16, bool, or floats in [0, 1] were expected")


def _from_unit(array: Array, name: str) -> Array:
    low, high = float(array.min()), float(array.max())
    if not (low >= 0 and high <= 1):  # written so that NaN is refused too
        raise ImageError(f"{name}: has floats from {low:g} to {high:g}; floats in [0, 1], or uint8, were expected")
    pixels: Array = np.rint(array * 255).astype(np.uint8)
    return pixels
