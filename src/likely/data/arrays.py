"""Images that a Python program holds: arrays, Pillow images, paths and bytes, as collections like those of DATA."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, final

import numpy as np
from PIL import Image
from torch import Tensor

from likely.data.dataset import Dataset, Integers, LabeledImages, fingerprint
from likely.data.decoding import Array, source_name
from likely.data.image_dataset import ImageBatch, ImageDataset, LazyImages
from likely.data.infer_format import infer_format
from likely.data.preprocessing import ImageFormat, ImageOptions
from likely.data.reader import Reader, ReadResult
from likely.data.sources.base import ArrayItems, LoadError, SourceItems, SplitListing
from likely.data.suggestions import did_you_mean
from likely.exceptions import ImageError, InvalidValueError

IMAGES = "images (N, height, width), (N, height, width, 1|3|4) or (N, 1|3, height, width)"
NARROW = 8  # pixels: images this high and only three or four wide are hardly meant
MEMORY = 1 << 29  # bytes of pixels that are kept; more are decoded whenever they are used


@final
class InputItems(SourceItems):
    """Images of any kind that `images.read` takes, one by one."""

    def __init__(self, sources: Sequence[Any], names: Sequence[str] | None = None) -> None:
        self._sources = sources
        self._names = names

    def __len__(self) -> int:
        return len(self._sources)

    def __getitem__(self, i: int) -> Any:
        source = self._sources[i]
        return _pixels(source) if isinstance(source, Tensor) else source

    def name(self, i: int) -> str:
        if self._names is not None:
            return self._names[i]
        source = self._sources[i]
        return source_name(source) if isinstance(source, str | Path) else f"image[{i}]"


def are_images(X: Any) -> bool:
    """Whether X holds images rather than vectors: an array of three or four dimensions, or a list of what images come as."""
    if isinstance(X, np.ndarray | Tensor):
        return X.ndim in (3, 4) or (
            isinstance(X, np.ndarray) and X.ndim == 1 and len(X) > 0 and X.dtype.kind in "OU" and _is_source(X[0])
        )
    return isinstance(X, list | tuple) and len(X) > 0 and _is_source(X[0])


def items(X: Any, names: Sequence[str] | None = None) -> SourceItems:
    """Anything that holds images or vectors, to be read by index; one path, bytes or picture is a list of one."""
    if isinstance(X, Tensor):
        X = X.detach().cpu().numpy()
    if isinstance(X, str | Path | bytes | Image.Image):
        X = [X]
    if isinstance(X, np.ndarray) and X.ndim == 2:
        return ArrayItems("vector", X.shape, lambda: X)
    if isinstance(X, np.ndarray) and X.ndim >= 3:
        pixels = _channels_last(X)
        _require_images(pixels, X.shape)
        return (
            InputItems(list(pixels), names) if names is not None else ArrayItems("image", pixels.shape, lambda: pixels)
        )
    if isinstance(X, np.ndarray) and X.dtype.kind not in "OU":
        raise InvalidValueError(f"X has the shape {X.shape}; {IMAGES} were expected, or vectors (N, D)")
    return InputItems(list(X), names)


def labeled_dataset(X: Any, labels: Integers, classes: Sequence[str], options: ImageOptions) -> Dataset:
    """Return images or vectors X with class indices (N,), -1 for unlabeled, as a training set.

    No test images are split off it later. Raises ImageError if no image can be read.
    """
    listed = items(X)
    _require_some(listed)
    format = infer_format(options, {"train": SplitListing(listed, ())}, "X")
    content = _content(listed, format, fingerprint)
    if not len(content.indices):
        raise ImageError(f"none of the {len(listed)} images could be read; {content.errors[0].message}")
    train = LabeledImages(content.images, labels[content.indices], content.hashes)
    return Dataset("X", tuple(classes), train, None, None, content.errors, format, available=("train", "test"))


def load_images(
    X: Any, format: ImageFormat | None, names: Sequence[str] | None = None, *, n_features: int | None = None
) -> ImageBatch:
    """Decode paths, bytes, Pillow images or an array once, into memory, in the model's format.

    Without a format X holds vectors (N, `n_features`). An input that cannot be read has an error in the batch. Raises
    InvalidValueError if X as a whole is neither images nor such vectors.
    """
    listed = _shown(X, format, names, n_features)
    content = Reader(format, cache=True, done=lambda n: None, mark=unmarked).read(listed)
    errors: list[LoadError | None] = [None] * len(listed)
    unreadable = np.setdiff1d(np.arange(len(listed)), content.indices)
    for i, error in zip(unreadable.tolist(), content.errors, strict=True):
        errors[i] = error
    return ImageBatch(content.images.to_array(), tuple(map(listed.name, range(len(listed)))), tuple(errors))


def images(X: Any, format: ImageFormat | None) -> ImageDataset:
    """The images of X, every one; an ImageError names the first that cannot be read.

    Of those that do not fit in memory, it is raised by the batch that the image is in, so that none is decoded twice.
    """
    listed = _shown(X, format, None, None)
    _require_some(listed)
    if format is not None and not isinstance(listed, ArrayItems) and not _fit(listed, format):
        return LazyImages(listed, format)
    content = _content(listed, format, unmarked)
    if content.errors:
        raise ImageError(content.errors[0].message)
    return content.images


def unmarked(pixels: Array) -> bytes:
    """In place of a fingerprint, where nobody asks for copies: hashing takes longer than reading an array."""
    return bytes(8)


def class_index(classes: Sequence[str], name: str) -> int:
    """The place of a class by its name; a ValueError names the nearest."""
    if name not in classes:
        raise InvalidValueError(f"there is no class {name!r}{did_you_mean(name, classes)}")
    return classes.index(name)


def _content(listed: SourceItems, format: ImageFormat | None, mark: Callable[[Array], bytes]) -> ReadResult:
    return Reader(format, cache=_fit(listed, format), done=lambda n: None, mark=mark).read(listed)


def _fit(listed: SourceItems, format: ImageFormat | None) -> bool:
    """Whether the images can all be kept; vectors always are."""
    return format is None or len(listed) * math.prod(format.shape) <= MEMORY


def _shown(X: Any, format: ImageFormat | None, names: Sequence[str] | None, width: int | None) -> SourceItems:
    """What a trained model is shown, if it is of the kind that it was trained on."""
    listed = items(X if format is not None else _vectors(X, width), names)
    if format is not None and isinstance(listed, ArrayItems) and listed.are_vectors:
        raise InvalidValueError(
            f"X has the shape {listed.shape}, which is vectors or a single image; this model takes {IMAGES}: "
            "for a single one give image[None]"
        )
    return listed


def _vectors(X: Any, width: int | None) -> Array:
    """X as an array of vectors (N, D), if it is one; scikit-learn's users bring lists and tables as well."""
    wanted = f"vectors (N, {width if width is not None else 'D'})"
    if isinstance(X, Tensor):
        X = X.detach().cpu().numpy()
    if are_images(X) or isinstance(X, str | Path | bytes | Image.Image):
        raise InvalidValueError(f"X holds images; this model was trained on vectors, and {wanted} were expected")
    try:
        rows: Array = np.asarray(X, None if isinstance(X, np.ndarray) and X.dtype.kind == "f" else np.float64)
    except (TypeError, ValueError) as error:
        raise InvalidValueError(f"X holds no vectors of numbers ({error}); {wanted} were expected") from error
    if rows.size == 0 and rows.ndim == 1:
        rows = rows.reshape(0, width or 0)
    if rows.ndim != 2 or width not in (None, rows.shape[1]):
        one = "; for a single vector give X[None]" if rows.ndim == 1 else ""
        raise InvalidValueError(f"X has the shape {rows.shape}; {wanted} were expected{one}")
    return rows


def _require_some(listed: SourceItems) -> None:
    if not len(listed):
        raise InvalidValueError("X holds no images; at least one was expected")


def _require_images(pixels: Array, shape: tuple[int, ...]) -> None:
    """Refuse an array as a whole that no image of it could be read from."""
    if pixels.ndim == 3 and shape[2] in (3, 4) and min(shape[:2]) >= NARROW:
        raise InvalidValueError(
            f"X has the shape {shape}, which is a single image in color; {IMAGES} were expected: give image[None], "
            f"or X[..., None] for {shape[0]} gray images {shape[2]} pixels wide"
        )
    if pixels.ndim > 4 or (pixels.ndim == 4 and pixels.shape[3] not in (1, 3, 4)) or 0 in shape[1:]:
        raise InvalidValueError(f"X has the shape {shape}; {IMAGES} were expected")


def _pixels(x: Tensor) -> Array:
    """One image of torch's as `images.read` takes it."""
    image: Array = _channels_last(x.detach().cpu().numpy()[None])[0]
    return image


def _channels_last(X: Array) -> Array:
    """(N, H, W) and (N, H, W, C) as they are; (N, 1|3, H, W), which torch's users hold, turned round."""
    if X.ndim == 4 and X.shape[1] in (1, 3) and X.shape[3] not in (1, 3, 4):
        return X.transpose(0, 2, 3, 1)
    return X


def _is_source(x: Any) -> bool:
    return isinstance(x, str | Path | bytes | Image.Image) or (isinstance(x, np.ndarray | Tensor) and x.ndim >= 2)
