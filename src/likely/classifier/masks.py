"""Masks: which pixels of images a model is to go by."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from likely import models
from likely.base import SupportsMissingPixels
from likely.data.sources.base import LoadError
from likely.exceptions import InvalidValueError

if TYPE_CHECKING:
    from likely.classifier.predictor import Predictor


def masks_for(classifier: Predictor, mask: ArrayLike, problems: Sequence[LoadError | None]) -> Tensor:
    """(N, H, W) bool of the inputs that can be read, which have no problem."""
    masks, n = validate_masks(classifier, mask, len(problems)), len(problems)
    readable = torch.tensor([problem is None for problem in problems], dtype=torch.bool)
    return masks.expand(n, *masks.shape[-2:])[readable]


def validate_masks(classifier: Predictor, mask: ArrayLike, n: int) -> Tensor:
    """One mask (H, W) bool or n of them, (n, H, W).

    A ValueError if they are no masks of the model's images, or if the family cannot use them.
    """
    if classifier.features_ is not None:
        raise InvalidValueError("features are made of whole images; a model of pixels can go by a part of one")
    if not isinstance(classifier.model_, SupportsMissingPixels):
        able = models.families_with(SupportsMissingPixels)
        raise InvalidValueError(
            f"{classifier.family!r} needs the whole image; families that can go by a part of it: {able}"
        )
    masks, size = torch.from_numpy(np.array(mask, dtype=bool)), classifier.shape[1:]
    if len(size) != 2 or masks.shape not in (size, (n, *size)):
        raise InvalidValueError(f"observed has the shape {tuple(masks.shape)}; {size} was expected, or {(n, *size)}")
    return masks
