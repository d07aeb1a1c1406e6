"""From a model and images to the figures that judgments rest on."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import torch
from torch import Tensor

from likely.base import Diagnostics, GenerativeModel, Scorer, SupportsMissingPixels
from likely.features.model_input import ModelInput, complexity
from likely.inference.decision import ModelOutputs
from likely.inference.nonconformity import stack
from likely.inference.posterior import log_posterior, log_uniform
from likely.networks.pixel_scaling import to_eight_bit


def model_outputs(model: Scorer, batches: Iterable[ModelInput]) -> ModelOutputs:
    """Every figure of the model that a judgment takes, for all images together."""
    return ModelOutputs.concatenate([_batch_outputs(model, seen) for seen in batches], model.task.n_classes)


def statistics_of_true_class(model: Scorer, batches: Iterable[tuple[ModelInput, Tensor]]) -> tuple[Tensor, Tensor]:
    """The traits (N, D) of images under their own classes, and these (N,), a batch of images and labels at a time."""
    pieces = [(_batch_outputs(model, seen).class_statistics.of_true_class(y), y) for seen, y in batches]
    traits, labels = (torch.cat(part) for part in zip(*pieces, strict=True))
    return traits, labels


def _batch_outputs(model: Scorer, seen: ModelInput) -> ModelOutputs:
    found = _own_outputs(model, seen.x)
    both = [each for each in (found.features, seen.extra_features) if each is not None]
    return replace(found, features=torch.cat(both, 1)) if both else found


def _own_outputs(model: Scorer, x: Tensor) -> ModelOutputs:
    K = model.task.n_classes
    if isinstance(model, Diagnostics):
        found = {name: value.cpu() for name, value in model.statistics(x).items()}
        scores, L = found.pop("log_scores"), found.pop("log_likelihood")
        description = found.pop("description", None)
        if description is not None and x.ndim == 4:
            description = torch.cat([description.float(), complexity(to_eight_bit(x.detach()))], 1)
        return ModelOutputs(scores, L, stack(found, K), found.get("log_odds_real"), description)
    scores = model.log_scores(x).cpu()
    if isinstance(model, GenerativeModel):
        L = model.log_likelihood(x).cpu()
        return ModelOutputs(scores, L, L[..., None] / model.task.n_dims)
    # All that a softmax itself has to tell the unknown by.
    return ModelOutputs(scores, None, log_posterior(scores, log_uniform(K))[..., None])


def masked_outputs(model: Scorer, batches: Iterable[tuple[Tensor, Tensor]]) -> ModelOutputs:
    """The same of images of which only a part is observed, given batches of images and masks (B, H, W) bool."""
    assert isinstance(model, SupportsMissingPixels)
    pieces = []
    for x, observed in batches:
        L = model.observed_log_likelihood(x, observed).cpu()
        n = observed.flatten(1).sum(1, keepdim=True).cpu() * x.shape[1]
        pieces.append(ModelOutputs(L, L, (L / n.clamp_min(1))[:, :, None]))
    return ModelOutputs.concatenate(pieces, model.task.n_classes)
