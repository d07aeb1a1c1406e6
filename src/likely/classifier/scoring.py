"""Model outputs for batches of inputs: scores, log-likelihoods and the statistics that nonconformity is computed from."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace

import torch
from torch import Tensor

from likely.base import Diagnostics, GenerativeModel, HasEmbedding, Scorer, SupportsMissingPixels
from likely.features.model_input import ModelInput, complexity
from likely.inference.decision import ModelOutputs
from likely.inference.nonconformity import stack
from likely.inference.posterior import log_evidence, log_posterior, log_uniform
from likely.networks.pixel_scaling import to_eight_bit


def model_outputs(model: Scorer, batches: Iterable[ModelInput]) -> ModelOutputs:
    """Return the outputs for all images of some batches."""
    return ModelOutputs.concatenate([batch_outputs(model, batch) for batch in batches], model.task.n_classes)


def batch_outputs(model: Scorer, batch: ModelInput) -> ModelOutputs:
    """Run the model on one batch."""
    found = _own_outputs(model, batch.x)
    both = [each for each in (found.features, batch.extra_features) if each is not None]
    return replace(found, features=torch.cat(both, 1)) if both else found


def masked_outputs(
    model: SupportsMissingPixels, n_classes: int, batches: Iterable[tuple[Tensor, Tensor]]
) -> ModelOutputs:
    """Return the outputs for images of which only some pixels are observed.

    `batches` are images (B, C, H, W) and masks (B, H, W), True where a pixel is observed. The only statistic is
    log p(x_observed | c) per observed dimension.
    """
    pieces = []
    for x, observed in batches:
        L = model.observed_log_likelihood(x, observed).cpu()
        n = observed.flatten(1).sum(1, keepdim=True).cpu() * x.shape[1]
        pieces.append(ModelOutputs(L, L, (L / n.clamp_min(1))[:, :, None]))
    return ModelOutputs.concatenate(pieces, n_classes)


def statistics_of_true_class(model: Scorer, batches: Iterable[tuple[ModelInput, Tensor]]) -> tuple[Tensor, Tensor]:
    """Return the statistics (N, D) of labeled images under their own classes, and these classes, (N,)."""
    pieces = [(batch_outputs(model, batch).class_statistics.of_true_class(y), y) for batch, y in batches]
    statistics, labels = (torch.cat(each) for each in zip(*pieces, strict=True))
    return statistics, labels


def bits_per_dim(model: Scorer, L: Tensor | None, log_prior: Tensor) -> Tensor | None:
    """Return −log2 p(x) / D, (N,), from L = log p(x | c) (N, K); None unless it is a density of 8-bit pixels."""
    if L is None or not isinstance(model, GenerativeModel) or not model.likelihood_type.has_bits_per_dim:
        return None
    return -log_evidence(L, log_prior) / (model.task.n_dims * math.log(2))


@torch.inference_mode()
def embed(model: Scorer, batches: Iterable[Tensor]) -> Tensor:
    """Return the embeddings of model inputs, (N, d), in the space of the model's class embeddings."""
    assert isinstance(model, HasEmbedding)
    found = [model.embed(x).cpu() for x in batches]
    return torch.cat(found) if found else model.class_embeddings().cpu()[:0]


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
    # A softmax classifier has no other statistic than its posterior.
    return ModelOutputs(scores, None, log_posterior(scores, log_uniform(K))[..., None])
