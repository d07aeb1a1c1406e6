"""Charts of the report: functions from numbers to SVG."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

import numpy as np
from markupsafe import Markup

from likely.evaluation.metrics import Floats, Ints, Reliability, wilson
from likely.reporting.formatting import breadth, percent, plural, shorten
from likely.reporting.html.content import FalseAlarmRow
from likely.reporting.html.svg import (
    EM,
    HEIGHT,
    LEFT,
    RIGHT,
    WIDTH,
    Frame,
    Scale,
    drawing,
    element,
    line,
    percent_label,
    text,
    tick_label,
)

MAX_NAMED_CLASSES = 30  # in a confusion matrix: more names would be illegible
_MAX_POINTS = 400  # of one curve: as many as pixels
_MAX_NUMBERED_CLASSES = 16  # with more, counts do not fit the cells of a confusion matrix
_COMPACT_SIZE = 480.0  # pixels of a matrix without the names of its classes

# --- curves ---------------------------------------------------------------------------------------------------------


def line_chart(epochs: Ints, series: Mapping[str, Floats], label: str) -> Markup:
    """Draw values over epochs, one line for each of at most three series, whose legend shows the last values."""
    values = np.stack([np.asarray(row, dtype=np.float64) for row in series.values()])  # (S, E)
    plot = Frame.for_ranges((float(epochs[0]), float(epochs[-1])), _range(values))
    kinds = [f"s{i + 1}" for i in range(len(series))]
    labels = [f"{name} {_last(row)}" for name, row in zip(series, values, strict=True)]
    lines = [mark for kind, row in zip(kinds, values, strict=True) for mark in _curve(plot, epochs, row, kind)]
    axes = (*plot.y_axis(), *plot.x.x_axis(plot.y.start, "epoch"))
    return drawing(label, WIDTH, HEIGHT, *_legend(zip(kinds, labels, strict=True)), *axes, plot.clipped(lines))


def _range(values: Floats) -> tuple[float, float]:
    """Return the range without the first twentieth of the values, which would flatten the rest."""
    late = values[:, values.shape[1] // 20 :]
    finite = late[np.isfinite(late)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    margin = 0.06 * (high - low) or max(abs(high) * 0.1, 1e-9)
    return low - margin, high + margin


def _curve(plot: Frame, epochs: Ints, values: Floats, kind: str) -> Iterator[Markup]:
    """Draw a line, interrupted at missing values, with a dot at its end."""
    step = max(1, len(values) // _MAX_POINTS)
    path, command, x, y = [], "M", 0.0, 0.0
    for epoch, value in zip(epochs[::step].tolist(), values[::step].tolist(), strict=True):
        if not np.isfinite(value):
            command = "M"
            continue
        x, y = plot.x(epoch), plot.y(value)
        path.append(f"{command}{x:.1f} {y:.1f}")
        command = "L"
    if path:
        yield element("path", d="".join(path), class_=f"curve {kind}")
        yield element("circle", cx=x, cy=y, r=2.5, class_=kind)


def _last(values: Floats) -> str:
    finite = values[np.isfinite(values)]
    if not finite.size:
        return "–"
    # A schedule that ends at zero ends at 6e-20 in floating point.
    last = finite[-1] if abs(finite[-1]) > 1e-9 * np.abs(finite).max() else 0.0
    return tick_label(float(f"{last:.3g}"))


# --- confusion matrix -----------------------------------------------------------------------------------------------


class _MatrixLayout(NamedTuple):
    """The grid of cells: `edge` pixels each, the first one at (left, top)."""

    edge: float
    left: float
    top: float


def confusion_matrix(counts: Ints, names: tuple[str, ...]) -> Markup:
    """Draw a cell for each pair of classes, true classes in the rows, with names; for up to MAX_NAMED_CLASSES."""
    short = [shorten(name, 22) for name in names]
    longest = max(breadth(name) for name in short) * EM
    layout = _matrix_layout(len(names), longest)
    size = layout.edge * len(names)
    fractions = _row_fractions(counts)
    return drawing(
        f"Confusion matrix of {plural(len(names), 'class')}: {percent(counts.trace() / counts.sum())} on the diagonal",
        layout.left + size + _overhang(layout, longest),
        layout.top + size + 2,
        element("rect", x=layout.left, y=layout.top, width=size, height=size, class_="plate"),
        *_matrix_names(layout, short, longest),
        *(_matrix_cell(layout, counts, fractions, (int(i), int(j)), names) for i, j in np.argwhere(counts)),
    )


def compact_matrix(counts: Ints, names: tuple[str, ...]) -> Markup:
    """Draw a confusion matrix of many classes, without their names but with those of the groups that contain them.

    Groups are the first folders of nested names, as far as their classes follow one another.
    """
    groups = _runs([name.partition("/")[0] if "/" in name else "" for name in names])
    labels = [shorten(group, 16) for group, _, _ in groups]
    left = max((breadth(label) for label in labels), default=0.0) * EM + 10
    layout = _MatrixLayout(_COMPACT_SIZE / len(names), left, 20.0)
    fractions = _row_fractions(counts)
    return drawing(
        f"Confusion matrix of {len(names)} classes: {percent(counts.trace() / counts.sum())} on the diagonal",
        left + _COMPACT_SIZE + 2,
        layout.top + _COMPACT_SIZE + 2,
        element("rect", x=left, y=layout.top, width=_COMPACT_SIZE, height=_COMPACT_SIZE, class_="plate"),
        *(mark for group, label in zip(groups, labels, strict=True) for mark in _group_marks(layout, group, label)),
        *(_matrix_cell(layout, counts, fractions, (int(i), int(j)), names) for i, j in np.argwhere(counts)),
    )


def _runs(values: list[str]) -> list[tuple[str, int, int]]:
    """Return each run of equal values with its start and end."""
    starts = [i for i, value in enumerate(values) if i == 0 or value != values[i - 1]]
    return [(values[i], i, j) for i, j in zip(starts, [*starts[1:], len(values)], strict=True)]


def _group_marks(layout: _MatrixLayout, group: tuple[str, int, int], label: str) -> Iterator[Markup]:
    """Draw the label of a group beside its rows and, where it fits, above its columns, and lines at its end."""
    _, start, end = group
    first, last = start * layout.edge, end * layout.edge
    size = _COMPACT_SIZE
    if last < size - 1e-6:
        yield line((layout.left + last, layout.top), (layout.left + last, layout.top + size), class_="grid")
        yield line((layout.left, layout.top + last), (layout.left + size, layout.top + last), class_="grid")
    middle = (first + last) / 2
    if last - first >= EM:
        yield text(label, layout.left - 6, layout.top + middle + 4, class_="name", text_anchor="end")
    if last - first >= breadth(label) * EM:
        yield text(label, layout.left + middle, layout.top - 6, class_="name", text_anchor="middle")


def _row_fractions(counts: Ints) -> Floats:
    fractions: Floats = counts / np.maximum(1, counts.sum(axis=1, keepdims=True))
    return fractions


def _strength(fraction: Floats) -> Floats:
    """Return the square root, which makes one error in fifty visible."""
    strength: Floats = np.sqrt(fraction)
    return strength


def _matrix_layout(n: int, longest: float) -> _MatrixLayout:
    edge = float(np.clip(420 / n, 17, 84))
    slanted = longest > edge - 6
    return _MatrixLayout(edge, longest + 12, longest * 0.71 + 14 if slanted else 22.0)


def _overhang(layout: _MatrixLayout, longest: float) -> float:
    return max(2.0, longest * 0.71 - layout.edge / 2 + 8) if longest > layout.edge - 6 else 2.0


def _matrix_names(layout: _MatrixLayout, short: list[str], longest: float) -> Iterator[Markup]:
    slanted = longest > layout.edge - 6
    for i, name in enumerate(short):
        middle = layout.edge * (i + 0.5)
        yield text(name, layout.left - 7, layout.top + middle + 4, class_="name", text_anchor="end")
        x, y = layout.left + middle + 3 * slanted, layout.top - 7
        placement = {"transform": f"rotate(-45 {x:.1f} {y:.1f})"} if slanted else {"text_anchor": "middle"}
        yield text(name, x, y, class_="name", **placement)


def _matrix_cell(
    layout: _MatrixLayout, counts: Ints, fractions: Floats, at: tuple[int, int], names: tuple[str, ...]
) -> Markup:
    (i, j), n = at, int(counts[at])
    strength = float(_strength(fractions)[at])
    predicted = "predicted correctly" if i == j else f"predicted {names[j]}"
    title = element(
        "title", f"{n} of {plural(int(counts[i].sum()), 'image')} of {names[i]} {predicted} ({percent(fractions[at])})"
    )
    x, y = layout.left + layout.edge * j, layout.top + layout.edge * i
    gap = min(0.5, layout.edge / 20)
    box = {
        "x": x + gap,
        "y": y + gap,
        "width": layout.edge - 2 * gap,
        "height": layout.edge - 2 * gap,
        "rx": min(1.5, layout.edge / 8),
    }
    marks = [title, element("rect", **box, class_="right" if i == j else "wrong", fill_opacity=strength)]
    if len(names) <= _MAX_NUMBERED_CLASSES:
        kind = "count on" if strength > 0.75 else "count"
        marks.append(text(f"{n}", x + layout.edge / 2, y + layout.edge / 2 + 4, class_=kind, text_anchor="middle"))
    return element("g", *marks)


# --- calibration ----------------------------------------------------------------------------------------------------


def reliability_diagram(bins: Reliability) -> Markup:
    """Draw accuracy against confidence with 95% intervals, above a histogram of the images."""
    plot = Frame(Scale(0, 1, LEFT, RIGHT), Scale(0, 1, 250, 22))
    return drawing(
        f"Reliability diagram in {len(bins.counts)} bins: calibration error {percent(bins.ece)}",
        WIDTH,
        346,
        *plot.y_axis(percent_label),
        text("accuracy", LEFT, 10, class_="label"),
        line((plot.x(0), plot.y(0)), (plot.x(1), plot.y(1)), class_="ideal"),
        *(mark for i in np.flatnonzero(bins.counts).tolist() for mark in _bin(plot, bins, i)),
        *_bin_counts(plot.x, bins.counts),
        *plot.x.x_axis(310, "confidence", percent_label),
    )


def _bin(plot: Frame, bins: Reliability, i: int) -> Iterator[Markup]:
    n, confidence, accuracy = int(bins.counts[i]), float(bins.confidence[i]), float(bins.accuracy[i])
    n_independent = n if bins.n_groups is None else int(bins.n_groups[i])
    x, bounds = plot.x(confidence), wilson(round(n_independent * accuracy), n_independent)
    yield line((x, plot.y(bounds.low)), (x, plot.y(bounds.high)), class_="whisker")
    title = f"{plural(n, 'image')}: confidence {percent(confidence)}, accuracy {percent(accuracy)}"
    radius = 2.5 + 4 * float(np.sqrt(n / bins.counts.max()))
    yield element("circle", element("title", title), cx=x, cy=plot.y(accuracy), r=radius, class_="point s1")


def _bin_counts(x: Scale, counts: Ints) -> Iterator[Markup]:
    y, wide = Scale(0, float(counts.max()), 310, 272), (x.stop - x.start) / len(counts)
    for i, n in enumerate(counts.tolist()):
        if n:
            title = element("title", plural(n, "image"))
            yield _column(title, (x.start + i * wide, min(y(n), 309.0)), (wide, 310.0), "faint")
    yield text("images", x.start - 7, 310, class_="tick", text_anchor="end")


# --- rejection ------------------------------------------------------------------------------------------------------


def false_alarm_chart(rows: tuple[FalseAlarmRow, ...], alpha: float) -> Markup:
    """Draw the measured false-alarm rates, one row per class, against alpha and their upper bounds."""
    names = [shorten(row.name, 18) for row in rows]
    left, bottom = max(breadth(name) for name in names) * EM + 12, 34.0 + 20 * len(rows)
    highest = max(2 * alpha, *(max(row.rejected, row.bound or 0) / max(1, row.n) for row in rows))
    x = Scale(0, min(1.0, highest * 1.04), left, RIGHT)
    return drawing(
        f"False-alarm rates against alpha = {percent_label(alpha)}, in {plural(len(rows), 'row')}",
        WIDTH,
        bottom + 36,
        *_legend([("s1", "measured"), ("warm", "above the bound"), ("limit", "95% bound")], 2),
        line((x(alpha), 30), (x(alpha), bottom), class_="ideal"),
        *x.x_axis(bottom, f"false-alarm rate; dashed line: alpha = {percent_label(alpha)}", percent_label),
        *(mark for i, row in enumerate(rows) for mark in _false_alarm_marks(x, 44.0 + 20 * i, names[i], row)),
    )


def _false_alarm_marks(x: Scale, y: float, name: str, row: FalseAlarmRow) -> Iterator[Markup]:
    bound = "" if row.bound is None else f"; at most {row.bound} expected"
    title = element("title", f"{row.name}: {row.rejected} of {plural(row.n, 'image')}{bound}")
    yield text(name, x.start - 8, y + 4, class_="name above" if row.above else "name", text_anchor="end")
    length = max(1.5, x(row.rejected / max(1, row.n)) - x.start)
    kind = "warm" if row.above else "s1"
    yield element("rect", title, x=x.start, y=y - 4, width=length, height=8, rx=1.5, class_=kind)
    if row.bound is not None and row.n:
        yield element("rect", x=x(row.bound / row.n) - 1, y=y - 7, width=2, height=14, class_="limit")


def p_value_histogram(known: Floats, unknown: Floats | None, alpha: float | None) -> Markup:
    """Draw histograms of the p-values of known images, and of unknown ones, in twenty bins."""
    groups = {"known images": known} if unknown is None else {"known images": known, "unknown images": unknown}
    fractions = [np.histogram(values, bins=20, range=(0, 1))[0] / len(values) for values in groups.values()]
    plot = Frame.for_ranges((0, 1), (0, 1.05 * float(max(each.max() for each in fractions))))
    kinds = ("s1", "warm")[: len(groups)]
    return drawing(
        f"Histogram of the p-values of {' and '.join(groups)}",
        WIDTH,
        HEIGHT,
        *_legend(zip(kinds, groups, strict=True)),
        *plot.y_axis(percent_label),
        *(bar for i, each in enumerate(fractions) for bar in _bars(plot, each, (i, len(fractions)))),
        line((plot.x(0), plot.y(0.05)), (plot.x(1), plot.y(0.05)), class_="ideal"),
        *(() if alpha is None else _alpha_mark(plot, alpha)),
        *plot.x.x_axis(plot.y.start, "p-value"),
    )


def _bars(plot: Frame, fractions: Floats, group: tuple[int, int]) -> Iterator[Markup]:
    """Draw the bars of group number `group[0]` of `group[1]`, which stand beside each other in every bin."""
    slot = (plot.x.stop - plot.x.start) / len(fractions)
    wide = slot / group[1]
    for i, fraction in enumerate(fractions.tolist()):
        title = element("title", f"{percent(fraction)} of the images")
        corner = (plot.x.start + i * slot + group[0] * wide, plot.y(fraction))
        yield _column(title, corner, (wide, plot.y.start), ("s1", "warm")[group[0]])


def _alpha_mark(plot: Frame, alpha: float) -> Iterator[Markup]:
    x = plot.x(alpha)
    yield line((x, plot.y.start), (x, plot.y.stop), class_="limit")
    yield text(f"rejected: p ≤ {alpha:g}", x - 1, plot.y.stop - 5, class_="note")


# --- elements -------------------------------------------------------------------------------------------------------


def meter(fraction: float) -> Markup:
    """Draw a fraction as a short bar, hidden from screen readers because the number stands beside it."""
    if not np.isfinite(fraction):
        return Markup("")
    track = element("rect", width=64, height=6, rx=3, class_="track")
    bar = element("rect", width=64 * float(fraction), height=6, rx=3, class_="s1")
    return element("svg", track, bar, viewBox="0 0 64 6", width=64, height=6, class_="meter", aria_hidden="true")


def _legend(entries: Iterable[tuple[str, str]], x: float = LEFT) -> Iterator[Markup]:
    """Draw a swatch of each CSS class with its label, on one line at the top."""
    for kind, name in entries:
        yield element("rect", x=x, y=6.0, width=12, height=5, rx=2, class_=kind)
        yield text(name, x + 17, 13, class_="legend")
        x += 17 + breadth(name) * EM + 14


def _column(title: Markup, corner: tuple[float, float], size: tuple[float, float], kind: str) -> Markup:
    """Draw a vertical bar from `corner` (left, top), as wide as size[0], down to the height size[1]."""
    (x, y), (wide, base) = corner, size
    return element("rect", title, x=x + 0.75, y=y, width=wide - 1.5, height=base - y, class_=kind)
