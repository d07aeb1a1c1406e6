"""A class that comes later: the model learns it from its own images alone, and p-values are calibrated for it alone."""

from __future__ import annotations

import torch
from torch import Tensor

from likely.classifier.examining import examine
from likely.contract import Extensible, Scorer
from likely.inference.judgement import Examination, Judge
from likely.nets.growth import AT_ONCE

N_FOLDS = 5


@torch.no_grad()
def extended(model: Scorer, judge: Judge, x: Tensor) -> tuple[Scorer, Judge]:
    """Model and judge of one class more, from its images x (n, C, H, W), all of them and each once.

    The figures that calibrate are of images that the class was learned without: a fifth at a time is left out and judged by
    what the others teach (cross-conformal prediction, Vovk 2015).
    """
    assert isinstance(model, Extensible)
    part = torch.randperm(len(x), generator=torch.Generator().manual_seed(0)) % N_FOLDS
    found = []
    for k in range(min(N_FOLDS, len(x)) if len(x) > 1 else 0):
        without = model.extended(x[part != k])
        found.append(examine(without, torch.split(x[part == k], AT_ONCE)))
    larger = model.extended(x)
    together = Examination.joined(found, model.task.n_classes + 1, judge.strangeness.mean.shape[1])
    return larger, judge.of_one_class_more(together)


def prior_of_one_class_more(log_prior: Tensor) -> Tensor:
    """log π (K + 1,): the new class is expected as often as the others are in the mean, whose shares keep their ratios."""
    K = len(log_prior)
    shares = torch.cat([log_prior.exp() * K, log_prior.new_ones(1)]) / (K + 1)
    return shares.log()
