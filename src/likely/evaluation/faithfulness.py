"""Faithfulness of attributions: deleting the most important pixels first must flip the prediction soon.

Deletion as in Petsiuk 2018 (RISE, section 3.3), compared with rankings by gradient magnitude, by the variance of pixels
over images, and at random.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Generator, Tensor

from likely.inference.attribution import gradient_magnitude, integrated_gradients

N_STEPS = 50  # predictions during the deletion

Scores = Callable[[Tensor], Tensor]


def deletion_fractions(
    log_scores: Scores, x: Tensor, baseline: Tensor, variance: Tensor, *, rng: Generator
) -> dict[str, Tensor]:
    """Return the fraction of pixels of images x (B, C, H, W) whose deletion flips the prediction, by each ranking: (B,).

    A deleted pixel has the value of the `baseline` (C, H, W); the fraction is 1 where no deletion flips the prediction.
    Rankings: "attribution" (integrated gradients against the second class), "gradient" (its magnitude), "variance"
    (C, H, W) of the pixels of other images, "random".
    """
    rankings = _rankings(log_scores, x, baseline, variance, rng)
    return {name: _deletion_fraction(log_scores, x, importance, baseline) for name, importance in rankings.items()}


def _rankings(
    log_scores: Scores, x: Tensor, baseline: Tensor, variance: Tensor, rng: Generator
) -> Mapping[str, Tensor]:
    """Return the importance of each pixel by each ranking, (B, H W)."""
    a, b = log_scores(x).topk(2, dim=1).indices.unbind(1)
    attribution = integrated_gradients(log_scores, x, a, b, baseline)
    by_pixel = {
        "attribution": attribution,
        "gradient": gradient_magnitude(log_scores, x, a, b),
        "variance": variance[None].expand_as(x),
    }
    found = {name: values.sum(1).flatten(1) for name, values in by_pixel.items()}
    return found | {"random": torch.rand(found["attribution"].shape, generator=rng, device=rng.device).to(x.device)}


@torch.inference_mode()
def _deletion_fraction(log_scores: Scores, x: Tensor, importance: Tensor, baseline: Tensor) -> Tensor:
    n = importance.shape[1]
    rank = importance.argsort(dim=1, descending=True).argsort(dim=1).reshape(len(x), 1, *x.shape[2:])
    before, fraction = log_scores(x).argmax(1), torch.ones(len(x), device=x.device)
    for step in range(N_STEPS, 0, -1):
        n_deleted = -(-n * step // N_STEPS)
        flipped = log_scores(torch.where(rank < n_deleted, baseline, x)).argmax(1) != before
        fraction[flipped] = n_deleted / n
    return fraction
