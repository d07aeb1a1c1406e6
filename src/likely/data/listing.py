"""Listing of DATA: the items of its splits, their class names and image format, before the images are read."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from likely.data.decoding import ImageHeader, read_header
from likely.data.preprocessing import ImageFormat, ImageOptions, read_image
from likely.data.sources.base import SPLITS, ArrayItems, Listings, SourceItems
from likely.data.sources.digits import NAME as DIGITS
from likely.data.sources.digits import list_digits
from likely.data.sources.folder import list_folder
from likely.data.sources.idx import FILE_NAME as IDX_NAME
from likely.data.sources.idx import list_idx
from likely.data.sources.manifest import READERS, list_manifest
from likely.data.sources.npz import list_npz
from likely.exceptions import DataError, ImageError, did_you_mean

_SOURCES = "a folder of class folders, idx files, an .npz, a .csv, .jsonl or .parquet manifest, or the word 'digits'"
_DEFAULT_SIDE = 64  # pixels, unless all images have the same smaller size
_N_SIZES = 200  # images whose headers are read
_N_COLORS = 64  # images that are decoded to see if they are gray
_SAMPLE_SEED = 0  # fixed: another sample could give the same data another format


@dataclass(frozen=True)
class _SampledItem:
    """One image of a sample and its header."""

    items: SourceItems
    i: int
    header: ImageHeader


@dataclass(frozen=True, eq=False)
class DataListing:
    """The items of each split of DATA, not yet read; `name` is DATA in messages."""

    name: str
    splits: Listings
    _samples: dict[str, Sequence[_SampledItem]] = field(default_factory=dict, init=False, repr=False)

    @cached_property
    def class_names(self) -> tuple[str, ...]:
        """Class names of all splits, sorted numerically if all are whole numbers, else alphabetically."""
        names = {name for listing in self.splits.values() for name in listing.labels if name is not None}
        if all(name.isdecimal() and name.isascii() for name in names):
            return tuple(sorted(names, key=lambda name: (int(name), name)))
        return tuple(sorted(names))

    def are_photographs(self, min_side: int) -> bool:
        """Return True for image files whose median shorter side has `min_side` pixels, more than half of them in color."""
        sample = self._sample(SPLITS)
        if not sample or isinstance(sample[0].items, ArrayItems):
            return False
        if np.median([min(one.header.height, one.header.width) for one in sample]) < min_side:
            return False
        gray = [_is_gray(one) for one in sample[:_N_COLORS]]
        return 2 * sum(gray) < len(gray)

    def infer_format(self, images: ImageOptions | ImageFormat, splits: Collection[str] = SPLITS) -> ImageFormat | None:
        """Return the format of the images in the splits, None for vectors; raise DataError if splits mix both."""
        if self._are_vectors(splits):
            return None
        if isinstance(images, ImageFormat):
            return images
        sample = self._sample(splits)
        height, width = images.size or _common_size(sample)
        gray = _all_gray(sample) if images.color == "auto" else images.color == "gray"
        return ImageFormat(
            channels=1 if gray else 3,
            height=height,
            width=width,
            resize=images.resize,
            center_crop_ratio=images.center_crop_ratio,
            resample=images.resample,
        )

    def _are_vectors(self, splits: Collection[str]) -> bool:
        requested = {split: each.items for split, each in self.splits.items() if split in splits}
        shapes = {split: items.shape for split, items in requested.items() if isinstance(items, ArrayItems)}
        widths = {shape[1] if len(shape) == 2 else None for shape in shapes.values()}
        if len(widths) > 1:
            raise DataError(
                f"{self.name}: the splits have incompatible shapes {shapes}; images or vectors of one length were expected"
            )
        return widths not in (set(), {None})

    def _sample(self, splits: Collection[str]) -> Sequence[_SampledItem]:
        """Sample readable images of the first of the splits that has any, in a fixed order and only once."""
        first = next((split for split in SPLITS if split in splits and self._has_items(split)), None)
        if first is None:
            return ()
        if first not in self._samples:
            self._samples[first] = _sampled(self.splits[first].items)
        return self._samples[first]

    def _has_items(self, split: str) -> bool:
        return split in self.splits and len(self.splits[split].items) > 0


def list_data(data: str | Path) -> DataListing:
    """List the splits of DATA without reading images; raise DataError if it is missing or not a known source."""
    return DataListing(str(data), list_digits() if data == DIGITS else _list_path(Path(data)))


def _list_path(path: Path) -> Listings:
    if not path.exists():
        raise DataError(f"{path}: there is no such file or folder{_suggestion(path)}")
    if path.is_dir():
        return list_idx(path) or list_folder(path)
    if path.suffix.lower() == ".npz":
        return list_npz(path)
    if path.suffix.lower() in READERS:
        return list_manifest(path)
    expected = f"the folder of the idx files, {path.parent}," if IDX_NAME.fullmatch(path.name) else _SOURCES
    raise DataError(f"{path}: is not a known data source; {expected} was expected")


def _suggestion(path: Path) -> str:
    siblings = (entry.name for entry in path.parent.iterdir()) if path.parent.is_dir() else iter(())
    return did_you_mean(path.name, [*siblings, DIGITS])


def _sampled(items: SourceItems) -> Sequence[_SampledItem]:
    chosen = np.random.default_rng(_SAMPLE_SEED).choice(len(items), min(_N_SIZES, len(items)), replace=False)
    headers = ((i, _header(items, i)) for i in chosen.tolist())
    return tuple(_SampledItem(items, i, header) for i, header in headers if header is not None)


def _header(items: SourceItems, i: int) -> ImageHeader | None:
    try:
        return read_header(items[i], items.name(i))
    except ImageError:
        return None


def _common_size(sample: Sequence[_SampledItem]) -> tuple[int, int]:
    sizes = {(one.header.height, one.header.width) for one in sample}
    if len(sizes) == 1 and max(size := sizes.pop()) <= _DEFAULT_SIDE:
        return size
    return _DEFAULT_SIDE, _DEFAULT_SIDE


def _all_gray(sample: Sequence[_SampledItem]) -> bool:
    return bool(sample) and all(_is_gray(one) for one in sample[:_N_COLORS])


def _is_gray(one: _SampledItem) -> bool:
    """Return True if red, green and blue are equal in all pixels, or if the image cannot be decoded."""
    if one.header.is_gray:
        return True
    format = ImageFormat(channels=3, height=_DEFAULT_SIDE, width=_DEFAULT_SIDE)
    try:
        pixels = read_image(one.items[one.i], format, name=one.items.name(one.i))
    except ImageError:
        return True
    return bool((pixels == pixels[:1]).all())
