"""From a judgment to Answers: the same figures, image by image, in the words that people read."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from likely.inference.decision import ConformalOutput
from likely.inference.hierarchy import Level, levels
from likely.prediction import CalibrationScope, ClassPrediction, GroupPrediction, Prediction

WEAKEST_FIRST = (CalibrationScope.NONE, CalibrationScope.POOLED, CalibrationScope.PER_CLASS)


@dataclass(frozen=True)
class LabelNames:
    """What numbers are called: the classes, the model, and how many classes an answer names (None: all)."""

    labels: Sequence[str]
    model: str | None
    top_k: int | None

    @cached_property
    def levels(self) -> tuple[Level, ...]:
        """The groups that the names tell."""
        return levels(self.labels)


def predictions(
    output: ConformalOutput, names: Sequence[str], bits_per_dim: Tensor | None, label_names: LabelNames
) -> Iterator[Prediction]:
    """One Answer an image, in order; `names` (N,) are the inputs, `bits_per_dim` (N,) or None."""
    best, states, p_values = output.predicted.tolist(), output.statuses, output.p_value.tolist()
    sets = [row.nonzero().flatten().tolist() for row in output.prediction_sets]
    bits, real = _listed(bits_per_dim, len(names)), _listed(output.p_real, len(names))
    calibration = [_weakest(output, i, sets[i]) for i in range(len(names))]
    groups = _groups(output, label_names.levels)
    for i, classes in enumerate(_class_predictions(output, label_names)):
        yield Prediction(
            input=names[i],
            status=states[i],
            label=label_names.labels[best[i]],
            probability=classes[0].probability,
            p_value=_known(p_values[i]),
            prediction_set=tuple(label_names.labels[c] for c in sets[i]),
            classes=classes,
            groups=groups[i],
            bits_per_dim=bits[i],
            p_real=real[i],
            calibration=calibration[i],
            model=label_names.model,
        )


def _class_predictions(judgment: ConformalOutput, naming: LabelNames) -> Iterator[tuple[ClassPrediction, ...]]:
    """For every image its classes, the most probable first."""
    order = judgment.log_posterior.argsort(dim=1, descending=True, stable=True)[:, : naming.top_k]
    probability = judgment.log_posterior.exp().gather(1, order).tolist()
    p_values = judgment.p_values.gather(1, order).tolist()
    L = judgment.log_likelihood
    likelihood = [[None] * order.shape[1]] * len(order) if L is None else L.gather(1, order).tolist()
    for rows in zip(order.tolist(), probability, p_values, likelihood, strict=True):
        yield tuple(
            ClassPrediction(label=naming.labels[c], probability=p, p_value=_known(p_value), log_likelihood=l)
            for c, p, p_value, l in zip(*rows, strict=True)
        )


def _groups(judgment: ConformalOutput, levels: Sequence[Level]) -> list[tuple[GroupPrediction, ...]]:
    """For every image the most probable group of each level."""
    found: list[list[GroupPrediction]] = [[] for _ in range(len(judgment.log_posterior))]
    for level in levels:
        values, best = level.log_posterior(judgment.log_posterior).max(1)
        for each, p, g in zip(found, values.exp().tolist(), best.tolist(), strict=True):
            each.append(GroupPrediction(label=level.names[g], probability=min(p, 1.0)))
    return [tuple(each) for each in found]


def _weakest(judgment: ConformalOutput, i: int, in_set: Sequence[int]) -> CalibrationScope:
    """The weakest calibration among the classes that answer i speaks of: its label's, its p-value's, its set's."""
    typical = int(torch.nan_to_num(judgment.p_values[i], nan=-1.0).argmax())
    kinds = {judgment.calibration_scope[c] for c in (int(judgment.predicted[i]), typical, *in_set)}
    return next(kind for kind in WEAKEST_FIRST if kind in kinds)


def _listed(values: Tensor | None, n: int) -> list[float | None]:
    """(n,) numbers, or as many times nothing."""
    listed: list[float | None] = [None] * n if values is None else values.tolist()
    return listed


def _known(p: float) -> float | None:
    """A p-value, or None where nothing could be promised."""
    return None if math.isnan(p) else p
