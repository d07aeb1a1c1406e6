"""The embedded digits: 1,797 handwritten ones, 8 x 8, that come with scikit-learn (Alpaydin and Kaynak 1998)."""

from __future__ import annotations

from functools import partial

import numpy as np

from likely.data.decoding import Array
from likely.data.sources.base import ArrayItems, Listings, SplitListing, integer_names
from likely.data.splits import split

WORD = "digits"
# Part of what the word means: with another seed, a model's test score would be of images it was trained on.
TEST_SEED = 0
TEST_FRACTION = 0.25


def listings() -> Listings:
    """The digits with their fixed test part, a quarter of each class."""
    from sklearn.datasets import load_digits  # a second that other data need not wait for

    digits = load_digits()
    # Scanned as counts 0..16 of the black pixels in a 4 x 4 block.
    pixels = np.rint(digits.images * (255 / 16)).astype(np.uint8)
    parts = split(digits.target, validation=0, calibration=0, test=TEST_FRACTION, seed=TEST_SEED)
    return {"train": _listing(pixels, digits.target, parts.train), "test": _listing(pixels, digits.target, parts.test)}


def _listing(pixels: Array, labels: Array, indices: Array) -> SplitListing:
    rows = pixels[indices]
    return SplitListing(ArrayItems(WORD, rows.shape, partial(np.asarray, rows)), integer_names(labels[indices]))
