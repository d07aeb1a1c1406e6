"""NumPy archives: arrays x and y, or x_train, y_train and so on for splits; images, or vectors for a 2-D x."""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy

from likely.data.decoding import Array
from likely.data.sources.base import ArrayItems, Listings, SplitListing, integer_names
from likely.exceptions import DataError, did_you_mean

_SPLIT_OF = {
    "x": "train",
    "x_train": "train",
    "x_val": "validation",
    "x_valid": "validation",
    "x_validation": "validation",
    "x_test": "test",
}
_CHANNELS = (1, 3, 4)


@dataclass(frozen=True)
class _NpyHeader:
    """Header of one array, and the offset of its values in the archive in bytes, None if they are compressed."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    order: str
    offset: int | None


def list_npz(path: Path) -> Listings:
    """List the splits of an archive: read labels but not images; raise DataError."""
    with _archive_errors(path):
        headers = _headers(path)
    arrays = {split: name for name, split in _SPLIT_OF.items() if name in headers}
    if not arrays:
        present = ", ".join(headers) or "none"
        raise DataError(f"{path}: has no arrays x and y, or x_train and y_train; its arrays are: {present}")
    return {split: _listing(path, headers, x) for split, x in arrays.items()}


def _listing(path: Path, headers: Mapping[str, _NpyHeader], x: str) -> SplitListing:
    y = "y" + x[1:]
    if y not in headers:
        raise DataError(f"{path}: has {x} but no {y}{did_you_mean(y, headers)}")
    header = headers[x]
    _require_readable(path, x, header)
    labels = _labels(path, headers, y)
    if len(labels) != header.shape[0]:
        raise DataError(f"{path}: {x} holds {header.shape[0]} images, but {y} holds {len(labels)} labels")
    return SplitListing(ArrayItems(f"{path}:{x}", header.shape, partial(_values, path, x, header)), labels)


def _headers(path: Path) -> dict[str, _NpyHeader]:
    with zipfile.ZipFile(path) as archive:
        members = [info for info in archive.infolist() if info.filename.endswith(".npy")]
        return {info.filename.removesuffix(".npy"): _header(path, archive, info) for info in members}


def _header(path: Path, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> _NpyHeader:
    with archive.open(info) as file:
        first = npy.read_magic(file) == (1, 0)
        shape, is_fortran, dtype = (npy.read_array_header_1_0 if first else npy.read_array_header_2_0)(file)
        offset = _start(path, info) + file.tell() if info.compress_type == zipfile.ZIP_STORED else None
    return _NpyHeader(shape, dtype, "F" if is_fortran else "C", offset)


def _start(path: Path, info: zipfile.ZipInfo) -> int:
    """Return the offset of a member: after 30 fixed bytes, its name and its extra field (PKWARE APPNOTE, 4.3.7)."""
    with path.open("rb") as file:
        file.seek(info.header_offset + 26)
        n_name, n_extra = struct.unpack("<HH", file.read(4))
        return info.header_offset + 30 + int(n_name + n_extra)


def _require_readable(path: Path, x: str, header: _NpyHeader) -> None:
    shape, kind = header.shape, header.dtype
    if len(shape) == 2 and kind.kind in "fiub":
        return
    if not (len(shape) == 3 or (len(shape) == 4 and shape[3] in _CHANNELS)):
        last = " (channels come last)" if len(shape) == 4 and shape[1] in _CHANNELS else ""
        expected = "(n, height, width), (n, height, width, 1|3|4) or, for vectors, (n, d)"
        raise DataError(f"{path}: {x} has the shape {shape}; {expected} was expected{last}")
    if not (kind in (np.uint8, np.uint16, np.bool_) or kind.kind == "f"):
        raise DataError(f"{path}: {x} holds {kind}; uint8, uint16, bool or floats in [0, 1] were expected")


def _values(path: Path, x: str, header: _NpyHeader) -> Array:
    """Return the array, mapped from the file if it is not compressed, so that pages are read on access."""
    with _archive_errors(path):
        if header.offset is not None and 0 not in header.shape:
            values: Array = np.memmap(path, header.dtype, "r", header.offset, header.shape, header.order)  # type: ignore[call-overload]
        else:
            values = _load(path, x)
    if len(header.shape) > 2 and header.dtype.kind == "f":
        _require_unit(path, x, values)
    return values


def _require_unit(path: Path, x: str, values: Array) -> None:
    """Raise DataError for floats outside [0, 1]; image by image, a dark image in 0..255 would pass for a bright one."""
    for image in values:
        if not (image.min() >= 0 and image.max() <= 1):
            present = f"floats from {image.min():g} to {image.max():g}"
            raise DataError(f"{path}: {x} holds {present}; floats in [0, 1], or 0 to 255 as uint8, were expected")


def _labels(path: Path, headers: Mapping[str, _NpyHeader], y: str) -> list[str | None]:
    with _archive_errors(path):
        values = _load(path, y)
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim != 1:
        raise DataError(f"{path}: {y} has the shape {values.shape}; one label an image, (n,), was expected")
    if values.dtype.kind in "US":
        return _words(values)
    whole = values.astype(np.int64)
    if not np.array_equal(whole, values):
        raise DataError(f"{path}: {y} holds {values.dtype} that are not whole numbers; one label an image was expected")
    return _named(path, whole, y) if "classes" in headers else integer_names(whole)


def _named(path: Path, values: Array, y: str) -> list[str | None]:
    """Convert indices into the archive's `classes` to class names; -1 is unlabeled."""
    classes = _words(_load(path, "classes"))
    if values.size and (values.min() < -1 or values.max() >= len(classes)):
        span = f"from {values.min()} to {values.max()}"
        raise DataError(f"{path}: {y} has labels {span}, but classes names {len(classes)}, 0 to {len(classes) - 1}")
    return [None if value == -1 else classes[value] for value in values.tolist()]


def _words(values: Array) -> list[str | None]:
    words = np.char.decode(values, "utf-8") if values.dtype.kind == "S" else values.astype(np.str_)
    return [word.strip() or None for word in words.tolist()]


def _load(path: Path, name: str) -> Array:
    with np.load(path, allow_pickle=False) as archive:
        values: Array = archive[name]
        return values


@contextmanager
def _archive_errors(path: Path) -> Iterator[None]:
    """Convert NumPy's exceptions for damaged or pickled archives to DataError."""
    try:
        yield
    except DataError:
        raise
    except (zipfile.BadZipFile, ValueError, OSError, EOFError, KeyError, struct.error) as error:
        is_pickled = "pickle" in str(error) or "Object arrays" in str(error)
        reason = "holds pickled objects, which could run code" if is_pickled else "is not a readable .npz"
        raise DataError(f"{path}: {reason}; arrays of numbers or text were expected ({error})") from error
