"""Another class mix: the shares of the classes among unlabeled images, from what a model says of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from likely.base import ModelOutputs
from likely.exceptions import InvalidValueError
from likely.inference.decision import ConformalClassifier
from likely.inference.label_shift import PriorEstimate, estimate_prior


@dataclass(frozen=True)
class PriorAdaptation:
    """The mix of the images that are of a known class, and how many of the others were left out."""

    prior_estimate: PriorEstimate
    n_unknown: int


def adapt_prior(
    conformal: ConformalClassifier, batches: Iterable[ModelOutputs], log_prior: Tensor, alpha: float
) -> PriorAdaptation:
    """The class mix of images that come a batch at a time; a ValueError if none of them is of a known class."""
    scores, n_unknown = [], 0
    for batch in batches:
        unknown = conformal(batch, log_prior, alpha).p_value <= alpha
        scores.append(batch.log_scores[~unknown])
        n_unknown += int(unknown.sum())
    known = torch.cat(scores) if scores else log_prior.new_zeros(0, len(log_prior))
    if not len(known):
        raise InvalidValueError(
            f"{n_unknown} images, all unknown, say nothing about a class mix; expected at least one known one"
        )
    return PriorAdaptation(
        estimate_prior(known, log_prior, conformal.temperature, conformal.bias_correction), n_unknown
    )
