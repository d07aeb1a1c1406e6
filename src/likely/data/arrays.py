"""Images that a Python program holds: arrays, Pillow images, paths and bytes, as collections like those of DATA."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, final

import numpy as np
from PIL import Image
from torch import Tensor

from likely.data.collection import Images
from likely.data.decoding import Array, ImageError, name_of
from likely.data.format import resolve
from likely.data.images import ImageFormat, ImageOptions
from likely.data.listing import Items, Listing, Problem, Rows
from likely.data.nearest import suggestion
from likely.data.parts import Dataset, Integers, Part
from likely.data.reading import Content, Reader

MEMORY = 1 << 29  # bytes of pixels that are kept; more are decoded whenever they are used


@final
class Sources(Items):
    """Images of any kind that `images.read` takes, one by one."""

    def __init__(self, sources: Sequence[Any], names: Sequence[str] | None = None) -> None:
        self._sources = sources
        self._names = names

    def __len__(self) -> int:
        return len(self._sources)

    def __getitem__(self, i: int) -> Any:
        return self._sources[i]

    def name(self, i: int) -> str:
        if self._names is not None:
            return self._names[i]
        source = self._sources[i]
        return name_of(source) if isinstance(source, str | Path) else f"image[{i}]"


def are_images(X: Any) -> bool:
    """Whether X holds images rather than vectors: an array of three or four dimensions, or a list of what images come as."""
    if isinstance(X, np.ndarray | Tensor):
        return X.ndim in (3, 4) or (
            isinstance(X, np.ndarray) and X.ndim == 1 and X.dtype.kind in "OU" and _is_source(X[0])
        )
    return isinstance(X, list | tuple) and len(X) > 0 and _is_source(X[0])


def items(X: Any, names: Sequence[str] | None = None) -> Items:
    """Anything that holds images or vectors, to be read by index."""
    if isinstance(X, Tensor):
        X = X.detach().cpu().numpy()
    if isinstance(X, np.ndarray) and X.ndim == 2:
        return Rows("vector", X.shape, lambda: X)
    if isinstance(X, np.ndarray) and X.ndim >= 3:
        pixels = _channels_last(X)
        return Sources(list(pixels), names) if names is not None else Rows("image", pixels.shape, lambda: pixels)
    return Sources(list(X), names)


def dataset(
    X: Any, labels: Integers, classes: Sequence[str], options: ImageOptions
) -> tuple[Dataset, tuple[Problem, ...]]:
    """Images or vectors with class indices (N,) as a dataset without a test part, which is its owner's affair."""
    listed = items(X)
    format = resolve(options, {"train": Listing(listed, ())}, "X")
    content = _content(listed, format)
    if not len(content.indices):
        raise ImageError(f"none of the {len(listed)} images could be read; {content.problems[0].sentence}")
    part = Part(content.images, labels[content.indices], content.hashes)
    named = Dataset("X", tuple(classes), part, None, None, content.problems, format, available=("train", "test"))
    return named, content.problems


def readable(
    X: Any, format: ImageFormat | None, names: Sequence[str] | None = None
) -> tuple[Images, list[Problem | None]]:
    """The images of X that can be read, and for each of X None or what is wrong with it."""
    listed = items(X, names)
    content = _content(listed, format)
    wrong = iter(content.problems)
    good = set(content.indices.tolist())
    return content.images, [None if i in good else next(wrong) for i in range(len(listed))]


def images(X: Any, format: ImageFormat | None) -> Images:
    """The images of X, every one; an ImageError names the first that cannot be read."""
    content = _content(items(X), format)
    if content.problems:
        raise ImageError(content.problems[0].sentence)
    return content.images


def class_index(classes: Sequence[str], name: str) -> int:
    """The place of a class by its name; a ValueError names the nearest."""
    if name not in classes:
        raise ValueError(f"there is no class {name!r}{suggestion(name, classes)}")
    return classes.index(name)


def _content(listed: Items, format: ImageFormat | None) -> Content:
    n_bytes = len(listed) * int(np.prod(format.shape)) if format is not None else 0
    return Reader(format, kept=n_bytes <= MEMORY, done=lambda n: None).read(listed)


def _channels_last(X: Array) -> Array:
    """(N, H, W) and (N, H, W, C) as they are; (N, 1|3, H, W), which torch's users hold, turned round."""
    if X.ndim == 4 and X.shape[1] in (1, 3) and X.shape[3] not in (1, 3, 4):
        return X.transpose(0, 2, 3, 1)
    return X


def _is_source(x: Any) -> bool:
    return isinstance(x, str | Path | bytes | Image.Image) or (isinstance(x, np.ndarray | Tensor) and x.ndim >= 2)
