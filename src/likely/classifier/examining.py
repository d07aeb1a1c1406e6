"""From a model and images to the figures that judgements rest on."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from likely.contract import Diagnostics, GenerativeModel, Scorer
from likely.inference.judgement import Examination
from likely.inference.posterior import log_posterior, uniform
from likely.inference.rejection import stacked


def examine(model: Scorer, batches: Iterable[Tensor]) -> Examination:
    """Every figure of the model that a judgement takes, for all images together."""
    K, pieces = model.task.n_classes, [_examined(model, x) for x in batches]
    if not pieces:
        return Examination(torch.zeros(0, K), None, torch.zeros(0, K, 1))
    return Examination(
        log_scores=torch.cat([piece.log_scores for piece in pieces]),
        log_likelihood=_joined([piece.log_likelihood for piece in pieces]),
        statistics=torch.cat([piece.statistics for piece in pieces]),
        log_odds_real=_joined([piece.log_odds_real for piece in pieces]),
    )


def _examined(model: Scorer, x: Tensor) -> Examination:
    K = model.task.n_classes
    if isinstance(model, Diagnostics):
        found = {name: value.cpu() for name, value in model.statistics(x).items()}
        scores, L = found.pop("log_scores"), found.pop("log_likelihood")
        return Examination(scores, L, stacked(found, K), found.get("log_odds_real"))
    scores = model.log_scores(x).cpu()
    if isinstance(model, GenerativeModel):
        L = model.log_likelihood(x).cpu()
        return Examination(scores, L, L[..., None] / model.task.n_dims)
    # All that a softmax has to tell the unknown by.
    return Examination(scores, None, log_posterior(scores, uniform(K))[..., None])


def _joined(pieces: list[Tensor | None]) -> Tensor | None:
    """One tensor of all pieces, or None where the model has no such figure."""
    there = [piece for piece in pieces if piece is not None]
    return torch.cat(there) if there else None
