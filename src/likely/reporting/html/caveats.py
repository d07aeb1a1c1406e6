"""Caveats: what a reader should know before relying on a model, shown at the top of the report."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from likely.prediction import CalibrationScope
from likely.reporting.formatting import listing, number, percent, plural
from likely.reporting.html.content import FalseAlarms, ReportContent

_HIGH_ECE = 0.05
_FEW_TRAINING_IMAGES = 30
_FEW_TEST_IMAGES = 10
_WIDE_GAP = 0.1  # relative difference between validation and training loss


class Caveat(NamedTuple):
    """One caveat: `kind` identifies it in programs, `text` is one or two sentences for readers."""

    kind: str
    text: str


def caveats(content: ReportContent) -> tuple[Caveat, ...]:
    """Return the caveats that the content justifies, then its notes."""
    checks = {
        "miscalibrated": _miscalibrated,
        "false_alarms": _false_alarms,
        "rejects_nothing": _rejects_nothing,
        "few_training_images": _few_training_images,
        "few_test_images": _few_test_images,
        "never_recognized": _never_recognized,
        "overfitting": _overfitting,
        "skipped_files": _skipped_files,
    }
    found = [Caveat(kind, text) for kind, check in checks.items() for text in check(content)]
    return (*found, *(Caveat("note", _sentence(note)) for note in content.notes))


def _sentence(note: str) -> str:
    return f"{note[:1].upper()}{note[1:]}{'' if note.endswith(('.', '!', '?')) else '.'}"


def _miscalibrated(content: ReportContent) -> Iterator[str]:
    bins = content.reliability
    # By chance, even a perfectly calibrated model has an error of about 1/√N on N images.
    if bins is None or bins.ece <= _HIGH_ECE + 1 / math.sqrt(bins.counts.sum()):
        return
    confidence = float(np.nansum(bins.counts * bins.confidence) / bins.counts.sum())
    accuracy = float(np.nansum(bins.counts * bins.accuracy) / bins.counts.sum())
    direction = "overconfident" if confidence > accuracy else "underconfident"
    yield (
        f"The model is {direction}: its mean confidence is {percent(confidence)}, its accuracy {percent(accuracy)} "
        f"(calibration error {percent(bins.ece)}). Do not read its probabilities as frequencies."
    )


def _false_alarms(content: ReportContent) -> Iterator[str]:
    return iter(()) if content.false_alarms is None else false_alarm_caveats(content.false_alarms, content.class_names)


def false_alarm_caveats(alarms: FalseAlarms, class_names: tuple[str, ...]) -> Iterator[str]:
    """Yield a caveat, which recommends a new calibration, if more or fewer images were rejected than the guarantee explains."""
    rows = alarms.rows(class_names)
    if above := tuple(row for row in rows if row.above):
        counts = (f"{row.name} ({row.rejected:,} of {row.n:,}, at most {row.bound:,} expected)" for row in above)
        yield (
            f"The false-alarm rate is above the guaranteed {alarms.alpha * 100:g}%: {listing(tuple(counts), 3)}. These images "
            "differ from the calibration images, so the guarantee does not cover them; `likely calibrate MODEL DATA` "
            "calibrates with images like them."
        )
    elif alarms.pooled_lower_bound is not None and rows[0].rejected < alarms.pooled_lower_bound:
        counts_below = f"{rows[0].rejected:,} of {rows[0].n:,}, at least {alarms.pooled_lower_bound:,} expected"
        yield (
            f"The false-alarm rate is below the allowed {alarms.alpha * 100:g}% ({counts_below}), so fewer unknown images are "
            "rejected than could be; `likely calibrate MODEL DATA` calibrates with images like these."
        )


def _rejects_nothing(content: ReportContent) -> Iterator[str]:
    alarms = content.false_alarms
    if alarms is None or alarms.scope is not CalibrationScope.NONE:
        return
    needed = math.ceil(1 / alarms.alpha - 1 - 1e-9)
    yield (
        f"The model rejects nothing: {plural(int(np.sum(alarms.n_calibration)), 'calibration image')} are too few for a "
        f"false-alarm rate of {alarms.alpha * 100:g}%, which takes at least {needed}. Every status is `uncalibrated`."
    )


def _few_training_images(content: ReportContent) -> Iterator[str]:
    counts = None if content.data is None else content.data.counts.get("train")
    few = () if counts is None else _names(content, counts < _FEW_TRAINING_IMAGES)
    if few:
        yield f"{_have(few)} fewer than {_FEW_TRAINING_IMAGES} training images; expect low accuracy there."


def _few_test_images(content: ReportContent) -> Iterator[str]:
    few = () if content.per_class is None else _names(content, content.per_class.n < _FEW_TEST_IMAGES)
    if few:
        yield f"{_have(few)} fewer than {_FEW_TEST_IMAGES} test images; their metrics are mostly noise."


def _never_recognized(content: ReportContent) -> Iterator[str]:
    table = content.per_class
    missed = () if table is None else _names(content, (table.n > 0) & ~(table.recall > 0))
    if missed:
        yield f"The model recognized no image of {listing(missed)}."


def _overfitting(content: ReportContent) -> Iterator[str]:
    training = content.curves
    if training is None:
        return
    for name in (name for name in training.losses if name in training.validation):
        seen, unseen = float(training.losses[name][-1]), float(training.validation[name][-1])
        if unseen - seen > _WIDE_GAP * max(1.0, abs(unseen)):
            yield (
                f"Training {name} ({number(seen)}) is far below validation {name} ({number(unseen)}): "
                "the model overfits. More images, augmentation or fewer epochs help."
            )


def _skipped_files(content: ReportContent) -> Iterator[str]:
    if content.data is not None and content.data.skipped:
        yield f"{plural(len(content.data.skipped), 'file')} could not be used; the section Data lists them with reasons."


def _names(content: ReportContent, selected: NDArray[np.bool_]) -> tuple[str, ...]:
    return tuple(content.class_names[k] for k in np.flatnonzero(selected))


def _have(names: tuple[str, ...]) -> str:
    return f"{listing(names)} {'has' if len(names) == 1 else 'have'}"
