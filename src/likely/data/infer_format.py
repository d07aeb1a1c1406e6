"""Inference of the image format, size and color, from a sample of the listed images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from likely.data.decoding import ImageHeader, read_header
from likely.data.preprocessing import ImageFormat, ImageOptions, read_image
from likely.data.sources.base import ArrayItems, Listings, SourceItems
from likely.exceptions import DataError, ImageError

_DEFAULT_SIDE = 64  # pixels, unless all images have the same smaller size
_N_SIZES = 200  # images whose headers are read
_N_COLORS = 64  # images that are decoded to see if they are gray
_SAMPLE_SEED = 0  # fixed: another sample could give the same data another format


@dataclass(frozen=True)
class _SampledItem:
    """One image of the sample and its header."""

    items: SourceItems
    i: int
    header: ImageHeader


def infer_format(images: ImageOptions | ImageFormat, listings: Listings, name: str) -> ImageFormat | None:
    """Return the format of the listed images, None for vectors; raise DataError if splits mix both."""
    if _are_vectors(listings, name):
        return None
    if isinstance(images, ImageFormat):
        return images
    sample = _sample(listings)
    height, width = images.size or _common_size(sample)
    gray = _all_gray(sample) if images.color == "auto" else images.color == "gray"
    return ImageFormat(
        channels=1 if gray else 3,
        height=height,
        width=width,
        resize=images.resize,
        center_crop_ratio=images.center_crop_ratio,
    )


def native_size(listings: Listings) -> tuple[int, int] | None:
    """Return the median height and width in pixels of the images as stored; None for vectors or without readable images."""
    sample = () if _are_vectors(listings, "") else _sample(listings)
    if not sample:
        return None
    heights, widths = zip(*((one.header.height, one.header.width) for one in sample), strict=True)
    return int(np.median(heights)), int(np.median(widths))


def _are_vectors(listings: Listings, name: str) -> bool:
    shapes = {name: each.items.shape for name, each in listings.items() if isinstance(each.items, ArrayItems)}
    widths = {shape[1] if len(shape) == 2 else None for shape in shapes.values()}
    if len(widths) > 1:
        raise DataError(
            f"{name}: the splits have incompatible shapes {shapes}; images or vectors of one length were expected"
        )
    return widths not in (set(), {None})


def _sample(listings: Listings) -> Sequence[_SampledItem]:
    """Sample readable images of the first split, in a fixed order."""
    items = next((listing.items for listing in listings.values() if len(listing.items)), None)
    if items is None:
        return ()
    chosen = np.random.default_rng(_SAMPLE_SEED).choice(len(items), min(_N_SIZES, len(items)), replace=False)
    return tuple(sampled for i in chosen.tolist() if (sampled := _sampled(items, i)))


def _sampled(items: SourceItems, i: int) -> _SampledItem | None:
    try:
        return _SampledItem(items, i, read_header(items[i], items.name(i)))
    except ImageError:
        return None


def _common_size(sample: Sequence[_SampledItem]) -> tuple[int, int]:
    sizes = {(one.header.height, one.header.width) for one in sample}
    if len(sizes) == 1 and max(size := sizes.pop()) <= _DEFAULT_SIDE:
        return size
    return _DEFAULT_SIDE, _DEFAULT_SIDE


def _all_gray(sample: Sequence[_SampledItem]) -> bool:
    return bool(sample) and all(one.header.is_gray or _is_gray(one) for one in sample[:_N_COLORS])


def _is_gray(one: _SampledItem) -> bool:
    """Return True if red, green and blue are equal in all pixels, or if the image cannot be decoded."""
    format = ImageFormat(channels=3, height=_DEFAULT_SIDE, width=_DEFAULT_SIDE)
    try:
        pixels = read_image(one.items[one.i], format, name=one.items.name(one.i))
    except ImageError:
        return True
    return bool((pixels == pixels[:1]).all())
