"""idx files: MNIST's format, four files with MNIST's names, compressed or not (LeCun 1998)."""

from __future__ import annotations

import gzip
import math
import re
import zlib
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import IO

import numpy as np

from likely.data.decoding import Array
from likely.data.sources.base import ArrayItems, Listings, SplitListing, integer_names
from likely.exceptions import DataError

FILE_NAME = re.compile(r"(train|val|valid|validation|t10k|test)-(images|labels)[-.]idx[13]-ubyte(\.gz)?")
_SPLIT_OF = {"train": "train", "t10k": "test", "test": "test"}
_UNSIGNED_BYTE = 0x08
_CHUNK = 1 << 18  # bytes decompressed at a time; three copies of them exist


def list_idx(folder: Path) -> Listings:
    """List the splits of a folder of idx files, none if it holds no such file: read labels but not images; raise DataError."""
    splits: dict[str, dict[str, Path]] = {}
    for path in sorted(folder.iterdir()):
        if match := FILE_NAME.fullmatch(path.name):
            # A .gz sorts after its decompressed file, which is faster to read.
            splits.setdefault(_SPLIT_OF.get(match[1], "validation"), {}).setdefault(match[2], path)
    return {split: _listing(folder, files) for split, files in splits.items()}


def _listing(folder: Path, files: Mapping[str, Path]) -> SplitListing:
    for missing, other in (("images", "labels"), ("labels", "images")):
        if missing not in files:
            raise DataError(f"{folder}: {files[other].name} has no file of {missing} beside it")
    images, labels = files["images"], files["labels"]
    shape = _shape(images, 3)
    names = integer_names(_values(labels, _shape(labels, 1)))
    if shape[0] != len(names):
        raise DataError(f"{images}: holds {shape[0]} images, but {labels.name} holds {len(names)} labels")
    return SplitListing(ArrayItems(str(images), shape, partial(_values, images, shape)), names)


def _shape(path: Path, n_dims: int) -> tuple[int, ...]:
    """Read the shape from the header: two zero bytes, the type of the values, the number of dimensions, and their sizes."""
    with _open(path) as file:
        header = _read(file, path, 4 * (1 + n_dims))
    if header[:4] != bytes((0, 0, _UNSIGNED_BYTE, n_dims)):
        expected = f"0x{_UNSIGNED_BYTE << 8 | n_dims:08x}, {n_dims} dimension{'s' * (n_dims > 1)} of unsigned bytes"
        raise DataError(
            f"{path}: begins with 0x{header[:4].hex()}, not the magic number of an idx file; {expected} was expected"
        )
    return tuple(int(n) for n in np.frombuffer(header, ">u4", offset=4))


def _values(path: Path, shape: tuple[int, ...]) -> Array:
    start = 4 * (1 + len(shape))
    if path.suffix != ".gz":
        return _mapped(path, shape, start)
    values = np.empty(math.prod(shape), np.uint8)
    with _open(path) as file:
        _read(file, path, start)
        _fill(file, path, values.data)
    return values.reshape(shape)


def _mapped(path: Path, shape: tuple[int, ...], start: int) -> Array:
    """Map the file into memory; pages are read from disk on access."""
    if path.stat().st_size < start + math.prod(shape):
        raise DataError(f"{path}: is truncated; {' x '.join(map(str, shape))} bytes were expected")
    return np.memmap(path, np.uint8, "r", start, shape) if math.prod(shape) else np.empty(shape, np.uint8)


def _read(file: IO[bytes], path: Path, n_bytes: int) -> bytes:
    content = bytearray(n_bytes)
    _fill(file, path, memoryview(content))
    return bytes(content)


def _fill(file: IO[bytes], path: Path, content: memoryview) -> None:
    """Read into existing memory, so that decompression needs no second copy."""
    try:
        done = 0
        while done < len(content):
            n = file.readinto(content[done : done + _CHUNK])  # type: ignore[attr-defined] # every binary file has it
            if not n:
                raise EOFError
            done += n
    except (EOFError, OSError, zlib.error) as error:
        raise DataError(
            f"{path}: is damaged or truncated ({str(error).lower() or 'the file ends too early'})"
        ) from error


def _open(path: Path) -> IO[bytes]:
    return gzip.open(path) if path.suffix == ".gz" else path.open("rb")  # type: ignore[return-value]
