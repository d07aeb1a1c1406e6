"""From a judgement to Answers: the same figures, image by image, in the words that people read."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from likely.answer import Answer, Calibration, ClassAnswer, GroupAnswer
from likely.inference.hierarchy import Level, levels
from likely.inference.judgement import Judgement

WEAKEST_FIRST = (Calibration.NONE, Calibration.POOLED, Calibration.PER_CLASS)


@dataclass(frozen=True)
class Naming:
    """What numbers are called: the classes, the model, and how many classes an answer names (None: all)."""

    labels: Sequence[str]
    model: str | None
    top_k: int | None

    @cached_property
    def levels(self) -> tuple[Level, ...]:
        """The groups that the names tell."""
        return levels(self.labels)


def answers(
    judgement: Judgement, names: Sequence[str], bits_per_dim: Tensor | None, naming: Naming
) -> Iterator[Answer]:
    """One Answer an image, in order; `names` (N,) are the inputs, `bits_per_dim` (N,) or None."""
    best, states, p_values = judgement.best.tolist(), judgement.statuses, judgement.p_value.tolist()
    sets = [row.nonzero().flatten().tolist() for row in judgement.sets]
    bits, real = _listed(bits_per_dim, len(names)), _listed(judgement.p_real, len(names))
    calibration = [_weakest(judgement, i, sets[i]) for i in range(len(names))]
    groups = _groups(judgement, naming.levels)
    for i, classes in enumerate(_class_answers(judgement, naming)):
        yield Answer(
            input=names[i],
            status=states[i],
            label=naming.labels[best[i]],
            probability=classes[0].probability,
            p_value=_known(p_values[i]),
            set=tuple(naming.labels[c] for c in sets[i]),
            classes=classes,
            groups=groups[i],
            bits_per_dim=bits[i],
            p_real=real[i],
            calibration=calibration[i],
            model=naming.model,
        )


def _class_answers(judgement: Judgement, naming: Naming) -> Iterator[tuple[ClassAnswer, ...]]:
    """For every image its classes, the most probable first."""
    order = judgement.log_posterior.argsort(dim=1, descending=True, stable=True)[:, : naming.top_k]
    probability = judgement.log_posterior.exp().gather(1, order).tolist()
    p_values = judgement.p_values.gather(1, order).tolist()
    L = judgement.log_likelihood
    likelihood = [[None] * order.shape[1]] * len(order) if L is None else L.gather(1, order).tolist()
    for rows in zip(order.tolist(), probability, p_values, likelihood, strict=True):
        yield tuple(
            ClassAnswer(label=naming.labels[c], probability=p, p_value=_known(p_value), log_likelihood=l)
            for c, p, p_value, l in zip(*rows, strict=True)
        )


def _groups(judgement: Judgement, levels: Sequence[Level]) -> list[tuple[GroupAnswer, ...]]:
    """For every image the most probable group of each level."""
    found: list[list[GroupAnswer]] = [[] for _ in range(len(judgement.log_posterior))]
    for level in levels:
        values, best = level.log_posterior(judgement.log_posterior).max(1)
        for each, p, g in zip(found, values.exp().tolist(), best.tolist(), strict=True):
            each.append(GroupAnswer(label=level.names[g], probability=min(p, 1.0)))
    return [tuple(each) for each in found]


def _weakest(judgement: Judgement, i: int, in_set: Sequence[int]) -> Calibration:
    """The weakest calibration among the classes that answer i speaks of: its label's, its p-value's, its set's."""
    typical = int(torch.nan_to_num(judgement.p_values[i], nan=-1.0).argmax())
    kinds = {judgement.calibration[c] for c in (int(judgement.best[i]), typical, *in_set)}
    return next(kind for kind in WEAKEST_FIRST if kind in kinds)


def _listed(values: Tensor | None, n: int) -> list[float | None]:
    """(n,) numbers, or as many times nothing."""
    listed: list[float | None] = [None] * n if values is None else values.tolist()
    return listed


def _known(p: float) -> float | None:
    """A p-value, or None where nothing could be promised."""
    return None if math.isnan(p) else p
