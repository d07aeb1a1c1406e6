"""Another class mix: the shares of the classes among unlabelled images, from what a model says of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from likely.inference.judgement import Examination, Judge
from likely.inference.label_shift import ClassMix, class_mix


@dataclass(frozen=True)
class Adaptation:
    """The mix of the images that are of a known class, and how many of the others were left out."""

    mix: ClassMix
    n_unknown: int


def adaptation(judge: Judge, examined: Iterable[Examination], log_prior: Tensor, alpha: float) -> Adaptation:
    """The class mix of images that come a batch at a time; a ValueError if none of them is of a known class."""
    scores, n_unknown = [], 0
    for batch in examined:
        unknown = judge(batch, log_prior, alpha).p_value <= alpha
        scores.append(batch.log_scores[~unknown])
        n_unknown += int(unknown.sum())
    known = torch.cat(scores) if scores else log_prior.new_zeros(0, len(log_prior))
    if not len(known):
        raise ValueError(
            f"{n_unknown} images, all unknown, say nothing about a class mix; expected at least one known one"
        )
    return Adaptation(class_mix(known, log_prior, judge.temperature, judge.offsets), n_unknown)
