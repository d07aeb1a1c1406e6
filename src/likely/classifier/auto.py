"""Model selection: the family and the features for `--model auto`, by image size and number of images."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from likely.data.listing import DataListing
from likely.features.feature_extractors import FeatureOptions
from likely.options import AUTO

BACKBONE = "LIKELY_BACKBONE"  # environment variable: the default backbone


@dataclass(frozen=True)
class AutoOptions:
    """Thresholds of the choice.

    `min_backbone_side`: pixels of an image's shorter side below which a backbone for photographs lacks detail.
    `min_images_per_class`: median over the classes from which on a deep model of pixels is better.
    """

    min_backbone_side: int = 48
    min_images_per_class: int = 50


DEFAULT_OPTIONS = AutoOptions()


@dataclass(frozen=True)
class ModelChoice:
    """A family and its features; `reason` is a sentence for the user, "" if the family was given."""

    family: str
    features: FeatureOptions
    reason: str = ""


def default_backbone(model: str, features: FeatureOptions, data: DataListing) -> FeatureOptions:
    """Return the given features, or those of the default backbone if the images of DATA are large enough."""
    backbone = os.environ.get(BACKBONE)
    if model != AUTO or not backbone or features.model_fields_set:
        return features
    native = data.native_size
    if native is None or min(native) < DEFAULT_OPTIONS.min_backbone_side:
        return features
    return features.model_copy(update={"features": "backbone", "backbone": backbone})


def choose_model(
    model: str, features: FeatureOptions, shape: Sequence[int], class_counts: Sequence[int]
) -> ModelChoice:
    """Choose for inputs of a shape, (C, H, W) or (D,), and the numbers of labeled images of each class."""
    if model != AUTO:
        return ModelChoice(model, features)
    typical = int(np.median(class_counts))
    few = f"{typical:,} image{'s' * (typical != 1)} a class"
    if len(shape) == 1:
        return ModelChoice("gaussian" if typical < DEFAULT_OPTIONS.min_images_per_class else "vae", features, "")
    if features.kind == "backbone":
        return ModelChoice(
            "gaussian", features, _reason("gaussian", "on the backbone's features, which separate photographs well")
        )
    if features.kind != "pixels":
        return ModelChoice("gaussian", features, _reason("gaussian", f"on {features.kind} features"))
    if typical < DEFAULT_OPTIONS.min_images_per_class:
        random = features.model_copy(update={"features": "random"})
        why = f"on random features: {few} are too few for a deep model; --backbone FOLDER would help"
        return ModelChoice("gaussian", random, _reason("gaussian", why))
    return ModelChoice("vaegan", features, _reason("vaegan", f"on pixels, with {few}"))


def _reason(family: str, why: str) -> str:
    return f"--model auto: {family} {why}; --model NAME chooses otherwise"
