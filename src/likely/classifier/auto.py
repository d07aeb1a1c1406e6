"""Which family, of what features: the choice of whoever names none, and the sentence that tells it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from likely.data.infer_format import native_size
from likely.data.sources.listing import list_splits
from likely.features.feature_extractors import FeatureOptions
from likely.options import AUTO

BACKBONE = "LIKELY_BACKBONE"  # in the environment: a backbone that is at hand for every training
MIN_BACKBONE_SIDE = 48  # pixels of the shorter side: in smaller images a backbone for photographs sees little
MIN_IMAGES_PER_CLASS = 50  # images of a class, by half of the classes, from which on a deep model of pixels pays


@dataclass(frozen=True)
class ModelChoice:
    """A family and what it is a density of; `why` says what was chosen and how to choose otherwise, "" if nothing was."""

    family: str
    features: FeatureOptions
    reason: str = ""


def default_backbone(model: str, features: FeatureOptions, data: str) -> FeatureOptions:
    """The features asked for, or of the backbone that is at hand if the images of DATA are large enough for one."""
    backbone = os.environ.get(BACKBONE)
    if model != AUTO or not backbone or features.model_fields_set:
        return features
    native = native_size(list_splits(data))
    if native is None or min(native) < MIN_BACKBONE_SIDE:
        return features
    return features.model_copy(update={"features": "backbone", "backbone": backbone})


def choose_model(
    model: str, features: FeatureOptions, shape: Sequence[int], class_counts: Sequence[int]
) -> ModelChoice:
    """What is learned of images (C, H, W), or vectors (D,), with so many labeled ones of each class."""
    if model != AUTO:
        return ModelChoice(model, features)
    typical = int(np.median(class_counts))
    few = f"{typical:,} image{'s' * (typical != 1)} a class"
    if len(shape) == 1:
        return ModelChoice("gaussian" if typical < MIN_IMAGES_PER_CLASS else "vae", features, "")
    if features.kind == "backbone":
        return ModelChoice(
            "gaussian", features, _said("gaussian", "on the backbone's features, which tell photographs apart")
        )
    if features.kind != "pixels":
        return ModelChoice("gaussian", features, _said("gaussian", f"on {features.kind} features"))
    if typical < MIN_IMAGES_PER_CLASS:
        how = features.model_copy(update={"features": "random"})
        why = f"on random features: {few} are too few for a deep model; --backbone FOLDER would see more"
        return ModelChoice("gaussian", how, _said("gaussian", why))
    return ModelChoice("vaegan", features, _said("vaegan", f"on pixels, with {few}"))


def _said(family: str, why: str) -> str:
    return f"--model auto: {family} {why}; --model NAME chooses otherwise"
