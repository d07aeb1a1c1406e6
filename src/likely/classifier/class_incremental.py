"""Class-incremental learning: one class learns from images, new or not; the others stay as they are."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from likely.base import ModelOutputs, Scorer, SupportsMoreImages, SupportsNewClasses
from likely.classifier.calibration import DEFAULT_OPTIONS as CALIBRATION
from likely.classifier.predictor import Exemplars, Predictor
from likely.classifier.scoring import model_outputs
from likely.data.dataset import Integers, image_hashes
from likely.data.decoding import ImageWarning
from likely.data.image_dataset import ImageDataset
from likely.exceptions import InvalidValueError, UnsupportedError
from likely.features.feature_extraction import ModelInput
from likely.models.new_class import DEFAULT_NEW_CLASS


def extend(predictor: Predictor, name: Any, inputs: Any) -> Predictor:
    """Return a predictor that learned a class from images: a new class, or more images for one that it has.

    Raises InvalidValueError or UnsupportedError if the family cannot learn a class separately, and InvalidValueError if no
    image can be read or all were trained on.
    """
    if len(predictor.decision_rule.known_unknowns.distance):
        raise UnsupportedError(
            "the model was trained with unknown images; train it anew with the images of all classes"
        )
    return (_with_more_images if str(name) in predictor.labels else _with_new_class)(predictor, name, inputs)


def _load_images(predictor: Predictor, name: Any, inputs: Any) -> ImageDataset:
    """Load the images of a class; those that cannot be read give a warning."""
    images = (loaded := predictor.load_images(inputs)).images
    for error in filter(None, loaded.errors):
        warnings.warn(error.message, ImageWarning, stacklevel=4)
    if not len(images):
        raise InvalidValueError(f"no image of {name!r} could be read; at least one was expected")
    return images


def _without_known_images(predictor: Predictor, name: Any, images: ImageDataset) -> tuple[ImageDataset, Integers]:
    """Leave out images that the predictor was trained on, with a warning; return the others with their hashes."""
    hashes = _hashes(images)
    is_new = ~np.isin(hashes, predictor.hashes)
    if not is_new.any():
        raise InvalidValueError(f"the model was trained on all images of {name!r}; new ones were expected")
    for i in np.flatnonzero(~is_new).tolist():
        warnings.warn(f"{images.name(i)}: the model was trained on this image", ImageWarning, stacklevel=4)
    return images.subset(np.flatnonzero(is_new)), hashes[is_new]


def _with_new_class(predictor: Predictor, name: Any, inputs: Any) -> Predictor:
    """Add a class, whose prior is the mean of the others'."""
    model = predictor.model
    if not isinstance(model, SupportsNewClasses):
        raise InvalidValueError(
            f"{predictor.family!r} learns its classes from each other, and none apart; train it anew with {name!r}"
        )
    images = _load_images(predictor, name, inputs)
    batch = ModelInput.concatenate(list(predictor.input_pipeline.model_inputs(images)))
    exemplars = predictor.exemplars
    larger, out_of_fold = _fit_in_folds(lambda x: model.with_new_class(x, exemplars), batch)
    none = ModelOutputs.empty(model.task.n_classes + 1, predictor.decision_rule.nonconformity.mean.shape[1])
    return replace(
        _with_images(predictor, images, _hashes(images), len(predictor.labels)),
        model=larger,
        decision_rule=predictor.decision_rule.with_new_class(out_of_fold or none),
        exemplars=_exemplars_with_new_class(predictor.exemplars, larger, batch.x),
        classes=np.append(predictor.classes, [name]),
        log_prior=_prior_with_new_class(predictor.log_prior),
    )


def _with_more_images(predictor: Predictor, name: Any, inputs: Any) -> Predictor:
    """Improve a class; priors and the other classes stay as they are."""
    model, c = predictor.model, predictor.index(name)
    if not isinstance(model, SupportsMoreImages):
        raise UnsupportedError(
            f"{predictor.family!r} cannot learn more images of {name!r} alone; train it anew with them, or use 'gaussian'"
        )
    images, hashes = _without_known_images(predictor, name, _load_images(predictor, name, inputs))
    batch = ModelInput.concatenate(list(predictor.input_pipeline.model_inputs(images)))
    better, out_of_fold = _fit_in_folds(lambda x: model.with_more_images(x, c), batch)
    rule = predictor.decision_rule
    rule = rule if out_of_fold is None else rule.with_more_images(out_of_fold, c)
    return replace(_with_images(predictor, images, hashes, c), model=better, decision_rule=rule)


def _with_images(predictor: Predictor, images: ImageDataset, hashes: Integers, c: int) -> Predictor:
    """Note images of class c in the hashes and in the image decoder; the predictor is a new one without a name."""
    decoder = predictor.feature_decoder
    return replace(
        predictor,
        feature_decoder=None if decoder is None else decoder.with_new_class(images, c),
        hashes=np.concatenate([predictor.hashes, hashes]),
        id=None,
    )


def _hashes(images: ImageDataset) -> Integers:
    return image_hashes(images.batch(np.arange(len(images))).numpy())


@torch.inference_mode()
def exemplar_features(model: Scorer, batches: Iterable[Tensor], labels: Tensor) -> Exemplars | None:
    """Return features of images with their labels, by which later classes are separated from theirs; None if unused."""
    if not isinstance(model, SupportsNewClasses):
        return None
    found = []
    for x in batches:
        found.append(model.exemplar_features(x).cpu())
        if not found[0].shape[1]:  # the model uses none
            return None
    return (torch.cat(found), labels) if found else None


@torch.no_grad()
def _fit_in_folds(fit: Callable[[Tensor], Scorer], inputs: ModelInput) -> tuple[Scorer, ModelOutputs | None]:
    """Fit a model to all images of a class, and return the outputs for each from a model that was fitted without it.

    Cross-conformal prediction (Vovk 2015), a fifth of the images at a time; None for a single image.
    """
    n, n_folds = len(inputs.x), CALIBRATION.n_folds
    fold = torch.randperm(n, generator=torch.Generator().manual_seed(0)) % n_folds
    found = []
    for k in range(min(n_folds, n) if n > 1 else 0):
        found.append(
            model_outputs(fit(inputs.x[fold != k]), inputs.subset(fold == k).split(DEFAULT_NEW_CLASS.batch_size))
        )
    return fit(inputs.x), ModelOutputs.concatenate(found) if found else None


def _exemplars_with_new_class(exemplars: Exemplars | None, model: Scorer, x: Tensor) -> Exemplars | None:
    """Append the features of the images x of the model's last class."""
    last = torch.full((len(x),), model.task.n_classes - 1)
    new = exemplar_features(model, torch.split(x, DEFAULT_NEW_CLASS.batch_size), last)
    if exemplars is None or new is None:
        return None
    return torch.cat([exemplars[0], new[0]]), torch.cat([exemplars[1], new[1]])


def _prior_with_new_class(log_prior: Tensor) -> Tensor:
    """Return log π (K + 1,): the new class gets the mean of the others, whose ratios stay."""
    K = len(log_prior)
    fractions = torch.cat([log_prior.exp() * K, log_prior.new_ones(1)]) / (K + 1)
    return fractions.log()
