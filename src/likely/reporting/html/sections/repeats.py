"""What other splits of the same images would have given."""

from __future__ import annotations

from collections.abc import Sequence

from likely.evaluation.repeated_splits import RepeatResult, ResampledEstimate, resampled_estimates
from likely.reporting.formatting import number, percent, plural
from likely.reporting.html.blocks import Chapter, Column, Paragraph, Section, Table

_NAMES = {
    "accuracy": "Accuracy",
    "nll": "Log loss",
    "ece": "Calibration error",
    "bits_per_dim": "Bits per dimension",
    "false_alarm_rate": "False alarms",
}
_SHARES = {"accuracy", "ece", "false_alarm_rate"}
_COLUMNS = (Column("Figure"), Column("Mean", "number"), Column("Spread", "number"), Column("95% interval", "number"))


def repeats(trials: Sequence[RepeatResult]) -> Section | None:
    """The section on repeated trainings; None if there were not two."""
    found = resampled_estimates(trials)
    if not found:
        return None
    rows = tuple((_NAMES[name], *_cells(name, each)) for name, each in found.items())
    lead = (
        "The same training again and again, each time on another random split of the images and measured on those that it "
        "had set aside: what a figure owes to chance."
    )
    trial = trials[0]
    remark = Paragraph(
        f"{plural(len(trials), 'training')} with about {trial.n_train:,} images each, measured on about {trial.n_test:,}. "
        "The interval allows for the images that the trainings share (Nadeau and Bengio, 2003)."
    )
    return Section(
        Chapter.METRICS, "repeats", "How much is chance?", lead, (Table("Over trainings", _COLUMNS, rows), remark)
    )


def _cells(name: str, found: ResampledEstimate) -> tuple[str, ...]:
    if name in _SHARES:
        low, high = max(0.0, found.low), min(1.0, found.high)
        return percent(found.mean), f"± {percent(found.deviation, 2)}", f"{percent(low)} to {percent(high)}"
    return number(found.mean), f"± {number(found.deviation)}", f"{number(found.low)} to {number(found.high)}"
