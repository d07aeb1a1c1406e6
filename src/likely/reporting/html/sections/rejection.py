"""Whether known images are called unknown as rarely as promised, and unknown ones as often as hoped."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from likely.prediction import CalibrationScope
from likely.reporting.html.blocks import Chapter, Chart, Charts, Section
from likely.reporting.html.charts import FalseAlarmRow, alarm_chart, p_value_histogram
from likely.reporting.html.content import FalseAlarms, PValues, ReportContent

_MOST_ROWS, _MOST_SHOWN = 30, 20
_PROMISES = {
    CalibrationScope.PER_CLASS: "The promise is made for every class by itself.",
    CalibrationScope.POOLED: "The promise is made for all classes together; one class may have more, another less.",
    CalibrationScope.NONE: "There were too few calibration images to promise anything.",
}


def rejection(content: ReportContent) -> Section | None:
    charts = tuple(_charts(content))
    if not charts:
        return None
    lead = (
        "A p-value says how many of the calibration images were at least as strange as this one. "
        "An image is called unknown if its p-value is small for every class."
    )
    return Section(Chapter.METRICS, "rejection", "Does it know what it does not know?", lead, (Charts(charts),))


def false_alarm_rows(alarms: FalseAlarms, names: tuple[str, ...]) -> tuple[FalseAlarmRow, ...]:
    """A row a class that has images, each with its bound; a pooled promise has one bound, in a row for all."""
    counts = zip(names, alarms.n_test.tolist(), alarms.n_rejected.tolist(), strict=True)
    if alarms.calibration is CalibrationScope.PER_CLASS:
        bounded = zip(counts, alarms.bounds.tolist(), strict=True)
        return tuple(FalseAlarmRow(*count, bound) for count, bound in bounded if count[1])
    rows = [FalseAlarmRow(*count, None) for count in counts if count[1]]
    bound = alarms.pooled_bound if alarms.calibration is CalibrationScope.POOLED else None
    return (FalseAlarmRow("all classes", int(alarms.n_test.sum()), int(alarms.n_rejected.sum()), bound), *rows)


def _charts(content: ReportContent) -> Iterator[Chart]:
    if content.false_alarms is not None and content.false_alarms.n_test.any():
        yield _alarms(content.false_alarms, content.class_names)
    if content.p_values is not None and len(content.p_values.known):
        alpha = None if content.false_alarms is None else content.false_alarms.alpha
        yield _p_values(content.p_values, alpha)


def _alarms(alarms: FalseAlarms, names: tuple[str, ...]) -> Chart:
    rows = false_alarm_rows(alarms, names)
    shown = rows if len(rows) <= _MOST_ROWS else sorted(rows, key=lambda row: -row.rejected / row.n)[:_MOST_SHOWN]
    part = "" if len(shown) == len(rows) else f"The {len(shown)} of {len(rows)} rows with the highest rates. "
    caption = (
        f"{part}Images of known classes that were called unknown. {_PROMISES[alarms.calibration]} "
        "Between the dashed line and the mark, chance explains the excess; beyond the mark it does not."
    )
    return Chart("False alarms", alarm_chart(tuple(shown), alarms.alpha), caption)


def _p_values(values: PValues, alpha: float | None) -> Chart:
    caption = "Known images should be spread flat along the dashed line, or lean to the right."
    if values.unknown is not None:
        caption += " Unknown ones should stand at the left: whatever of them does not is taken for known."
    return Chart("p-values", p_value_histogram(np.asarray(values.known), values.unknown, alpha), caption)
