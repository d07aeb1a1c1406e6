"""Images of a dataset as readers see them: from their files, larger than the model's images, under short names."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from likely.data.decoding import decode
from likely.data.image_dataset import ImageDataset
from likely.evaluation.metrics import Ints
from likely.exceptions import ImageError
from likely.reporting.html.content import Images

MAX_SIDE = 512  # pixels
_MAX_COMPARED = 1000  # names that determine the folder that all share


def originals(images: ImageDataset, indices: Ints) -> tuple[Images, ...]:
    """Return images (C, H, W) of at most MAX_SIDE pixels from their files, or in the model's format if they have none."""
    return tuple(_original(images, i) for i in indices.tolist())


def _original(images: ImageDataset, i: int) -> Images:
    name, (channels, _, _) = images.name(i), images.shape
    try:
        image = decode(Path(name), "L" if channels == 1 else "RGB", (MAX_SIDE, MAX_SIDE), name)
    except ImageError:
        return np.asarray(images.batch([i])[0])
    image.thumbnail((MAX_SIDE, MAX_SIDE))
    return np.atleast_3d(np.asarray(image)).transpose(2, 0, 1)


def short_names(images: ImageDataset, indices: Ints) -> tuple[str, ...]:
    """Return the names of images without the folder that the names of the dataset share, so that no path is disclosed."""
    compared = np.linspace(0, len(images) - 1, min(_MAX_COMPARED, len(images))).astype(np.int64)
    names = [images.name(i) for i in indices.tolist()]
    shared = _shared_folder([*map(images.name, compared.tolist()), *names])
    return tuple(name.removeprefix(shared) for name in names)


def _shared_folder(names: Sequence[str]) -> str:
    """Return the deepest folder that holds all names, with a separator at its end."""
    try:
        shared = os.path.commonpath({Path(name).parent for name in names})
    except ValueError:  # absolute and relative names, or none
        return ""
    return f"{shared}{os.sep}"
