"""Masks: the pixels of an image that a model may use."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from likely import models
from likely.base import Scorer, SupportsMissingPixels
from likely.exceptions import InvalidValueError, UnsupportedError
from likely.features.feature_extraction import FeaturePipeline


def to_masks(mask: ArrayLike, n: int, size: Sequence[int]) -> Tensor:
    """Return one mask (H, W), or n of them (n, H, W), as bool (1, H, W) or (n, H, W); InvalidValueError otherwise."""
    masks, size = torch.from_numpy(np.array(mask, dtype=bool)), tuple(size)
    if len(size) != 2 or masks.shape not in (size, (n, *size)):
        raise InvalidValueError(f"mask has the shape {tuple(masks.shape)}; {size} was expected, or {(n, *size)}")
    return masks.reshape(-1, *size)


def supports_missing_pixels(model: Scorer, features: FeaturePipeline | None) -> SupportsMissingPixels:
    """Return the model as one that scores images with missing pixels; UnsupportedError if it cannot."""
    if features is not None:
        raise UnsupportedError("features are computed from whole images; a mask needs a model of pixels")
    if not isinstance(model, SupportsMissingPixels):
        able = models.families_with(SupportsMissingPixels)
        raise UnsupportedError(f"{type(model).__name__} needs the whole image; families that support a mask: {able}")
    return model
