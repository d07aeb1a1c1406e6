"""Decoding of a file, bytes, an array or a Pillow image into an upright 8-bit image, or an ImageError.

Handles orientation, transparency, palettes, 16 bits per channel, CMYK, decompression bombs and damaged files.
"""

from __future__ import annotations

import math
import stat
import threading
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from PIL.JpegImagePlugin import JpegImageFile

from likely.exceptions import ImageError, did_you_mean

Array: TypeAlias = NDArray[Any]
Source: TypeAlias = str | Path | bytes | Image.Image | Array
Mode: TypeAlias = Literal["L", "RGB"]

# Pillow knows more, but some of those start other programs (EPS) or take any bytes for an image (TGA).
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "JPEG2000", "AVIF", "ICO")
# Brands of a HEIF file with HEVC (ISO/IEC 23008-12, annex B): the HEIC of phones; those of AVIF are Pillow's own.
_HEIC_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"}
# Pillow's own limit for an error, twice 1 GiB / (4 x 3): 178,956,970.
PIXEL_LIMIT = 2 * (2**30 // 12)
ORIENTATION = 0x0112
_EXIF_FIELDS, _DATE_TIME_ORIGINAL = 0x8769, 0x9003
_FILE_LOCK = threading.Lock()  # two threads may hold the same open file
_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_TRANSPOSED = {5, 6, 7, 8}
_GRAY_MODES = {"1", "L", "LA", "La"}
_COLOR_MODES = {"P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "HSV"}
_DEEP_MODES = {"I", "I;16", "I;16L", "I;16B", "I;16N"}


class ImageWarning(UserWarning):
    """Warning about an image that cannot be read and is skipped, with the message of the ImageError."""


class _SuppressPillowWarnings:
    """Suppression of Pillow's warnings while any thread is inside.

    Overlapping threads would leave `warnings.catch_warnings` in the wrong order: the first thread in opens one, the last out
    closes it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._n_inside = 0
        self._caught = warnings.catch_warnings()

    def __enter__(self) -> None:
        with self._lock:
            self._n_inside += 1
            if self._n_inside == 1:
                self._caught = warnings.catch_warnings()
                self._caught.__enter__()
                warnings.filterwarnings("ignore", module=r"PIL\.")

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._n_inside -= 1
            if self._n_inside == 0:
                self._caught.__exit__(None, None, None)


pillow_warnings_suppressed: Final = _SuppressPillowWarnings()


@dataclass(frozen=True)
class ImageHeader:
    """Size in pixels of the upright image, and True if its mode has no colors, read without decoding."""

    height: int
    width: int
    is_gray: bool


def source_name(source: Source) -> str:
    """Return the name of a source in messages: a file's path, or else its type."""
    if isinstance(source, str | Path):
        return str(source)
    return {bytes: "image bytes", np.ndarray: "image array"}.get(type(source), "image")


def read_header(source: Source, name: str) -> ImageHeader:
    """Read an image's header without decoding pixels; raise ImageError."""
    with open_image(source, name) as image:
        width, height = reversed(image.size) if _orientation(image) in _TRANSPOSED else image.size
        return ImageHeader(height=height, width=width, is_gray=image.mode in _GRAY_MODES | _DEEP_MODES)


def capture_time(path: str) -> float:
    """Return the seconds since 1970 at which a photograph was taken, by the camera's clock (EXIF); NaN if unknown."""
    try:
        with open_image(path, path) as image:
            taken = image.getexif().get_ifd(_EXIF_FIELDS).get(_DATE_TIME_ORIGINAL)
        return datetime.strptime(str(taken), "%Y:%m:%d %H:%M:%S").replace(tzinfo=UTC).timestamp()
    except ValueError:  # not recorded, not a time, or not an image
        return math.nan


def decode(source: Source, mode: Mode, size: tuple[int, int], name: str) -> Image.Image:
    """Decode an image upright, 8 bits per channel, transparency over white, in `mode`; raise ImageError.

    `size` is the target (width, height) in pixels: a JPEG may be decoded at a reduced scale, but at no less than twice the
    target.
    """
    with open_image(source, name) as image:
        if image.format in ("JPEG", "MPO") and image is not source:
            width, height = size[::-1] if _orientation(image) in _TRANSPOSED else size
            image.draft(mode, (2 * width, 2 * height))
        image.load()
        operation = _TRANSPOSE.get(_orientation(image))
        return _converted(image if operation is None else image.transpose(operation), mode, name)


def opacity(source: Source, name: str) -> Image.Image | None:
    """Return the upright alpha channel, 0 to 255, None for an image without transparency; raise ImageError."""
    with open_image(source, name) as image:
        if not image.has_transparency_data:
            return None
        image.load()
        operation = _TRANSPOSE.get(_orientation(image))
        alpha = image.convert("LA" if image.mode == "La" else "RGBA").getchannel("A")
        return alpha if operation is None else alpha.transpose(operation)


@contextmanager
def open_image(source: Source, name: str) -> Iterator[Image.Image]:
    """Open an image and check its size; any exception in the context becomes an ImageError that names the image."""
    try:
        with pillow_warnings_suppressed, _open(source, name) as image:
            if image.width * image.height > PIXEL_LIMIT:
                raise Image.DecompressionBombError
            yield image
    except ImageError:
        raise
    except Exception as error:  # hostile bytes make decoders raise any exception, and one bad file must not end a run
        raise ImageError(f"{name}: {_reason(error, source)}") from error


def _open(source: Source, name: str) -> AbstractContextManager[Image.Image]:
    if isinstance(source, Image.Image):
        stored = _stored(source)
        # The caller closes its own image.
        return nullcontext(source) if stored is None else _open_encoded(stored, name)
    if isinstance(source, np.ndarray):
        return Image.fromarray(to_8bit(source, name))
    if isinstance(source, bytes):
        _require_content(len(source), name)
        return _open_encoded(source, name)
    if isinstance(source, str | Path):
        return _open_encoded(_regular(Path(source), name), name)
    raise ImageError(f"{name}: is a {type(source).__name__}; a path, bytes, an array or a Pillow image was expected")


def _open_encoded(source: Path | bytes, name: str) -> Image.Image:
    """Open an image file; HEIC needs the plugin pi-heif, which applies the orientation itself and reports none."""
    with BytesIO(source) if isinstance(source, bytes) else source.open("rb") as file:
        is_heic = _is_heic(file.read(64))
    if is_heic:
        try:
            from pi_heif import register_heif_opener
        except ImportError as error:
            raise ImageError(f"{name}: HEIC needs pi-heif: pip install 'likely[photos]'") from error
        register_heif_opener()
    return Image.open(
        BytesIO(source) if isinstance(source, bytes) else source, formats=("HEIF",) if is_heic else FORMATS
    )


def _is_heic(start: bytes) -> bool:
    """Return True if the file type box, at the start of a file, names a brand of HEIC: 4 bytes each after 8 of header."""
    size = int.from_bytes(start[:4], "big")
    return start[4:8] == b"ftyp" and any(start[i : i + 4] in _HEIC_BRANDS for i in range(8, min(size, len(start)), 4))


def _stored(image: Image.Image) -> bytes | None:
    """Return the bytes of a JPEG that Pillow has opened but not decoded, None for any other image.

    Decoding them at a reduced scale gives the same pixels as decoding the file.
    """
    if not (isinstance(image, JpegImageFile) and image.tile and image.fp and image.tell() == 0):
        return None
    with _FILE_LOCK:
        position = image.fp.tell()
        image.fp.seek(0)
        stored = image.fp.read()
        image.fp.seek(position)
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
    """Return the predicate of the message, which begins with the image's name."""
    match error:
        case FileNotFoundError() | NotADirectoryError():
            return f"there is no such file{_neighbor(Path(str(source)))}"
        case UnidentifiedImageError():
            return f"is not a readable image; one of {', '.join((*FORMATS, 'HEIC'))} was expected"
        case Image.DecompressionBombError():
            return f"has more than {PIXEL_LIMIT / 1e6:.0f} million pixels; a smaller image was expected"
        case OSError(strerror=str(why)):
            return f"cannot be opened ({why.lower()})"
        case _:
            return f"is damaged or truncated ({str(error).rstrip('.') or type(error).__name__})"


def _neighbor(path: Path) -> str:
    """Suggest a similar file name in the same folder, from its first 2,000 entries."""
    if not path.parent.is_dir():
        return ""
    return did_you_mean(path.name, (entry.name for entry in islice(path.parent.iterdir(), 2000)))


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(ORIENTATION, 1))
    except Exception:  # broken EXIF is common, raises any exception, and leaves the pixels readable
        return 1


def _converted(image: Image.Image, mode: Mode, name: str) -> Image.Image:
    if image.mode in _DEEP_MODES:
        image = Image.fromarray(_from_sixteen_bit(np.asarray(image), name))
    if image.mode not in _GRAY_MODES | _COLOR_MODES:
        kinds = {"F": "32-bit floating-point pixels", "LAB": "CIELAB colors"}
        raise ImageError(f"{name}: has {kinds.get(image.mode, image.mode)}; 8 or 16 bits a channel were expected")
    if image.has_transparency_data:
        image = _over_white(image)
    if mode == "L" and image.mode in _COLOR_MODES:
        image = image.convert("RGB")  # Pillow cannot convert some of them to gray directly
    return image.convert(mode)


def _over_white(image: Image.Image) -> Image.Image:
    colors = image.convert("LA" if image.mode == "La" else "RGBA").convert("RGBA")
    canvas = Image.new("RGBA", image.size, "white")
    canvas.alpha_composite(colors)
    return canvas.convert("RGB")


def _from_sixteen_bit(values: Array, name: str) -> Array:
    """Return round(v / 257), 0..65535 -> 0..255, for any integer type; raise ImageError for values outside 16 bits."""
    if values.size and (values.min() < 0 or values.max() > 65535):
        raise ImageError(f"{name}: has 32-bit values from {values.min()} to {values.max()}; 0 to 65535 were expected")
    return ((values.astype(np.int64) + 128) // 257).astype(np.uint8)


def to_8bit(array: Array, name: str) -> Array:
    """Convert pixels (H, W[, 1|3|4]) of uint8, uint16, bool, or floats in [0, 1] to uint8 (H, W[, 3|4]); raise ImageError."""
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))) or array.size == 0:
        raise ImageError(f"{name}: has the shape {array.shape}; (height, width) or (height, width, 1|3|4) was expected")
    return quantize(array, name)


def quantize(array: Array, name: str) -> Array:
    """Convert an array of any shape from uint8, uint16, bool, or floats in [0, 1] to uint8; raise ImageError."""
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
    if not (low >= 0 and high <= 1):  # false for NaN too
        raise ImageError(f"{name}: has floats from {low:g} to {high:g}; floats in [0, 1], or uint8, were expected")
    pixels: Array = np.rint(array * 255).astype(np.uint8)
    return pixels
