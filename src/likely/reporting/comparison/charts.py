"""Charts of the comparison: accuracy against throughput, and accuracy over training time."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from markupsafe import Markup

from likely.evaluation.metrics import Floats, Interval
from likely.reporting.comparison.content import LearningCurve
from likely.reporting.formatting import breadth, percent, rate
from likely.reporting.html.svg import (
    EM,
    LEFT,
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

_HEIGHT, _TOP, _BOTTOM, _RIGHT = 280.0, 24.0, 240.0, WIDTH - 12
_SWATCH = 24.0  # pixels of the line before a name
_LABEL_DISTANCE = 14.0  # pixels between names
_STEPS = (1, 2, 5)
_BASELINE_COLOR, _COLORS = "s2", ("s1", "s3")  # CSS classes of the style sheet
_DASHES = ("", "5 3", "1.5 3")  # further families have the same colors, dashed


class Point(NamedTuple):
    """A family in the cost chart: its throughput, its accuracy and the range of the accuracy."""

    name: str
    images_per_second: float
    accuracy: float
    range: Interval | None
    is_baseline: bool


class _LineStyle(NamedTuple):
    """The color of a line, as a CSS class, and its dash pattern."""

    color: str
    dash: str = ""


def cost_chart(points: Sequence[Point]) -> Markup:
    """Draw accuracy against throughput on a logarithmic axis, a dot for each family, the baseline in another color."""
    throughputs = np.log10([point.images_per_second for point in points])
    plot = Frame(Scale(*_decades(throughputs), LEFT + 8, _RIGHT), Scale(*_accuracy_range(points), _BOTTOM, _TOP))
    label_heights = _spread_labels([plot.y(point.accuracy) for point in points])
    return drawing(
        f"Accuracy against throughput of {', '.join(point.name for point in points)}",
        WIDTH,
        _HEIGHT,
        *plot.y_axis(percent_label),
        text("accuracy", LEFT + 8, 12, class_="label"),
        *_log_axis(plot.x),
        *(
            mark
            for i, y in enumerate(label_heights)
            for mark in _point(plot, points[i], y, on_right=_on_right(plot, points, i))
        ),
    )


def learning_curve_chart(curves: Mapping[str, LearningCurve], baseline: str) -> Markup:
    """Draw validation accuracy over minutes of training, a line for each family, named at its end."""
    names, styles = list(curves), _line_styles(curves, baseline)
    right = _RIGHT - max(breadth(name) for name in names) * EM - _SWATCH
    latest = max(float(curve.minutes.max()) for curve in curves.values())
    accuracy = np.concatenate([curve.accuracy for curve in curves.values()])
    plot = Frame(Scale(0, latest, LEFT + 8, right), Scale(*_late_range(accuracy), _BOTTOM, _TOP))
    label_heights = _spread_labels([_clamped(plot.y(float(curve.accuracy[-1]))) for curve in curves.values()])
    return drawing(
        f"Validation accuracy over training time of {', '.join(names)}",
        WIDTH,
        _HEIGHT,
        *plot.y_axis(percent_label),
        text("validation accuracy", LEFT + 8, 12, class_="label"),
        *_minutes_axis(plot.x),
        *(mark for name in names for mark in _curve(plot, curves[name], styles[name])),
        *(
            mark
            for name, y in zip(names, label_heights, strict=True)
            for mark in _label(name, styles[name], (right + 8, y))
        ),
    )


def _decades(log_values: Floats) -> tuple[float, float]:
    """Return a range around logarithmic values with room for a name at the right."""
    low, high = float(log_values.min()), float(log_values.max())
    span = high - low
    return low - max(0.2, 0.15 * span), high + max(0.55, 0.35 * span)


def _accuracy_range(points: Sequence[Point]) -> tuple[float, float]:
    """Return a range around the accuracies and their intervals, within [0, 1]."""
    bounds = [value for point in points for value in (point.accuracy, *(point.range or ()))]
    margin = max(0.005, 0.12 * (max(bounds) - min(bounds)))
    return max(0.0, min(bounds) - margin), min(1.0, max(bounds) + margin)


def _late_range(accuracy: Floats) -> tuple[float, float]:
    """Return the range without the lowest tenth of the values, which would flatten the rest."""
    low, high = float(np.quantile(accuracy, 0.1)), float(accuracy.max())
    margin = max(0.005, 0.08 * (high - low))
    return max(0.0, low - margin), min(1.0, high + margin)


def _log_axis(x: Scale) -> Iterator[Markup]:
    """Draw a logarithmic axis with ticks at 1, 2 and 5 times each power of ten, or at powers of ten only."""
    yield line((x.start, _BOTTOM), (x.stop, _BOTTOM), class_="axis")
    powers = range(math.floor(x.low), math.ceil(x.high) + 1)
    candidates = [step * 10.0**power for power in powers for step in _STEPS]
    inside = [value for value in candidates if x.low <= math.log10(value) <= x.high]
    shown = [value for value in inside if math.log10(value) % 1 < 1e-9] if len(inside) > 7 else inside
    for value in shown:
        at = x(math.log10(value))
        yield line((at, _BOTTOM), (at, _TOP), class_="grid")
        yield text(tick_label(value), at, _BOTTOM + 15, class_="tick", text_anchor="middle")
    yield text("images/s (logarithmic)", x.stop, _BOTTOM + 31, class_="label", text_anchor="end")


def _minutes_axis(x: Scale) -> Iterator[Markup]:
    yield line((x.start, _BOTTOM), (x.stop, _BOTTOM), class_="axis")
    for value in x.ticks(4):
        yield text(tick_label(value), x(value), _BOTTOM + 15, class_="tick", text_anchor="middle")
    yield text("minutes", x.stop, _BOTTOM + 31, class_="label", text_anchor="end")


def _point(plot: Frame, point: Point, label_y: float, *, on_right: bool) -> Iterator[Markup]:
    x, y, kind = (
        plot.x(math.log10(point.images_per_second)),
        plot.y(point.accuracy),
        _BASELINE_COLOR if point.is_baseline else _COLORS[0],
    )
    if point.range is not None:
        yield line((x, plot.y(point.range.low)), (x, plot.y(point.range.high)), class_="whisker")
    title = f"{point.name}: {percent(point.accuracy, 2)}, {rate(point.images_per_second)} images/s"
    yield element("circle", element("title", title), cx=x, cy=y, r=5, class_=f"point {kind}")
    position = {"x": x + 10, "text_anchor": "start"} if on_right else {"x": x - 10, "text_anchor": "end"}
    yield element("text", point.name, y=label_y + 4, class_="name", **position)


def _on_right(plot: Frame, points: Sequence[Point], i: int) -> bool:
    """Return True if the name belongs to the right of its dot: another dot or the edge may be there."""
    own, width = plot.x(math.log10(points[i].images_per_second)), breadth(points[i].name) * EM + 16
    near = [
        p
        for p in points
        if p is not points[i] and abs(plot.y(p.accuracy) - plot.y(points[i].accuracy)) < _LABEL_DISTANCE
    ]
    others = [plot.x(math.log10(point.images_per_second)) for point in near]
    right = own + width < plot.x.stop and not any(own <= x <= own + width for x in others)
    left = own - width > plot.x.start and not any(own - width <= x <= own for x in others)
    return right or (not left and own + width < plot.x.stop)


def _label(name: str, style: _LineStyle, at: tuple[float, float]) -> Iterator[Markup]:
    """Draw a family's name after a piece of its line."""
    x, y = at
    yield _line(f"M{x:.1f} {y:.1f}h12", style)
    yield text(name, x + _SWATCH - 6, y + 4, class_="name")


def _curve(plot: Frame, curve: LearningCurve, style: _LineStyle) -> Iterator[Markup]:
    positions = [(plot.x(m), _clamped(plot.y(a))) for m, a in zip(*map(np.ndarray.tolist, curve), strict=True)]
    yield _line("M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in positions), style)
    yield element("circle", cx=positions[-1][0], cy=positions[-1][1], r=2.5, class_=style.color)


def _line(path: str, style: _LineStyle) -> Markup:
    dashes = {"stroke_dasharray": style.dash} if style.dash else {}
    return element("path", d=path, class_=f"curve {style.color}", **dashes)


def _line_styles(names: Iterable[str], baseline: str) -> dict[str, _LineStyle]:
    """Return the color of the baseline for it and the other colors, cyclically, for the others."""
    others = [name for name in names if name != baseline]
    n = len(_COLORS)
    return {baseline: _LineStyle(_BASELINE_COLOR)} | {
        name: _LineStyle(_COLORS[i % n], _DASHES[i // n % 3]) for i, name in enumerate(others)
    }


def _clamped(y: float) -> float:
    return min(max(y, _TOP), _BOTTOM)


def _spread_labels(heights: Sequence[float]) -> list[float]:
    """Move label heights apart, in their order, until no two overlap."""
    order = np.argsort(heights, kind="stable")
    moved = np.array(heights, float)[order]
    for _ in range(len(moved)):
        for i in range(1, len(moved)):
            overlap = _LABEL_DISTANCE - (moved[i] - moved[i - 1])
            if overlap > 1e-9:
                moved[i - 1 : i + 1] += (-overlap / 2, overlap / 2)
    found = np.empty(len(moved))
    found[order] = moved
    return [float(y) for y in found]
