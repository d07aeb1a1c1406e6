"""Rejection: false alarms on known images, and p-values of known and unknown ones."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from likely.prediction import CalibrationScope
from likely.reporting.html.blocks import Chapter, Chart, Charts, Section
from likely.reporting.html.charts import FalseAlarmRow, false_alarm_chart, p_value_histogram
from likely.reporting.html.content import FalseAlarms, PValues, ReportContent

_MAX_ROWS, _MAX_SHOWN = 30, 20
_GUARANTEES = {
    CalibrationScope.PER_CLASS: "The guarantee holds for each class.",
    CalibrationScope.POOLED: "The guarantee holds for all classes together; single classes may have more or fewer.",
}


def rejection_sections(content: ReportContent) -> Iterator[Section]:
    """Yield the section on rejection if the model was calibrated."""
    charts = tuple(_charts(content))
    introduction = (
        "A p-value is the fraction of calibration images that were at least as atypical as the image. "
        "An image is unknown if its p-value is small for every class."
    )
    if charts:
        yield Section(
            Chapter.METRICS,
            "rejection",
            "Rejection",
            introduction,
            (Charts(charts),),
            "does it know what it does not know?",
        )


def false_alarm_rows(alarms: FalseAlarms, names: tuple[str, ...]) -> tuple[FalseAlarmRow, ...]:
    """Return a row for each class that has images, each with its bound; a marginal guarantee has one bound, for all."""
    counts = zip(names, alarms.n_test.tolist(), alarms.n_rejected.tolist(), strict=True)
    if alarms.scope is CalibrationScope.PER_CLASS:
        bounded = zip(counts, alarms.bounds.tolist(), strict=True)
        return tuple(FalseAlarmRow(*count, bound) for count, bound in bounded if count[1])
    rows = [FalseAlarmRow(*count, None) for count in counts if count[1]]
    bound = alarms.pooled_bound if alarms.scope is CalibrationScope.POOLED else None
    return (FalseAlarmRow("all classes", int(alarms.n_test.sum()), int(alarms.n_rejected.sum()), bound), *rows)


def _charts(content: ReportContent) -> Iterator[Chart]:
    alarms = content.false_alarms
    if alarms is not None and alarms.scope is not CalibrationScope.NONE and alarms.n_test.any():
        yield _false_alarms(alarms, content.class_names)
    if content.p_values is not None and len(content.p_values.known):
        yield _p_values(content.p_values, None if alarms is None else alarms.alpha)


def _false_alarms(alarms: FalseAlarms, names: tuple[str, ...]) -> Chart:
    rows = false_alarm_rows(alarms, names)
    shown = rows if len(rows) <= _MAX_ROWS else sorted(rows, key=lambda row: -row.rejected / row.n)[:_MAX_SHOWN]
    selection = "" if len(shown) == len(rows) else f"The {len(shown)} of {len(rows)} rows with the highest rates. "
    caption = (
        f"{selection}Images of known classes that were rejected as unknown. {_GUARANTEES[alarms.scope]} "
        "Random variation explains an excess between the dashed line and the mark, but not beyond the mark."
    )
    return Chart("False alarms", false_alarm_chart(tuple(shown), alarms.alpha), caption)


def _p_values(values: PValues, alpha: float | None) -> Chart:
    caption = "p-values of known images should be uniform, along the dashed line, or larger."
    if values.unknown is not None:
        caption += " p-values of unknown images should be small: larger ones belong to images that are not rejected."
    return Chart("p-values", p_value_histogram(np.asarray(values.known), values.unknown, alpha), caption)
