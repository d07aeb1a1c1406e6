"""Metric tiles: the metrics of one evaluation as short texts, for the report, the model card and the terminal."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

from likely.base import LikelihoodKind, LikelihoodType
from likely.evaluation.metrics import Metrics, OODMetrics
from likely.reporting.formatting import MISSING, interval, number, percent, plural, rate


class MetricTile(NamedTuple):
    """One metric as text: its name, its value, and a note on how to read it."""

    label: str
    value: str
    note: str


def metric_tiles(metrics: Metrics, likelihood_type: LikelihoodType | None, n_classes: int) -> tuple[MetricTile, ...]:
    """Return the tiles of one evaluation, the most important first."""
    return (
        *_classification(metrics, n_classes),
        _bits_per_dim(metrics, likelihood_type),
        *_rejection(metrics),
        *_ood_detection(metrics.unknown),
        *_throughput(metrics.images_per_second),
    )


def _classification(metrics: Metrics, n_classes: int) -> Iterator[MetricTile]:
    of_images = f"of {plural(metrics.n, f'{metrics.split} image')}{_in_groups(metrics.n_groups, metrics.n)}"
    accuracy_interval = interval(metrics.accuracy_interval)
    passes = metrics.evaluations_per_image
    cost = f"; {plural(passes, 'network evaluation')} per image" if passes > 1 else ""
    yield MetricTile("Accuracy", percent(metrics.accuracy), f"{of_images}; 95% interval {accuracy_interval}{cost}")
    for level in metrics.coarse:
        accuracy = percent(level.n_correct / metrics.n)
        yield MetricTile(
            f"Accuracy of {level.n_groups} groups", accuracy, "of predicting the group that contains the class"
        )
    yield MetricTile("Balanced accuracy", percent(metrics.balanced_accuracy), "mean recall over the classes")
    uniform = f"uniform guessing has {math.log(n_classes):.2f}"
    yield MetricTile("Log loss", number(metrics.nll), f"nats per image; lower is better; {uniform}")
    note = "mean gap between confidence and accuracy (ECE); 0 is perfectly calibrated"
    yield MetricTile("Calibration error", percent(metrics.ece), note)


def _bits_per_dim(metrics: Metrics, likelihood_type: LikelihoodType | None) -> MetricTile:
    if metrics.bits_per_dim is not None and likelihood_type is not None and likelihood_type.has_bits_per_dim:
        bound = "upper bound" if likelihood_type.kind is LikelihoodKind.LOWER_BOUND else "exact"
        note = f"{bound}, per pixel value; uncompressed pixels have 8"
        return MetricTile("Bits/dim", number(metrics.bits_per_dim, 2), note)
    if likelihood_type is None:
        return MetricTile("Bits/dim", MISSING, "not a generative model")
    if likelihood_type.kind is LikelihoodKind.UNNORMALIZED:
        return MetricTile("Bits/dim", MISSING, "not a normalized likelihood")
    return MetricTile("Bits/dim", MISSING, f"a likelihood of {likelihood_type.domain}, not of pixels")


def _rejection(metrics: Metrics) -> Iterator[MetricTile]:
    rejection, false_alarm_interval = metrics.rejection, metrics.false_alarm_interval
    if rejection is None or false_alarm_interval is None:
        return
    bounds = interval(false_alarm_interval)
    note = f"of the known images are rejected; at most {rejection.alpha * 100:g}% expected; 95% interval {bounds}"
    yield MetricTile("False-alarm rate", percent(rejection.n_rejected / metrics.n), note)
    yield MetricTile(
        "Ambiguous", percent(rejection.n_ambiguous / metrics.n), "more than one class in the prediction set"
    )


def _ood_detection(unknown: OODMetrics | None) -> Iterator[MetricTile]:
    """Yield the tiles on unknown images: their rejection rate, and how well the scores separate them from known images."""
    if unknown is None:
        return
    in_groups = _in_groups(unknown.n_groups, unknown.n)
    note = f"of {plural(unknown.n, 'unknown image')}{in_groups} from {unknown.source} are rejected"
    yield MetricTile("Rejection rate", percent(unknown.n_rejected / unknown.n), note)
    note = "known against unknown images; 0.5 is random, 1 is perfect"
    if unknown.auroc_interval is not None:
        note += "; 95% interval {} to {}".format(*map(number, unknown.auroc_interval))
    yield MetricTile("AUROC", number(unknown.auroc), note)
    note = "known images rejected when 95% of the unknown images are"
    yield MetricTile("FPR at 95% TPR", percent(unknown.fpr_at_95_tpr), note)


def _in_groups(n_groups: int | None, n: int) -> str:
    """Return the number of groups of n images, where it is smaller."""
    return "" if n_groups in (None, n) else f" in {n_groups:,} groups"


def _throughput(images_per_second: float | None) -> Iterator[MetricTile]:
    if images_per_second is not None:
        yield MetricTile("Throughput", rate(images_per_second), "images/s on the machine named under Provenance")
