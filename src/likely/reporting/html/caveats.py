"""What is off, in words: a report says it first, so that nobody has to find it in a chart."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from likely.prediction import CalibrationScope
from likely.reporting.formatting import listing, number, percent, plural
from likely.reporting.html.content import ReportContent
from likely.reporting.html.sections.rejection import false_alarm_rows

HIGH_ECE = 0.05
FEW_TRAINING_IMAGES = 30
FEW_MEASURED = 10
WIDE_GAP = 0.1


def caveats(content: ReportContent) -> tuple[str, ...]:
    """One or two sentences for each thing that a careful reader would want to know before trusting the model."""
    found = (
        _calibration,
        _alarms,
        _rejects_nothing,
        _few_training,
        _few_tests,
        _never_answered,
        _overfitting,
        _skipped,
    )
    return (*(words for find in found for words in find(content)), *content.notes)


def _calibration(content: ReportContent) -> Iterator[str]:
    bins = content.reliability
    # Even an honest model has an error of about 1/√N on N images, by chance.
    if bins is None or bins.ece <= HIGH_ECE + 1 / math.sqrt(bins.counts.sum()):
        return
    sure = float(np.nansum(bins.counts * bins.confidence) / bins.counts.sum())
    right = float(np.nansum(bins.counts * bins.accuracy) / bins.counts.sum())
    manner = "too sure of itself" if sure > right else "too modest"
    yield (
        f"The model is {manner}: on average it is {percent(sure)} confident and {percent(right)} right "
        f"(calibration error {percent(bins.ece)}). Do not read its probabilities as frequencies."
    )


def _alarms(content: ReportContent) -> Iterator[str]:
    alarms = content.false_alarms
    above = () if alarms is None else tuple(row for row in false_alarm_rows(alarms, content.class_names) if row.above)
    if alarms is None or not above:
        return
    names = listing(tuple(f"{row.name} ({row.rejected} of {row.n}, chance explains {row.bound})" for row in above), 3)
    yield (
        f"More false alarms than the promised {alarms.alpha * 100:g}%: {names}. "
        "These images differ from the calibration images; calibrate with images from where the model is used."
    )


def _rejects_nothing(content: ReportContent) -> Iterator[str]:
    alarms = content.false_alarms
    if alarms is None or alarms.calibration is not CalibrationScope.PER_CLASS:
        return
    needed = math.ceil(1 / alarms.alpha - 1e-9) - 1
    few = _named(content, np.asarray(alarms.n_calibration) < needed)
    if few:
        yield (
            f"{_classes(few)} fewer than {needed} calibration images: "
            f"at a rate of {alarms.alpha * 100:g}% every image passes for one of them, and none is called unknown."
        )


def _few_training(content: ReportContent) -> Iterator[str]:
    counts = None if content.data is None else content.data.counts.get("train")
    few = () if counts is None else _named(content, counts < FEW_TRAINING_IMAGES)
    if few:
        yield f"{_classes(few)} fewer than {FEW_TRAINING_IMAGES} training images: expect little of them."


def _few_tests(content: ReportContent) -> Iterator[str]:
    few = () if content.per_class is None else _named(content, content.per_class.n < FEW_MEASURED)
    if few:
        yield f"{_classes(few)} fewer than {FEW_MEASURED} images to measure with: the figures there are mostly chance."


def _never_answered(content: ReportContent) -> Iterator[str]:
    table = content.per_class
    missed = () if table is None else _named(content, (table.n > 0) & ~(table.recall > 0))
    if missed:
        yield f"Not one image of {listing(missed)} was recognized."


def _overfitting(content: ReportContent) -> Iterator[str]:
    training = content.curves
    if training is None:
        return
    for name in (name for name in training.losses if name in training.validation):
        seen, unseen = float(training.losses[name][-1]), float(training.validation[name][-1])
        if unseen - seen > WIDE_GAP * max(1.0, abs(unseen)):
            yield (
                f"Training {name} ({number(seen)}) is far below validation {name} ({number(unseen)}): "
                "the model has learned its training images by heart. More images, augmentation or fewer epochs help."
            )


def _skipped(content: ReportContent) -> Iterator[str]:
    if content.data is not None and content.data.skipped:
        yield f"{plural(len(content.data.skipped), 'file')} could not be used; the record says which and why."


def _named(content: ReportContent, chosen: NDArray[np.bool_]) -> tuple[str, ...]:
    return tuple(content.class_names[k] for k in np.flatnonzero(chosen))


def _classes(names: tuple[str, ...]) -> str:
    return f"{listing(names)} {'has' if len(names) == 1 else 'have'}"
