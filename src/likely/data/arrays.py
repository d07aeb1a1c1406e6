"""Array-like inputs of the Python interface: arrays, Pillow images, paths and bytes as images or datasets."""

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
from likely.data.groups import merge_duplicates
from likely.data.image_dataset import ImageBatch, ImageDataset, LazyImages
from likely.data.listing import DataListing
from likely.data.loading import Reader, ReadResult
from likely.data.preprocessing import ImageFormat, ImageOptions
from likely.data.sources.base import ArrayItems, LoadError, SourceItems, SplitListing
from likely.exceptions import ImageError, InvalidValueError

_IMAGES = "images (N, height, width), (N, height, width, 1|3|4) or (N, 1|3, height, width)"
_MIN_SIDE = 8  # pixels; an array (H, W, 3) of at least this height and width is one color image, not H gray ones
MAX_MEMORY = 1 << 29  # bytes of pixels stored in memory; larger collections are decoded on use


@final
class _InputItems(SourceItems):
    """Images of any type that `read_image` accepts, and tensors."""

    def __init__(self, sources: Sequence[Any], names: Sequence[str] | None = None) -> None:
        self._sources = sources
        self._names = names

    def __len__(self) -> int:
        return len(self._sources)

    def __getitem__(self, i: int) -> Any:
        source = self._sources[i]
        return _to_numpy(source) if isinstance(source, Tensor) else source

    def name(self, i: int) -> str:
        if self._names is not None:
            return self._names[i]
        source = self._sources[i]
        return source_name(source) if isinstance(source, str | Path) else f"image[{i}]"


def are_images(X: Any) -> bool:
    """Return True for images, False for vectors: images are arrays of 3 or 4 dimensions, or lists of image sources."""
    if isinstance(X, np.ndarray | Tensor):
        return X.ndim in (3, 4) or (
            isinstance(X, np.ndarray) and X.ndim == 1 and len(X) > 0 and X.dtype.kind in "OU" and _is_source(X[0])
        )
    return isinstance(X, list | tuple) and len(X) > 0 and _is_source(X[0])


def _items(X: Any, names: Sequence[str] | None = None) -> SourceItems:
    """Wrap images or vectors as indexed items; a single path, bytes or Pillow image becomes a list of one."""
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
            _InputItems(list(pixels), names) if names is not None else ArrayItems("image", pixels.shape, lambda: pixels)
        )
    if isinstance(X, np.ndarray) and X.dtype.kind not in "OU":
        raise InvalidValueError(f"X has the shape {X.shape}; {_IMAGES} were expected, or vectors (N, D)")
    return _InputItems(list(X), names)


def labeled_dataset(
    X: Any,
    labels: Integers,
    classes: Sequence[str],
    options: ImageOptions | ImageFormat,
    groups: Integers | None = None,
) -> Dataset:
    """Return images or vectors X with class indices (N,), -1 for unlabeled, and groups (N,), if any, as a training set.

    No test images are split off it later. Raises ImageError if no image can be read.
    """
    listed = _items(X)
    _require_some(listed)
    format = DataListing("X", {"train": SplitListing(listed, ())}).infer_format(options)
    result = _read(listed, format, fingerprint)
    if not len(result.indices):
        raise ImageError(f"none of the {len(listed)} images could be read; {result.errors[0].message}")
    merged = None if groups is None else merge_duplicates(groups[result.indices], result.hashes)
    train = LabeledImages(result.images, labels[result.indices], result.hashes, merged)
    return Dataset("X", tuple(classes), train, None, None, result.errors, format, available=("train", "test"))


def load_images(
    X: Any, format: ImageFormat | None, names: Sequence[str] | None = None, *, n_features: int | None = None
) -> ImageBatch:
    """Decode paths, bytes, Pillow images or an array once, into memory, in the model's format.

    Without a format X holds vectors (N, `n_features`). An input that cannot be read has an error in the batch. Raises
    InvalidValueError if X as a whole is neither images nor such vectors.
    """
    listed = _model_inputs(X, format, names, n_features)
    result = Reader(format, cache=True, progress=lambda n: None, hash=_no_hash).read(listed)
    errors: list[LoadError | None] = [None] * len(listed)
    unreadable = np.setdiff1d(np.arange(len(listed)), result.indices)
    for i, error in zip(unreadable.tolist(), result.errors, strict=True):
        errors[i] = error
    return ImageBatch(result.images.to_array(), tuple(map(listed.name, range(len(listed)))), tuple(errors))


def images(X: Any, format: ImageFormat | None) -> ImageDataset:
    """Return all images or vectors of X in the model's format; raise ImageError for the first that cannot be read.

    Images that do not fit in memory are decoded on use, and their batch raises the error.
    """
    listed = _model_inputs(X, format, None, None)
    _require_some(listed)
    if format is not None and not isinstance(listed, ArrayItems) and not _fits_in_memory(listed, format):
        return LazyImages(listed, format)
    result = _read(listed, format, _no_hash)
    if result.errors:
        raise ImageError(result.errors[0].message)
    return result.images


def _no_hash(pixels: Array) -> bytes:
    """Replace `fingerprint` where duplicates do not matter: hashing takes longer than reading an array."""
    return bytes(8)


def _read(listed: SourceItems, format: ImageFormat | None, hash: Callable[[Array], bytes]) -> ReadResult:
    return Reader(format, cache=_fits_in_memory(listed, format), progress=lambda n: None, hash=hash).read(listed)


def _fits_in_memory(listed: SourceItems, format: ImageFormat | None) -> bool:
    """Return True if all images can be stored; vectors always are."""
    return format is None or len(listed) * math.prod(format.shape) <= MAX_MEMORY


def _model_inputs(
    X: Any, format: ImageFormat | None, names: Sequence[str] | None, n_features: int | None
) -> SourceItems:
    """Wrap inputs of a trained model; raise InvalidValueError for images to a model of vectors, and vice versa."""
    listed = _items(X if format is not None else _vectors(X, n_features), names)
    if format is not None and isinstance(listed, ArrayItems) and listed.are_vectors:
        raise InvalidValueError(
            f"X has the shape {listed.shape}, which is vectors or a single image; {_IMAGES} were expected: "
            "pass a single image as image[None]"
        )
    return listed


def _vectors(X: Any, n_features: int | None) -> Array:
    """Convert X to vectors (N, D); like scikit-learn, accept lists and tables."""
    expected = f"vectors (N, {n_features if n_features is not None else 'D'})"
    if isinstance(X, Tensor):
        X = X.detach().cpu().numpy()
    if are_images(X) or isinstance(X, str | Path | bytes | Image.Image):
        raise InvalidValueError(f"X holds images; this model was trained on vectors, and {expected} were expected")
    try:
        rows: Array = np.asarray(X, None if isinstance(X, np.ndarray) and X.dtype.kind == "f" else np.float64)
    except (TypeError, ValueError) as error:
        raise InvalidValueError(f"X holds no vectors of numbers ({error}); {expected} were expected") from error
    if rows.size == 0 and rows.ndim == 1:
        rows = rows.reshape(0, n_features or 0)
    if rows.ndim != 2 or n_features not in (None, rows.shape[1]):
        one = "; pass a single vector as X[None]" if rows.ndim == 1 else ""
        raise InvalidValueError(f"X has the shape {rows.shape}; {expected} were expected{one}")
    return rows


def _require_some(listed: SourceItems) -> None:
    if not len(listed):
        raise InvalidValueError("X holds no images; at least one was expected")


def _require_images(pixels: Array, shape: tuple[int, ...]) -> None:
    """Raise InvalidValueError for an array that is not one of images."""
    if pixels.ndim == 3 and shape[2] in (3, 4) and min(shape[:2]) >= _MIN_SIDE:
        raise InvalidValueError(
            f"X has the shape {shape}, which is a single color image; {_IMAGES} were expected: pass image[None], "
            f"or X[..., None] for {shape[0]} gray images {shape[2]} pixels wide"
        )
    if pixels.ndim > 4 or (pixels.ndim == 4 and pixels.shape[3] not in (1, 3, 4)) or 0 in shape[1:]:
        raise InvalidValueError(f"X has the shape {shape}; {_IMAGES} were expected")


def _to_numpy(x: Tensor) -> Array:
    """Convert one image (C, H, W) or (H, W) to the channels-last array that `read_image` accepts."""
    image: Array = _channels_last(x.detach().cpu().numpy()[None])[0]
    return image


def _channels_last(X: Array) -> Array:
    """Return (N, H, W) and (N, H, W, C) unchanged, and (N, 1|3, H, W), as in torch, with channels last."""
    if X.ndim == 4 and X.shape[1] in (1, 3) and X.shape[3] not in (1, 3, 4):
        return X.transpose(0, 2, 3, 1)
    return X


def _is_source(x: Any) -> bool:
    return isinstance(x, str | Path | bytes | Image.Image) or (isinstance(x, np.ndarray | Tensor) and x.ndim >= 2)
