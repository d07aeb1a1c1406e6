"""Is an evidence map true to the model? Pixels that it ranks first are deleted first, and the answer has to flip sooner.

Deletion as in Petsiuk 2018 (RISE, section 3.3), beside rankings that know less: by the size of the slope, by how much a pixel
varies from image to image, and at random.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Generator, Tensor

from likely.inference.attribution import gradient_magnitude, integrated_gradients

N_STEPS = 50  # how often the answer is looked at while pixels go

Scores = Callable[[Tensor], Tensor]


def attribution_rankings(
    log_scores: Scores, x: Tensor, baseline: Tensor, variance: Tensor, *, rng: Generator
) -> Mapping[str, Tensor]:
    """How much each pixel of images x (B, C, H, W) matters by each ranking, (B, H W): evidence against the runner-up,
    slope, variance (C, H, W) of the pixels of other images, chance."""
    a, b = log_scores(x).topk(2, dim=1).indices.unbind(1)
    evidence = integrated_gradients(log_scores, x, a, b, baseline)
    by_pixel = {
        "evidence": evidence,
        "slope": gradient_magnitude(log_scores, x, a, b),
        "variance": variance[None].expand_as(x),
    }
    found = {name: values.sum(1).flatten(1) for name, values in by_pixel.items()}
    return found | {"chance": torch.rand(found["evidence"].shape, generator=rng, device=rng.device).to(x.device)}


@torch.inference_mode()
def deletion_curve(log_scores: Scores, x: Tensor, importance: Tensor, baseline: Tensor) -> Tensor:
    """The share of pixels that have gone, the most important first, when another class leads: (B,); 1 if none ever does.

    A pixel that has gone shows the `baseline` (C, H, W).
    """
    n = importance.shape[1]
    rank = importance.argsort(dim=1, descending=True).argsort(dim=1).reshape(len(x), 1, *x.shape[2:])
    before, share = log_scores(x).argmax(1), torch.ones(len(x), device=x.device)
    for step in range(N_STEPS, 0, -1):
        n_gone = -(-n * step // N_STEPS)
        flipped = log_scores(torch.where(rank < n_gone, baseline, x)).argmax(1) != before
        share[flipped] = n_gone / n
    return share
