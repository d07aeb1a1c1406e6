"""Predictions from a ConformalOutput: one `Prediction` per image, with class names instead of indices."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from torch import Tensor

from likely.inference.decision import ConformalOutput
from likely.inference.hierarchy import Level, levels
from likely.prediction import ClassPrediction, GroupPrediction, Prediction


@dataclass(frozen=True)
class LabelNames:
    """Names of the classes and of the model, and the number of classes that a prediction lists (`top_k`, None for all)."""

    labels: Sequence[str]
    model: str | None
    top_k: int | None

    @cached_property
    def levels(self) -> tuple[Level, ...]:
        """Groups of classes, by the hierarchy in their names."""
        return levels(self.labels)


def predictions(
    output: ConformalOutput, names: Sequence[str], bits_per_dim: Tensor | None, label_names: LabelNames
) -> Iterator[Prediction]:
    """Yield one Prediction per image, in order; `names` are the N inputs, `bits_per_dim` is (N,) or None."""
    predicted, statuses, p_values = output.predicted.tolist(), output.statuses, output.p_value.tolist()
    sets = [row.nonzero().flatten().tolist() for row in output.prediction_sets]
    bits, p_real = _to_list(bits_per_dim, len(names)), _to_list(output.p_real, len(names))
    groups = _groups(output, label_names.levels)
    for i, classes in enumerate(_class_predictions(output, label_names)):
        yield Prediction(
            input=names[i],
            status=statuses[i],
            label=label_names.labels[predicted[i]],
            probability=classes[0].probability,
            p_value=_nan_to_none(p_values[i]),
            prediction_set=tuple(label_names.labels[c] for c in sets[i]),
            classes=classes,
            groups=groups[i],
            bits_per_dim=bits[i],
            p_real=p_real[i],
            guarantee=output.guarantee,
            calibration=output.calibration,
            model=label_names.model,
        )


def _class_predictions(output: ConformalOutput, label_names: LabelNames) -> Iterator[tuple[ClassPrediction, ...]]:
    """Yield the classes of each image, the most probable first."""
    order = output.log_posterior.argsort(dim=1, descending=True, stable=True)[:, : label_names.top_k]
    probability = output.log_posterior.exp().gather(1, order).tolist()
    p_values = output.p_values.gather(1, order).tolist()
    L = output.log_likelihood
    log_likelihood = [[None] * order.shape[1]] * len(order) if L is None else L.gather(1, order).tolist()
    for rows in zip(order.tolist(), probability, p_values, log_likelihood, strict=True):
        yield tuple(
            ClassPrediction(label=label_names.labels[c], probability=p, p_value=_nan_to_none(p_value), log_likelihood=l)
            for c, p, p_value, l in zip(*rows, strict=True)
        )


def _groups(output: ConformalOutput, levels: Sequence[Level]) -> list[tuple[GroupPrediction, ...]]:
    """Return the most probable group of each level for each image."""
    groups: list[list[GroupPrediction]] = [[] for _ in range(len(output.log_posterior))]
    for level in levels:
        values, best = level.log_posterior(output.log_posterior).max(1)
        for each, p, g in zip(groups, values.exp().tolist(), best.tolist(), strict=True):
            each.append(GroupPrediction(label=level.names[g], probability=min(p, 1.0)))
    return [tuple(each) for each in groups]


def _to_list(values: Tensor | None, n: int) -> list[float | None]:
    """Return the values (n,) as a list, or n times None."""
    found: list[float | None] = [None] * n if values is None else values.tolist()
    return found


def _nan_to_none(p: float) -> float | None:
    return None if math.isnan(p) else p
