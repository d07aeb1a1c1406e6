"""idx files, MNIST's format: four files under the names that MNIST gave them, compressed or not (LeCun 1998)."""

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

PATTERN = re.compile(r"(train|val|valid|validation|t10k|test)-(images|labels)[-.]idx[13]-ubyte(\.gz)?")
SPLIT_OF = {"train": "train", "t10k": "test", "test": "test"}
UNSIGNED_BYTE = 0x08
CHUNK = 1 << 18  # bytes unpacked at a time; three copies of them are alive


def is_idx(name: str) -> bool:
    """Whether a file of this name is one of MNIST's."""
    return PATTERN.fullmatch(name) is not None


def is_in(folder: Path) -> bool:
    """Whether the folder holds idx files."""
    return any(is_idx(path.name) for path in folder.iterdir())


def listings(folder: Path) -> Listings:
    """The parts that a folder's idx files make up; labels are read, images are not. Raises DataError."""
    parts: dict[str, dict[str, Path]] = {}
    for path in sorted(folder.iterdir()):
        if found := PATTERN.fullmatch(path.name):
            # A .gz beside its unpacked self sorts after it, and the unpacked one is the faster to read.
            parts.setdefault(SPLIT_OF.get(found[1], "validation"), {}).setdefault(found[2], path)
    return {part: _listing(folder, files) for part, files in parts.items()}


def _listing(folder: Path, files: Mapping[str, Path]) -> SplitListing:
    for missing, other in (("images", "labels"), ("labels", "images")):
        if missing not in files:
            raise DataError(f"{folder}: {files[other].name} is there, but the file of its {missing} is not")
    images, labels = files["images"], files["labels"]
    shape = _shape(images, 3)
    names = integer_names(_values(labels, _shape(labels, 1)))
    if shape[0] != len(names):
        raise DataError(f"{images}: holds {shape[0]} images, but {labels.name} holds {len(names)} labels")
    return SplitListing(ArrayItems(str(images), shape, partial(_values, images, shape)), names)


def _shape(path: Path, n_dims: int) -> tuple[int, ...]:
    """What the header says: two zero bytes, the type of the values, the number of dimensions, and each of them."""
    with _open(path) as file:
        header = _read(file, path, 4 * (1 + n_dims))
    if header[:4] != bytes((0, 0, UNSIGNED_BYTE, n_dims)):
        wanted = f"0x{UNSIGNED_BYTE << 8 | n_dims:08x}, {n_dims} dimension{'s' * (n_dims > 1)} of unsigned bytes"
        raise DataError(
            f"{path}: begins with 0x{header[:4].hex()}, which is not the mark of such an idx file ({wanted})"
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
    """The file itself as an array: pages come from disk as they are looked at."""
    if path.stat().st_size < start + math.prod(shape):
        raise DataError(f"{path}: is cut short; its header promises an array of {' x '.join(map(str, shape))} bytes")
    return np.memmap(path, np.uint8, "r", start, shape) if math.prod(shape) else np.empty(shape, np.uint8)


def _read(file: IO[bytes], path: Path, n_bytes: int) -> bytes:
    content = bytearray(n_bytes)
    _fill(file, path, memoryview(content))
    return bytes(content)


def _fill(file: IO[bytes], path: Path, content: memoryview) -> None:
    """Read into memory that is already there, so that unpacking takes no second copy."""
    try:
        done = 0
        while done < len(content):
            n = file.readinto(content[done : done + CHUNK])  # type: ignore[attr-defined] # every binary file has it
            if not n:
                raise EOFError
            done += n
    except (EOFError, OSError, zlib.error) as error:
        raise DataError(
            f"{path}: is damaged or cut short ({str(error).lower() or 'the file ends too early'})"
        ) from error


def _open(path: Path) -> IO[bytes]:
    return gzip.open(path) if path.suffix == ".gz" else path.open("rb")  # type: ignore[return-value]
