"""Groups of images that show the same thing: they stay on one side of every split and in one fold.

A manifest may list them. Otherwise photographs are grouped that are near-duplicates of each other, or of one burst: similar and
taken shortly after one another. Images of one group are not independent: divided between training and test images, they
make a model look better than it is on new images.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Final

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from likely.data.dataset import Dataset, Integers, LabeledImages, concatenate
from likely.data.decoding import capture_time
from likely.data.image_dataset import N_THREADS, ImageDataset
from likely.data.quality.near_duplicates import Thumbnails
from likely.options import Options


class GroupOptions(Options):
    """Constants of the search for groups."""

    max_images: int = Field(default=50_000, ge=0, description="images up to which groups are searched")
    burst_seconds: float = Field(default=60, ge=0, description="longest time between two successive images of a burst")
    min_burst_correlation: float = Field(
        default=0.9, gt=0, lt=1, description="smallest correlation of two of its thumbnails"
    )
    burst_neighbors: int = Field(default=4, ge=1, description="images taken before that an image is compared with")


DEFAULT_GROUPS: Final = GroupOptions()


def searches_groups(dataset: Dataset, options: GroupOptions = DEFAULT_GROUPS) -> bool:
    """Return True if groups are searched among the loaded images: few enough files, of which no groups are listed."""
    splits = dataset.splits.values()
    are_few = sum(map(len, splits)) <= options.max_images
    return dataset.are_files and are_few and all(images.groups is None for images in splits)


def with_groups(dataset: Dataset, options: GroupOptions = DEFAULT_GROUPS) -> Dataset:
    """Return the dataset with the groups of its images, over all loaded splits, where `searches_groups`."""
    if not dataset.splits or not searches_groups(dataset, options):
        return dataset
    splits = dataset.splits
    groups = _find_groups(concatenate(list(splits.values())), options)
    of_splits = np.split(groups, np.cumsum([len(images) for images in splits.values()])[:-1])
    found = zip(splits.items(), of_splits, strict=True)
    return dataset.with_splits({name: replace(images, groups=own) for (name, images), own in found})


def _find_groups(images: LabeledImages, options: GroupOptions) -> Integers:
    """Return the group of each image: the connected components of exact duplicates, near-duplicates and bursts, (N,)."""
    thumbnails = Thumbnails.from_images(images)
    times = _capture_times(images.images)
    return merge_groups(images.hashes, [*thumbnails.near_duplicates(), *_bursts(thumbnails, times, options)])


def merge_duplicates(ids: Integers, hashes: Integers) -> Integers:
    """Merge groups `ids` (N,) with images of equal `hashes` (N,)."""
    _, first, duplicate_of = np.unique(hashes, return_index=True, return_inverse=True)
    return merge_groups(ids, [(np.arange(len(ids)), first[duplicate_of])])


def merge_groups(ids: Integers, pairs: Iterable[tuple[Integers, Integers]]) -> Integers:
    """Merge groups `ids` (N,) that are linked by pairs of images (i, j), (n,) each; a group's id is the least of its images."""
    # A service starts without scipy.
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    _, first, group = np.unique(ids, return_index=True, return_inverse=True)
    linked = [(np.arange(len(ids)), first[group]), *pairs]
    i, j = (np.concatenate(each) for each in zip(*linked, strict=True))
    graph = coo_array((np.ones(len(i), np.bool_), (i, j)), (len(ids), len(ids)))
    n, component = connected_components(graph, directed=False)
    least = np.full(n, np.iinfo(np.int64).max)
    np.minimum.at(least, component, ids)
    merged: Integers = least[component]
    return merged


def _bursts(
    thumbnails: Thumbnails, times: NDArray[np.float64], options: GroupOptions
) -> Iterator[tuple[Integers, Integers]]:
    """Iterate over pairs of similar images with little time between them; `times` (N,) are in seconds, or NaN."""
    order = np.argsort(times, kind="stable")[: int((~np.isnan(times)).sum())]
    for lag in range(1, options.burst_neighbors + 1):
        i, j = order[lag:], order[:-lag]
        near = times[i] - times[j] <= options.burst_seconds
        i, j = i[near], j[near]
        similar = thumbnails.correlation(i, thumbnails, j) >= options.min_burst_correlation
        yield i[similar], j[similar]


def _capture_times(images: ImageDataset) -> NDArray[np.float64]:
    """Return the time in seconds at which each file was taken, NaN where it is not recorded, (N,)."""
    with ThreadPoolExecutor(N_THREADS) as pool:
        return np.fromiter(pool.map(capture_time, map(images.name, range(len(images)))), np.float64, len(images))
