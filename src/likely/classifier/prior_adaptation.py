"""Prior adaptation: estimate the class prior of unlabeled images from their model outputs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch

from likely.base import ModelOutputs
from likely.classifier.predictor import Predictor
from likely.exceptions import InvalidValueError
from likely.inference.label_shift import PriorEstimate, estimate_prior


@dataclass(frozen=True)
class PriorAdaptation:
    """The class prior estimated from the images of known classes, and the number of unknown images left out."""

    prior_estimate: PriorEstimate
    n_unknown: int


def adapt_prior(predictor: Predictor, batches: Iterable[ModelOutputs], alpha: float = 0.05) -> PriorAdaptation:
    """Estimate the class prior π of images (Saerens 2002), without those that are unknown at `alpha`.

    `prior_estimate.log_prior` is the training's own prior unless the images refute it. Raises InvalidValueError if no image
    is of a known class.
    """
    scores, n_unknown = [], 0
    for batch in batches:
        unknown = predictor.decide(batch, alpha=alpha).p_value <= alpha
        scores.append(batch.log_scores[~unknown])
        n_unknown += int(unknown.sum())
    known = torch.cat(scores) if scores else predictor.log_prior.new_zeros(0, len(predictor.log_prior))
    if not len(known):
        raise InvalidValueError(
            f"{n_unknown} images, all unknown, do not determine a class prior; expected at least one known one"
        )
    rule = predictor.decision_rule
    estimate = estimate_prior(known, predictor.log_prior, rule.score_temperature, rule.bias_correction)
    return PriorAdaptation(estimate, n_unknown)
