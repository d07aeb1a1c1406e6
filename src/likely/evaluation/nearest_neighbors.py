"""The training images of a class that are most like an image, as the model sees them."""

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
    """The n images of class c in a part that are nearest to x (C, H, W), in [0, 1], the nearest first.

    Distances are those of the model's features, each in units of its spread within the class; of pixels where a family has
    no features.
    """
    of_class = images.subset(np.flatnonzero(images.labels == c))
    if not len(of_class):
        return of_class
    blocks = np.split(np.arange(len(of_class)), range(BATCH_SIZE, len(of_class), BATCH_SIZE))
    theirs = torch.cat([_seen(classifier, to_unit(of_class.images.batch(block))) for block in blocks])
    spread = theirs.std(0, correction=0).clamp_min(1e-6)
    apart = ((theirs - _seen(classifier, x[None])) / spread).square().sum(1)
    return of_class.subset(apart.argsort()[:n].numpy())


def _seen(classifier: Predictor, x: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, F)."""
    model, features = classifier.model_, classifier.features_
    if features is not None:
        seen: Tensor = features(x.to(classifier.device)).cpu()
        return seen
    return model.features(x.to(classifier.device)).cpu() if isinstance(model, HasFeatures) else x.flatten(1)
