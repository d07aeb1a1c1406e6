"""How good the answers are: confusion, calibration, class by class, and how the training went."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from likely.evaluation.metrics import Floats, Ints, PerClass
from likely.reporting.formatting import number, percent, plural
from likely.reporting.html.blocks import Block, Cell, Chapter, Chart, Charts, Column, Section, Table, WideChart
from likely.reporting.html.charts import curves as curves_chart
from likely.reporting.html.charts import meter, reliability_diagram
from likely.reporting.html.confusion_matrix import MOST_LABELED, compact_matrix, confusion_matrix
from likely.reporting.html.content import Curves, ReportContent
from likely.reporting.html.svg import tick_label

_MOST_PAIRS = 20
_MOST_ROWS = 30


def confusion(content: ReportContent) -> Section | None:
    if content.confusion is None:
        return None
    lead = (
        "Each row holds the images of one class, each column the answers. "
        "Blue, on the diagonal, is right; orange is wrong, and stronger the more often it happens."
    )
    draw = _labeled if len(content.class_names) <= MOST_LABELED else _compact
    blocks = tuple(draw(content.confusion, content.class_names))
    return Section(Chapter.METRICS, "confusion", "Which classes it confuses", lead, blocks)


def _labeled(counts: Ints, names: tuple[str, ...]) -> Iterator[Block]:
    caption = "Counts of images; colors are shares of the row. Rows: the label. Columns: the answer."
    yield WideChart(Chart("Confusion matrix", confusion_matrix(counts, names), caption))


def _compact(counts: Ints, names: tuple[str, ...]) -> Iterator[Block]:
    caption = "All classes in their order, the first at the top left. Shares of the row."
    yield Charts((Chart("Confusion matrix", compact_matrix(counts), caption),))
    wrong = counts - np.diag(counts.diagonal())
    pairs = np.argsort(-wrong, axis=None, kind="stable")[: min(_MOST_PAIRS, np.count_nonzero(wrong))]
    columns = (Column("Label"), Column("Answered"), Column("Images", "number"), Column("Of the class", "number"))
    rows = (_pair(counts, names, divmod(int(pair), len(names))) for pair in pairs)
    if len(pairs):
        yield Table("The most frequent confusions", columns, tuple(rows))


def _pair(counts: Ints, names: tuple[str, ...], at: tuple[int, int]) -> tuple[Cell, ...]:
    return names[at[0]], names[at[1]], f"{counts[at]:,}", percent(float(counts[at] / counts[at[0]].sum()))


def reliability(content: ReportContent) -> Section | None:
    if content.reliability is None:
        return None
    lead = (
        "When the model says 90%, is it right nine times in ten? Dots on the dashed line say yes. "
        "Below the line it is too sure of itself, above it too modest."
    )
    caption = (
        "Each dot is a group of images by the model's confidence, larger for more images; "
        "whiskers are 95% intervals, long where images are few. Bars count the images."
    )
    chart = Chart("Accuracy against confidence", reliability_diagram(content.reliability), caption)
    return Section(Chapter.METRICS, "reliability", "Can its probabilities be believed?", lead, (Charts((chart,)),))


def per_class(content: ReportContent) -> Section | None:
    if content.per_class is None:
        return None
    rows = tuple(_class_row(content, k) for k in _order(content.per_class))
    order = " The lowest recall comes first." if len(rows) > _MOST_ROWS else ""
    lead = (
        "Recall is the share of a class's images that were recognized; precision the share of answers naming the class "
        f"that were right; F1 is their harmonic mean.{order}"
    )
    table = Table("Results of every class", tuple(_class_columns(content)), rows[:_MOST_ROWS], rows[_MOST_ROWS:])
    return Section(Chapter.METRICS, "classes", "Class by class", lead, (table,))


def _order(table: PerClass) -> list[int]:
    """The classes in their own order, or, where some must wait behind a click, with the worst first."""
    order = np.arange(len(table.n)) if len(table.n) <= _MOST_ROWS else np.argsort(table.recall, kind="stable")
    return [int(k) for k in order]


def _class_columns(content: ReportContent) -> Iterator[Column]:
    yield Column("Class")
    yield from (Column(title, "number") for title in ("Images", "Recall"))
    yield Column("")
    yield from (Column(title, "number") for title in ("Precision", "F1"))
    if content.false_alarms is not None:
        yield from (Column(title, "number") for title in ("False alarms", "Calibration images"))


def _class_row(content: ReportContent, k: int) -> tuple[Cell, ...]:
    table, alarms = content.per_class, content.false_alarms
    assert table is not None
    recall = float(table.recall[k])
    figures = (percent(recall), meter(recall), percent(float(table.precision[k])), number(float(table.f1[k])))
    row = (content.class_names[k], f"{table.n[k]:,}", *figures)
    if alarms is None:
        return row
    share = f"{alarms.n_rejected[k]:,} of {alarms.n_test[k]:,}"
    return (*row, share, f"{alarms.n_calibration[k]:,}")


RISING = ("accuracy",)  # what is better the higher it is


def curves(content: ReportContent) -> Section | None:
    if content.curves is None:
        return None
    lead = (
        "Every objective should fall and then level out. Where validation turns upwards while training still falls, "
        "the model has begun to learn its training images by heart."
    )
    charts = Charts(tuple(_curve_charts(content.curves)))
    return Section(Chapter.METRICS, "training", "How the training went", lead, (charts,))


def _curve_charts(training: Curves) -> Iterator[Chart]:
    for name in dict.fromkeys([*training.losses, *training.validation]):
        both = {"training": training.losses.get(name), "validation": training.validation.get(name)}
        series = {part: values for part, values in both.items() if values is not None}
        svg = curves_chart(training.epochs, series, f"{name} over {_epochs(training)}")
        yield Chart(name, svg, _best(series, rises=name in RISING))
    if training.learning_rate is not None:
        svg = curves_chart(training.epochs, {"learning rate": training.learning_rate}, "Learning rate over the epochs")
        yield Chart("Learning rate", svg, "How large each step was.")


def _epochs(training: Curves) -> str:
    return plural(len(training.epochs), "epoch")


def _best(series: dict[str, Floats], *, rises: bool) -> str:
    part, values = list(series.items())[-1]
    if not np.isfinite(values).any():
        return "No finite value."
    best = int(np.nanargmax(values) if rises else np.nanargmin(values))
    word = "Highest" if rises else "Lowest"
    return f"{word} {part} value {tick_label(float(f'{values[best]:.4g}'))}, in epoch {best + 1} of {len(values)}."
