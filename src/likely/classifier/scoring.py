"""Model outputs for batches of inputs: scores, log-likelihoods and the statistics that nonconformity is computed from."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from likely.base import GenerativeModel, ModelOutputs, Scorer, SupportsMissingPixels, to_eight_bit
from likely.features.feature_extraction import ModelInput, complexity
from likely.inference.nonconformity import Statistics
from likely.inference.posterior import log_evidence, log_posterior, log_uniform


def model_outputs(model: Scorer, batches: Iterable[ModelInput]) -> ModelOutputs:
    """Return the outputs for all images of some batches."""
    return concatenate([batch_outputs(model, batch) for batch in batches], model)


def batch_outputs(model: Scorer, batch: ModelInput) -> ModelOutputs:
    """Run the model on one batch."""
    found = _own_outputs(model, batch.x)
    both = [each for each in (found.features, batch.extra_features) if each is not None]
    return replace(found, features=torch.cat(both, 1)) if both else found


def masked_outputs(model: SupportsMissingPixels, x: Tensor, observed: Tensor) -> ModelOutputs:
    """Run the model on the observed pixels of images x (B, C, H, W), where `observed` (B, H, W) is True.

    The only statistic is log p(x_observed | c) per observed dimension.
    """
    L = model.observed_log_likelihood(x, observed).cpu()
    n = observed.flatten(1).sum(1, keepdim=True).cpu() * x.shape[1]
    return ModelOutputs(L, L, (L / n.clamp_min(1))[:, :, None])


def statistics_of_true_class(model: Scorer, batches: Iterable[tuple[ModelInput, Tensor]]) -> tuple[Tensor, Tensor]:
    """Return the statistics (N, D) of labeled images under their own classes, and these classes, (N,)."""
    pieces = [(Statistics.of(batch_outputs(model, batch)).of_true_class(y), y) for batch, y in batches]
    statistics, labels = (torch.cat(each) for each in zip(*pieces, strict=True))
    return statistics, labels


def bits_per_dim(model: Scorer, L: Tensor | None, log_prior: Tensor) -> Tensor | None:
    """Return −log2 p(x) / D, (N,), from L = log p(x | c) (N, K); None unless it is a density of 8-bit pixels."""
    if L is None or not isinstance(model, GenerativeModel) or not model.likelihood_type.has_bits_per_dim:
        return None
    return -log_evidence(L, log_prior) / (model.task.n_dims * math.log(2))


def concatenate(batches: Sequence[ModelOutputs], model: Scorer) -> ModelOutputs:
    """Concatenate the outputs of any number of batches."""
    return ModelOutputs.concatenate(batches) if batches else ModelOutputs.empty(model.task.n_classes)


def _own_outputs(model: Scorer, x: Tensor) -> ModelOutputs:
    if isinstance(model, GenerativeModel):
        found = model.outputs(x).cpu()
        if found.features is None or x.ndim != 4:
            return found
        return replace(found, features=torch.cat([found.features.float(), complexity(to_eight_bit(x.detach()))], 1))
    # A softmax classifier detects unknown images by its posterior alone (Hendrycks 2017, the maximum softmax probability).
    scores = model.log_scores(x).cpu()
    return ModelOutputs(scores, None, log_posterior(scores, log_uniform(model.task.n_classes))[..., None])
