"""Predictions: confusion matrix, calibration, results of each class, and rejection."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from likely.evaluation.metrics import Ints, PerClass, Reliability
from likely.prediction import CalibrationScope
from likely.reporting.formatting import number, percent
from likely.reporting.html.charts import (
    MAX_NAMED_CLASSES,
    compact_matrix,
    confusion_matrix,
    false_alarm_chart,
    meter,
    p_value_histogram,
    reliability_diagram,
)
from likely.reporting.html.content import FalseAlarms, PValues, ReportContent
from likely.reporting.html.page import (
    Block,
    Cell,
    Chapter,
    Chart,
    Charts,
    Column,
    Section,
    Table,
    WideChart,
    class_name,
)

_MAX_PAIRS = 20
_MAX_ROWS = 30
_MAX_BARS, _N_HIGHEST_BARS = 30, 20  # rows of the false-alarm chart; if there are more, the highest rates
_GUARANTEES = {
    CalibrationScope.PER_CLASS: "In expectation over calibration draws, at most a fraction alpha of every class is rejected.",
    CalibrationScope.POOLED: "In expectation over calibration draws, at most a fraction alpha of images exchangeable with "
    "the calibration images is rejected, for all classes together; single classes may have more or fewer.",
}


def prediction_sections(content: ReportContent) -> Iterator[Section]:
    """Yield the sections on test images for which there are data."""
    if content.confusion is not None:
        yield _confusion(content.confusion, content.class_names)
    if content.reliability is not None:
        yield _reliability(content.reliability)
    if content.per_class is not None:
        yield _per_class(content.per_class, content.class_names, content.false_alarms)
    charts = tuple(_rejection_charts(content))
    if charts:
        yield _rejection(charts, content.false_alarms)


def _confusion(counts: Ints, names: tuple[str, ...]) -> Section:
    introduction = (
        "Rows are true classes, columns predicted classes. Correct predictions lie on the diagonal, in blue; errors are "
        "orange, stronger the more frequent they are."
    )
    blocks = tuple((_named_matrix if len(names) <= MAX_NAMED_CLASSES else _unnamed_matrix)(counts, names))
    return Section(
        Chapter.METRICS, "confusion", "Confusion matrix", introduction, blocks, "which classes does it confuse?"
    )


def _named_matrix(counts: Ints, names: tuple[str, ...]) -> Iterator[Block]:
    caption = "Numbers count images; color shows the fraction of the row. Rows: true class. Columns: predicted class."
    yield WideChart(Chart("Confusion matrix", confusion_matrix(counts, names), caption))


def _unnamed_matrix(counts: Ints, names: tuple[str, ...]) -> Iterator[Block]:
    caption = (
        "All classes in their order, the first at the top left; lines separate the groups that contain them. Color shows the "
        "fraction of the row. Rows: true class. Columns: predicted class. Point at a cell for its names and numbers."
    )
    yield Charts((Chart("Confusion matrix", compact_matrix(counts, names), caption),))
    errors = counts - np.diag(counts.diagonal())
    pairs = np.argsort(-errors, axis=None, kind="stable")[: min(_MAX_PAIRS, np.count_nonzero(errors))]
    columns = (Column("Class"), Column("Predicted"), Column("Images", "number"), Column("Of the class", "number"))
    rows = (_pair(counts, names, divmod(int(pair), len(names))) for pair in pairs)
    if len(pairs):
        yield Table("Most frequent confusions", columns, tuple(rows))


def _pair(counts: Ints, names: tuple[str, ...], at: tuple[int, int]) -> tuple[Cell, ...]:
    return (
        class_name(names[at[0]]),
        class_name(names[at[1]]),
        f"{counts[at]:,}",
        percent(float(counts[at] / counts[at[0]].sum())),
    )


def _reliability(bins: Reliability) -> Section:
    introduction = (
        "When the model predicts a class with 90%, is it right nine times in ten? Dots on the dashed line mean yes. "
        "Below the line the model is overconfident, above it underconfident."
    )
    caption = (
        "Each dot groups images by the model's confidence, larger for more images; "
        "whiskers are 95% intervals, long where images are few. Bars count the images."
    )
    chart = Chart("Accuracy against confidence", reliability_diagram(bins), caption)
    return Section(
        Chapter.METRICS,
        "reliability",
        "Calibration",
        introduction,
        (Charts((chart,)),),
        "are its probabilities right?",
    )


def _per_class(table: PerClass, names: tuple[str, ...], alarms: FalseAlarms | None) -> Section:
    alarms = None if alarms is None or alarms.scope is CalibrationScope.NONE else alarms
    rows = tuple(_class_row(table, k, class_name(names[k]), alarms) for k in _order(table))
    order = " The lowest recall comes first." if len(rows) > _MAX_ROWS else ""
    introduction = (
        "Recall is the fraction of a class's images that were recognized; precision the fraction of predictions of the "
        f"class that were right; F1 is their harmonic mean.{order}"
    )
    block = Table("Results of each class", tuple(_columns(alarms)), rows[:_MAX_ROWS], rows[_MAX_ROWS:])
    return Section(Chapter.METRICS, "classes", "Per-class results", introduction, (block,))


def _order(table: PerClass) -> list[int]:
    """Return the classes in their own order, or with the worst first where some rows are folded."""
    order = np.arange(len(table.n)) if len(table.n) <= _MAX_ROWS else np.argsort(table.recall, kind="stable")
    return [int(k) for k in order]


def _columns(alarms: FalseAlarms | None) -> Iterator[Column]:
    yield Column("Class")
    yield from (Column(title, "number") for title in ("Images", "Recall"))
    yield Column("")
    yield from (Column(title, "number") for title in ("Precision", "F1"))
    if alarms is not None:
        yield from (Column(title, "number") for title in ("False alarms", "Calibration images"))


def _class_row(table: PerClass, k: int, name: Cell, alarms: FalseAlarms | None) -> tuple[Cell, ...]:
    recall = float(table.recall[k])
    numbers = (percent(recall), meter(recall), percent(float(table.precision[k])), number(float(table.f1[k])))
    row = (name, f"{table.n[k]:,}", *numbers)
    if alarms is None:
        return row
    return (*row, f"{alarms.n_rejected[k]:,} of {alarms.n_test[k]:,}", f"{alarms.n_calibration[k]:,}")


def _rejection(charts: tuple[Chart, ...], alarms: FalseAlarms | None) -> Section:
    by_class = " for every class" if alarms is not None and alarms.scope is CalibrationScope.PER_CLASS else ""
    introduction = (
        "The p-value of an image says how usual it is: the fraction of calibration images, all of known classes, that look at "
        "least as unusual (are at least as atypical). "
        f"An image is rejected as unknown if its p-value is at most alpha{by_class}."
    )
    return Section(
        Chapter.METRICS,
        "rejection",
        "Rejection",
        introduction,
        (Charts(charts),),
        "does it know what it does not know?",
    )


def _rejection_charts(content: ReportContent) -> Iterator[Chart]:
    alarms = content.false_alarms
    if alarms is not None and alarms.scope is not CalibrationScope.NONE and alarms.n_test.any():
        yield _false_alarms(alarms, content.class_names)
    if content.p_values is not None and len(content.p_values.known):
        yield _p_values(content.p_values, None if alarms is None else alarms.alpha)


def _false_alarms(alarms: FalseAlarms, names: tuple[str, ...]) -> Chart:
    rows = alarms.rows(names)
    shown, selection = rows, ""
    if len(rows) > _MAX_BARS:
        n_first = int(alarms.scope is not CalibrationScope.PER_CLASS)  # the row of all classes
        highest = sorted(rows[n_first:], key=lambda row: -row.rejected / row.n)[:_N_HIGHEST_BARS]
        shown = (*rows[:n_first], *highest)
        selection = f"The {len(highest)} of {len(rows) - n_first} classes with the highest rates. "
    caption = (
        f"{selection}Fraction of the known images that were rejected{', one of each group' * alarms.is_by_group}. "
        f"{_GUARANTEES[alarms.scope]} "
        "Random variation explains an excess between the dashed line and the mark, but not beyond the mark."
    )
    return Chart("False-alarm rates", false_alarm_chart(shown, alarms.alpha), caption)


def _p_values(values: PValues, alpha: float | None) -> Chart:
    caption = (
        "p-values of known images should be spread evenly (uniform), along the dashed line, or be larger. Images left of the "
        "line at alpha are rejected."
    )
    if values.unknown is not None:
        caption += " p-values of unknown images should be small: larger ones belong to images that pass for known."
    if alpha is not None:
        groups = {"known": values.known} | ({} if values.unknown is None else {"unknown": values.unknown})
        rates = (f"{percent(float(np.mean(p <= alpha)))} of the {name} images" for name, p in groups.items())
        caption += f" Rejected: {' and '.join(rates)}."
    return Chart("p-values", p_value_histogram(np.asarray(values.known), values.unknown, alpha), caption)
