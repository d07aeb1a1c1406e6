"""From a model and images to the figures that judgments rest on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from likely.base import GenerativeModel, ModelOutputs, Scorer, SupportsMissingPixels
from likely.features.model_input import ModelInput, complexity
from likely.inference.nonconformity import Statistics
from likely.inference.posterior import log_posterior, log_uniform
from likely.networks.pixel_scaling import to_eight_bit


def model_outputs(model: Scorer, batches: Iterable[ModelInput]) -> ModelOutputs:
    """Every figure of the model that a judgment takes, for all images together."""
    return _concatenate([_batch_outputs(model, seen) for seen in batches], model)


def statistics_of_true_class(model: Scorer, batches: Iterable[tuple[ModelInput, Tensor]]) -> tuple[Tensor, Tensor]:
    """The traits (N, D) of images under their own classes, and these (N,), a batch of images and labels at a time."""
    pieces = [(Statistics.of(_batch_outputs(model, seen)).of_true_class(y), y) for seen, y in batches]
    traits, labels = (torch.cat(part) for part in zip(*pieces, strict=True))
    return traits, labels


def _batch_outputs(model: Scorer, seen: ModelInput) -> ModelOutputs:
    found = _own_outputs(model, seen.x)
    both = [each for each in (found.features, seen.extra_features) if each is not None]
    return replace(found, features=torch.cat(both, 1)) if both else found


def _own_outputs(model: Scorer, x: Tensor) -> ModelOutputs:
    if isinstance(model, GenerativeModel):
        found = model.outputs(x).cpu()
        if found.features is None or x.ndim != 4:
            return found
        return replace(found, features=torch.cat([found.features.float(), complexity(to_eight_bit(x.detach()))], 1))
    # A softmax classifier detects unknown images by its posterior alone (Hendrycks 2017, the maximum softmax probability).
    scores = model.log_scores(x).cpu()
    return ModelOutputs(scores, None, log_posterior(scores, log_uniform(model.task.n_classes))[..., None])


def masked_outputs(model: Scorer, batches: Iterable[tuple[Tensor, Tensor]]) -> ModelOutputs:
    """The same of images of which only a part is observed, given batches of images and masks (B, H, W) bool."""
    assert isinstance(model, SupportsMissingPixels)
    pieces = []
    for x, observed in batches:
        L = model.observed_log_likelihood(x, observed).cpu()
        n = observed.flatten(1).sum(1, keepdim=True).cpu() * x.shape[1]
        pieces.append(ModelOutputs(L, L, (L / n.clamp_min(1))[:, :, None]))
    return _concatenate(pieces, model)


def _concatenate(batches: Sequence[ModelOutputs], model: Scorer) -> ModelOutputs:
    return ModelOutputs.concatenate(batches) if batches else ModelOutputs.empty(model.task.n_classes)
