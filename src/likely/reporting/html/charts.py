"""The report's charts: small functions from numbers to SVG."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np
from markupsafe import Markup

from likely.evaluation.metrics import Floats, Ints, Reliability, wilson
from likely.reporting.formatting import breadth, percent, plural, shorten
from likely.reporting.html.axes import (
    EM,
    HEIGHT,
    LEFT,
    RIGHT,
    WIDTH,
    Frame,
    clipped,
    frame,
    legend,
    percent_label,
    x_axis,
    y_axis,
)
from likely.reporting.html.svg import Scale, drawing, element, line, text, tick_label

_POINTS = 400  # more points on one curve than there are pixels are of no use

# --- curves ---------------------------------------------------------------------------------------------------------


def curves(epochs: Ints, series: Mapping[str, Floats], label: str) -> Markup:
    """Values over epochs, one line a series, three at most, each named in the legend with its last value."""
    values = np.stack([np.asarray(row, dtype=np.float64) for row in series.values()])  # (S, E)
    plot = frame((float(epochs[0]), float(epochs[-1])), _range(values))
    kinds = [f"s{i + 1}" for i in range(len(series))]
    words = [f"{name} {_last(row)}" for name, row in zip(series, values, strict=True)]
    lines = [mark for kind, row in zip(kinds, values, strict=True) for mark in _curve(plot, epochs, row, kind)]
    axes = (*y_axis(plot), *x_axis(plot.x, plot.y.start, "epoch"))
    return drawing(label, WIDTH, HEIGHT, *legend(zip(kinds, words, strict=True)), *axes, clipped(plot, lines))


def _range(values: Floats) -> tuple[float, float]:
    """From the least value to the greatest after the first twentieth, which would flatten all that follows."""
    late = values[:, values.shape[1] // 20 :]
    finite = late[np.isfinite(late)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    margin = 0.06 * (high - low) or max(abs(high) * 0.1, 1e-9)
    return low - margin, high + margin


def _curve(plot: Frame, epochs: Ints, values: Floats, kind: str) -> Iterator[Markup]:
    """A line that is broken where a value is missing, with a dot at its end."""
    step = max(1, len(values) // _POINTS)
    path, pen, x, y = [], "M", 0.0, 0.0
    for epoch, value in zip(epochs[::step].tolist(), values[::step].tolist(), strict=True):
        if not np.isfinite(value):
            pen = "M"
            continue
        x, y = plot.x(epoch), plot.y(value)
        path.append(f"{pen}{x:.1f} {y:.1f}")
        pen = "L"
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
    """Accuracy over confidence with 95 % intervals, and how many images each bin holds below."""
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
    x, sure = plot.x(confidence), wilson(round(n * accuracy), n)
    yield line((x, plot.y(sure.low)), (x, plot.y(sure.high)), class_="whisker")
    words = f"{plural(n, 'image')}: {percent(confidence)} confident, {percent(accuracy)} right"
    radius = 2.5 + 4 * float(np.sqrt(n / bins.counts.max()))
    yield element("circle", element("title", words), cx=x, cy=plot.y(accuracy), r=radius, class_="point s1")


def _bin_counts(x: Scale, counts: Ints) -> Iterator[Markup]:
    y, wide = Scale(0, float(counts.max()), 310, 272), (x.stop - x.start) / len(counts)
    for i, n in enumerate(counts.tolist()):
        if n:
            title = element("title", plural(n, "image"))
            yield _column(title, (x.start + i * wide, min(y(n), 309.0)), (wide, 310.0), "faint")
    yield text("images", x.start - 7, 310, class_="tick", text_anchor="end")


# --- rejection ------------------------------------------------------------------------------------------------------


class FalseAlarmRow(NamedTuple):
    """A line of the false-alarm chart: images, alarms, and how many alarms chance explains (None: no promise)."""

    name: str
    n: int
    rejected: int
    bound: int | None

    @property
    def above(self) -> bool:
        return self.bound is not None and self.rejected > self.bound


def alarm_chart(rows: tuple[FalseAlarmRow, ...], alpha: float) -> Markup:
    """Realized false-alarm rates, one row a class, against alpha and the most that chance explains."""
    names = [shorten(row.name, 18) for row in rows]
    left, bottom = max(breadth(name) for name in names) * EM + 12, 34.0 + 20 * len(rows)
    highest = max(2 * alpha, *(max(row.rejected, row.bound or 0) / max(1, row.n) for row in rows))
    x = Scale(0, min(1.0, highest * 1.04), left, RIGHT)
    return drawing(
        f"False-alarm rates, promised {percent_label(alpha)}, in {plural(len(rows), 'row')}",
        WIDTH,
        bottom + 36,
        *legend([("s1", "measured"), ("warm", "too many"), ("limit", "most by chance")], 2),
        line((x(alpha), 30), (x(alpha), bottom), class_="ideal"),
        *x_axis(x, bottom, f"false alarms; dashes: promised {percent_label(alpha)}", percent_label),
        *(mark for i, row in enumerate(rows) for mark in _alarm_marks(x, 44.0 + 20 * i, names[i], row)),
    )


def _alarm_marks(x: Scale, y: float, name: str, row: FalseAlarmRow) -> Iterator[Markup]:
    most = "" if row.bound is None else f"; chance explains up to {row.bound}"
    title = element("title", f"{row.name}: {row.rejected} of {plural(row.n, 'image')}{most}")
    yield text(name, x.start - 8, y + 4, class_="name above" if row.above else "name", text_anchor="end")
    length = max(1.5, x(row.rejected / max(1, row.n)) - x.start)
    kind = "warm" if row.above else "s1"
    yield element("rect", title, x=x.start, y=y - 4, width=length, height=8, rx=1.5, class_=kind)
    if row.bound is not None and row.n:
        yield element("rect", x=x(row.bound / row.n) - 1, y=y - 7, width=2, height=14, class_="limit")


def p_value_histogram(known: Floats, unknown: Floats | None, alpha: float | None) -> Markup:
    """How the p-values of known images, and of unknown ones, spread over [0, 1]: shares in twenty bins."""
    groups = {"known images": known} if unknown is None else {"known images": known, "unknown images": unknown}
    shares = [np.histogram(values, bins=20, range=(0, 1))[0] / len(values) for values in groups.values()]
    plot = frame((0, 1), (0, 1.05 * float(max(share.max() for share in shares))))
    kinds = ("s1", "warm")[: len(groups)]
    return drawing(
        f"Histogram of the p-values of {' and '.join(groups)}",
        WIDTH,
        HEIGHT,
        *legend(zip(kinds, groups, strict=True)),
        *y_axis(plot, percent_label),
        *(bar for i, share in enumerate(shares) for bar in _bars(plot, share, (i, len(shares)))),
        line((plot.x(0), plot.y(0.05)), (plot.x(1), plot.y(0.05)), class_="ideal"),
        *(() if alpha is None else _alpha_mark(plot, alpha)),
        *x_axis(plot.x, plot.y.start, "p-value"),
    )


def _bars(plot: Frame, shares: Floats, place: tuple[int, int]) -> Iterator[Markup]:
    """One group's bars, the group being number `place[0]` of `place[1]` beside each other in every bin."""
    slot = (plot.x.stop - plot.x.start) / len(shares)
    wide = slot / place[1]
    for i, share in enumerate(shares.tolist()):
        title = element("title", f"{percent(share)} of the images")
        corner = (plot.x.start + i * slot + place[0] * wide, plot.y(share))
        yield _column(title, corner, (wide, plot.y.start), ("s1", "warm")[place[0]])


def _alpha_mark(plot: Frame, alpha: float) -> Iterator[Markup]:
    x = plot.x(alpha)
    yield line((x, plot.y.start), (x, plot.y.stop), class_="limit")
    yield text(f"unknown if at most {alpha:g}", x + 5, plot.y.stop + 9, class_="note")


# --- small parts ----------------------------------------------------------------------------------------------------


def meter(fraction: float) -> Markup:
    """A share as a short bar; nothing is read aloud, the number stands beside it."""
    if not np.isfinite(fraction):
        return Markup("")
    track = element("rect", width=64, height=6, rx=3, class_="track")
    bar = element("rect", width=64 * float(fraction), height=6, rx=3, class_="s1")
    return element("svg", track, bar, viewBox="0 0 64 6", width=64, height=6, class_="meter", aria_hidden="true")


def _column(title: Markup, corner: tuple[float, float], size: tuple[float, float], kind: str) -> Markup:
    """An upright bar from `corner` (left, top), as wide as size[0], down to the height size[1]."""
    (x, y), (wide, base) = corner, size
    return element("rect", title, x=x + 0.75, y=y, width=wide - 1.5, height=base - y, class_=kind)
