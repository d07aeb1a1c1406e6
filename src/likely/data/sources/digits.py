"""The embedded digits: 1,797 handwritten digits of 8 x 8 pixels from scikit-learn (Alpaydin and Kaynak 1998)."""

from __future__ import annotations

from functools import partial

import numpy as np

from likely.data.decoding import Array
from likely.data.sources.base import ArrayItems, Listings, SplitListing, integer_names
from likely.data.splits import SplitFractions, split

NAME = "digits"
# Fixed: with another test set, a trained model would be tested on images that it was trained on.
_TEST_FRACTIONS, _TEST_SEED = SplitFractions(validation=0, calibration=0, test=0.25), 0


def list_digits() -> Listings:
    """List the digits with their fixed test split, a quarter of each class."""
    from sklearn.datasets import load_digits  # takes a second, which other data can save

    digits = load_digits()
    # Stored as counts 0..16 of the black pixels in a 4 x 4 block.
    pixels = np.rint(digits.images * (255 / 16)).astype(np.uint8)
    indices = split(digits.target, _TEST_FRACTIONS, seed=_TEST_SEED)
    return {
        "train": _listing(pixels, digits.target, indices.train),
        "test": _listing(pixels, digits.target, indices.test),
    }


def _listing(pixels: Array, labels: Array, indices: Array) -> SplitListing:
    rows = pixels[indices]
    return SplitListing(ArrayItems(NAME, rows.shape, partial(np.asarray, rows)), integer_names(labels[indices]))
