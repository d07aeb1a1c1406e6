"""The format that data ask for: what was left open of the images' size and color, settled by looking at a sample."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from likely.data.decoding import ImageHeader, read_header
from likely.data.preprocessing import ImageFormat, ImageOptions, read_image
from likely.data.sources.base import ArrayItems, Listings, SourceItems
from likely.exceptions import DataError, ImageError

DEFAULT_SIDE = 64
N_SIZES = 200
N_COLORS = 64
# The sample is part of the answer: another one could give the same data another format.
SAMPLE_SEED = 0


@dataclass(frozen=True)
class SampledItem:
    """One image of the sample and what its header says."""

    items: SourceItems
    i: int
    header: ImageHeader


def infer_format(images: ImageOptions | ImageFormat, listings: Listings, name: str) -> ImageFormat | None:
    """The format of the listed images, None if they are vectors; raises DataError if some are and some are not."""
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
    """The median height and width of the listed images as they lie there; None for vectors, or if none can be read."""
    sample = () if _are_vectors(listings, "") else _sample(listings)
    if not sample:
        return None
    heights, widths = zip(*((one.header.height, one.header.width) for one in sample), strict=True)
    return int(np.median(heights)), int(np.median(widths))


def _are_vectors(listings: Listings, name: str) -> bool:
    shapes = {part: listing.items.shape for part, listing in listings.items() if isinstance(listing.items, ArrayItems)}
    widths = {shape[1] if len(shape) == 2 else None for shape in shapes.values()}
    if len(widths) > 1:
        raise DataError(f"{name}: the parts do not go together; their shapes are {shapes}")
    return widths not in (set(), {None})


def _sample(listings: Listings) -> Sequence[SampledItem]:
    """Some images of the first part, in a fixed order; those that cannot be read are no part of it."""
    items = next((listing.items for listing in listings.values() if len(listing.items)), None)
    if items is None:
        return ()
    chosen = np.random.default_rng(SAMPLE_SEED).choice(len(items), min(N_SIZES, len(items)), replace=False)
    return tuple(sampled for i in chosen.tolist() if (sampled := _sampled(items, i)))


def _sampled(items: SourceItems, i: int) -> SampledItem | None:
    try:
        return SampledItem(items, i, read_header(items[i], items.name(i)))
    except ImageError:
        return None


def _common_size(sample: Sequence[SampledItem]) -> tuple[int, int]:
    sizes = {(one.header.height, one.header.width) for one in sample}
    if len(sizes) == 1 and max(size := sizes.pop()) <= DEFAULT_SIDE:
        return size
    return DEFAULT_SIDE, DEFAULT_SIDE


def _all_gray(sample: Sequence[SampledItem]) -> bool:
    return bool(sample) and all(one.header.is_gray or _is_gray(one) for one in sample[:N_COLORS])


def _is_gray(one: SampledItem) -> bool:
    """Whether red, green and blue are equal all over; a file that will not decode is no evidence of color."""
    format = ImageFormat(channels=3, height=DEFAULT_SIDE, width=DEFAULT_SIDE)
    try:
        pixels = read_image(one.items[one.i], format, name=one.items.name(one.i))
    except ImageError:
        return True
    return bool((pixels == pixels[:1]).all())
