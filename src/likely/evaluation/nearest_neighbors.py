"""Nearest training images of an image, in the features of the model."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from likely.base import HasFeatures
from likely.classifier import BATCH_SIZE, Predictor
from likely.data.dataset import LabeledImages
from likely.networks.pixel_scaling import to_unit


@torch.inference_mode()
def nearest_images(classifier: Predictor, x: Tensor, images: LabeledImages, c: int, n: int) -> LabeledImages:
    """Return the n images of class c that are nearest to x (C, H, W), in [0, 1], the nearest first.

    Distances are between the model's features, standardized within the class; between pixels for a model without features.
    """
    of_class = images.subset(np.flatnonzero(images.labels == c))
    if not len(of_class):
        return of_class
    blocks = np.split(np.arange(len(of_class)), range(BATCH_SIZE, len(of_class), BATCH_SIZE))
    of_images = torch.cat([_features(classifier, to_unit(of_class.images.batch(block))) for block in blocks])
    deviation = of_images.std(0, correction=0).clamp_min(1e-6)
    distance = ((of_images - _features(classifier, x[None])) / deviation).square().sum(1)
    return of_class.subset(distance.argsort()[:n].numpy())


def _features(classifier: Predictor, x: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, F)."""
    model, features = classifier.model, classifier.features
    if features is not None:
        values: Tensor = features(x.to(classifier.device)).cpu()
        return values
    return model.features(x.to(classifier.device)).cpu() if isinstance(model, HasFeatures) else x.flatten(1)
