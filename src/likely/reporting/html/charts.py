"""Charts of the report: functions from numbers to SVG."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np
from markupsafe import Markup

from likely.evaluation.metrics import Floats, Ints, Reliability, wilson
from likely.reporting.formatting import breadth, percent, plural, shorten
from likely.reporting.html.svg import (
    EM,
    HEIGHT,
    LEFT,
    RIGHT,
    WIDTH,
    Frame,
    Scale,
    clipped,
    drawing,
    element,
    frame,
    legend,
    line,
    percent_label,
    text,
    tick_label,
    x_axis,
    y_axis,
)

_MAX_POINTS = 400  # of one curve: as many as pixels

# --- curves ---------------------------------------------------------------------------------------------------------


def line_chart(epochs: Ints, series: Mapping[str, Floats], label: str) -> Markup:
    """Draw values over epochs, one line for each of at most three series, whose legend shows the last values."""
    values = np.stack([np.asarray(row, dtype=np.float64) for row in series.values()])  # (S, E)
    plot = frame((float(epochs[0]), float(epochs[-1])), _range(values))
    kinds = [f"s{i + 1}" for i in range(len(series))]
    labels = [f"{name} {_last(row)}" for name, row in zip(series, values, strict=True)]
    lines = [mark for kind, row in zip(kinds, values, strict=True) for mark in _curve(plot, epochs, row, kind)]
    axes = (*y_axis(plot), *x_axis(plot.x, plot.y.start, "epoch"))
    return drawing(label, WIDTH, HEIGHT, *legend(zip(kinds, labels, strict=True)), *axes, clipped(plot, lines))


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


# --- calibration ----------------------------------------------------------------------------------------------------


def reliability_diagram(bins: Reliability) -> Markup:
    """Draw accuracy against confidence with 95% intervals, above a histogram of the images."""
    plot = Frame(Scale(0, 1, LEFT, RIGHT), Scale(0, 1, 250, 22))
    return drawing(
        f"Reliability diagram in {len(bins.counts)} bins: calibration error {percent(bins.ece)}",
        WIDTH,
        346,
        *y_axis(plot, percent_label),
        text("accuracy", LEFT, 10, class_="label"),
        line((plot.x(0), plot.y(0)), (plot.x(1), plot.y(1)), class_="ideal"),
        *(mark for i in np.flatnonzero(bins.counts).tolist() for mark in _bin(plot, bins, i)),
        *_bin_counts(plot.x, bins.counts),
        *x_axis(plot.x, 310, "confidence", percent_label),
    )


def _bin(plot: Frame, bins: Reliability, i: int) -> Iterator[Markup]:
    n, confidence, accuracy = int(bins.counts[i]), float(bins.confidence[i]), float(bins.accuracy[i])
    x, bounds = plot.x(confidence), wilson(round(n * accuracy), n)
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


class FalseAlarmRow(NamedTuple):
    """A row of the false-alarm chart: images, rejections, and the largest number of rejections that the guarantee
    explains (None: no guarantee)."""

    name: str
    n: int
    rejected: int
    bound: int | None

    @property
    def above(self) -> bool:
        return self.bound is not None and self.rejected > self.bound


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
        *legend([("s1", "measured"), ("warm", "above the bound"), ("limit", "95% bound")], 2),
        line((x(alpha), 30), (x(alpha), bottom), class_="ideal"),
        *x_axis(x, bottom, f"false alarms; dashed line: alpha = {percent_label(alpha)}", percent_label),
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
    plot = frame((0, 1), (0, 1.05 * float(max(each.max() for each in fractions))))
    kinds = ("s1", "warm")[: len(groups)]
    return drawing(
        f"Histogram of the p-values of {' and '.join(groups)}",
        WIDTH,
        HEIGHT,
        *legend(zip(kinds, groups, strict=True)),
        *y_axis(plot, percent_label),
        *(bar for i, each in enumerate(fractions) for bar in _bars(plot, each, (i, len(fractions)))),
        line((plot.x(0), plot.y(0.05)), (plot.x(1), plot.y(0.05)), class_="ideal"),
        *(() if alpha is None else _alpha_mark(plot, alpha)),
        *x_axis(plot.x, plot.y.start, "p-value"),
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
    yield text(f"unknown: p ≤ {alpha:g}", x - 1, plot.y.stop - 5, class_="note")


# --- elements -------------------------------------------------------------------------------------------------------


def meter(fraction: float) -> Markup:
    """Draw a fraction as a short bar, hidden from screen readers because the number stands beside it."""
    if not np.isfinite(fraction):
        return Markup("")
    track = element("rect", width=64, height=6, rx=3, class_="track")
    bar = element("rect", width=64 * float(fraction), height=6, rx=3, class_="s1")
    return element("svg", track, bar, viewBox="0 0 64 6", width=64, height=6, class_="meter", aria_hidden="true")


def _column(title: Markup, corner: tuple[float, float], size: tuple[float, float], kind: str) -> Markup:
    """Draw a vertical bar from `corner` (left, top), as wide as size[0], down to the height size[1]."""
    (x, y), (wide, base) = corner, size
    return element("rect", title, x=x + 0.75, y=y, width=wide - 1.5, height=base - y, class_=kind)
