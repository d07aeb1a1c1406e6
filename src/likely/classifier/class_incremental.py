"""Class-incremental learning: a new class is learned from its own images, and the others stay as they are."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from likely.base import ModelOutputs, Scorer, SupportsNewClasses
from likely.classifier.predictor import Exemplars, Predictor
from likely.classifier.scoring import model_outputs
from likely.data.dataset import fingerprint, to_hashes
from likely.data.decoding import ImageWarning
from likely.exceptions import InvalidValueError
from likely.features.feature_extraction import ModelInput
from likely.inference.decision import DecisionRule
from likely.models.new_class import DEFAULT_NEW_CLASS

N_FOLDS = 5


def with_new_class(predictor: Predictor, name: Any, inputs: Any) -> Predictor:
    """Return a predictor with one more class, learned from its images alone.

    The prior of the new class is the mean of the others'. Raises InvalidValueError if the family cannot learn a class
    separately, if the class exists, or if no image can be read.
    """
    model = predictor.model
    if not isinstance(model, SupportsNewClasses):
        raise InvalidValueError(
            f"{predictor.family!r} learns its classes from each other, and none apart; train it anew with {name!r}"
        )
    if str(name) in predictor.labels:
        raise InvalidValueError(f"there is a class {name!r} already; the name of a new one was expected")
    images = (loaded := predictor.load_images(inputs)).images
    for error in filter(None, loaded.errors):
        warnings.warn(error.message, ImageWarning, stacklevel=3)
    if not len(images):
        raise InvalidValueError(f"no image of {name!r} could be read; at least one was expected")
    batch = ModelInput.concatenate(list(predictor.input_pipeline.model_inputs(images)))
    larger, rule = _with_new_class(model, predictor.decision_rule, batch, predictor.exemplars)
    decoder = predictor.feature_decoder
    if decoder is not None:
        decoder = decoder.with_new_class(images, len(predictor.labels))
    pixels = images.batch(np.arange(len(images))).numpy()
    return replace(
        predictor,
        model=larger,
        decision_rule=rule,
        exemplars=_exemplars_with_new_class(predictor.exemplars, larger, batch.x),
        classes=np.append(predictor.classes, [name]),
        log_prior=_prior_with_new_class(predictor.log_prior),
        feature_decoder=decoder,
        hashes=np.concatenate([predictor.hashes, to_hashes(map(fingerprint, pixels))]),
        id=None,
    )


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
def _with_new_class(
    model: Scorer, rule: DecisionRule, inputs: ModelInput, exemplars: Exemplars | None
) -> tuple[Scorer, DecisionRule]:
    """Return model and decision rule with one more class.

    Cross-conformal prediction (Vovk 2015): the scores that calibrate are of images that the class was learned without, a
    fifth at a time.
    """
    assert isinstance(model, SupportsNewClasses)
    n = len(inputs.x)
    fold = torch.randperm(n, generator=torch.Generator().manual_seed(0)) % N_FOLDS
    found = []
    for k in range(min(N_FOLDS, n) if n > 1 else 0):
        without = model.with_new_class(inputs.x[fold != k], exemplars)
        found.append(model_outputs(without, inputs.subset(fold == k).split(DEFAULT_NEW_CLASS.batch_size)))
    larger = model.with_new_class(inputs.x, exemplars)
    none = ModelOutputs.empty(model.task.n_classes + 1, rule.nonconformity.mean.shape[1])
    return larger, rule.with_new_class(ModelOutputs.concatenate(found) if found else none)


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
