"""The comparison's charts: accuracy against what an answer costs, and accuracy over the minutes of training."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from markupsafe import Markup

from likely.evaluation.metrics import Floats, Interval
from likely.reporting.comparison.content import LearningCurve
from likely.reporting.formatting import breadth, percent, rate
from likely.reporting.html.axes import EM, LEFT, WIDTH, Frame, percent_label, y_axis
from likely.reporting.html.svg import Scale, drawing, element, line, text, tick_label, ticks

HEIGHT, TOP, BOTTOM, RIGHT = 280.0, 24.0, 240.0, WIDTH - 12
SWATCH = 24.0  # pixels that a name's line takes
APART = 14.0  # pixels from one name to the next
STEPS = (1, 2, 5)
TWIN, OTHERS = "s2", ("s1", "s3")  # colors of the style sheet
DASHES = ("", "5 3", "1.5 3")  # families beyond have the same colors, broken


class Point(NamedTuple):
    """A family's place: how many images a second it classifies, how accurately, and what that accuracy may be."""

    name: str
    images_per_second: float
    accuracy: float
    range: Interval | None
    is_baseline: bool


class LineStyle(NamedTuple):
    """How a line is drawn: its color in the style sheet, and where it is broken."""

    color: str
    dash: str = ""


def cost_chart(points: Sequence[Point]) -> Markup:
    """Accuracy over images a second on a logarithmic axis, each family a dot by its name, the twin in another color."""
    speeds = np.log10([point.images_per_second for point in points])
    plot = Frame(Scale(*_decades(speeds), LEFT + 8, RIGHT), Scale(*_room(points), BOTTOM, TOP))
    places = _pushed_apart([plot.y(point.accuracy) for point in points])
    return drawing(
        f"Accuracy against speed of {', '.join(point.name for point in points)}",
        WIDTH,
        HEIGHT,
        *y_axis(plot, percent_label),
        text("accuracy", LEFT + 8, 12, class_="label"),
        *_log_axis(plot.x),
        *(
            mark
            for i, y in enumerate(places)
            for mark in _point(plot, points[i], y, on_right=_on_right(plot, points, i))
        ),
    )


def learning_curve_chart(curves: Mapping[str, LearningCurve], baseline: str) -> Markup:
    """Accuracy on validation images over the minutes of training, a line a family, each named at its end."""
    names, pens = list(curves), _pens(curves, baseline)
    right = RIGHT - max(breadth(name) for name in names) * EM - SWATCH
    latest = max(float(course.minutes.max()) for course in curves.values())
    accuracy = np.concatenate([course.accuracy for course in curves.values()])
    plot = Frame(Scale(0, latest, LEFT + 8, right), Scale(*_late_range(accuracy), BOTTOM, TOP))
    places = _pushed_apart([_within(plot.y(float(course.accuracy[-1]))) for course in curves.values()])
    return drawing(
        f"Validation accuracy over the minutes of {', '.join(names)}",
        WIDTH,
        HEIGHT,
        *y_axis(plot, percent_label),
        text("accuracy on validation images", LEFT + 8, 12, class_="label"),
        *_minutes_axis(plot.x),
        *(mark for name in names for mark in _course(plot, curves[name], pens[name])),
        *(mark for name, y in zip(names, places, strict=True) for mark in _key(name, pens[name], (right + 8, y))),
    )


def _decades(log_values: Floats) -> tuple[float, float]:
    """A range around the values, in powers of ten, with a few round numbers in it and room for a name at the right."""
    low, high = float(log_values.min()), float(log_values.max())
    span = high - low
    return low - max(0.2, 0.15 * span), high + max(0.55, 0.35 * span)


def _room(points: Sequence[Point]) -> tuple[float, float]:
    """From below the least accuracy to above the most, ranges included, and never beyond 100%."""
    bounds = [value for point in points for value in (point.accuracy, *(point.range or ()))]
    margin = max(0.005, 0.12 * (max(bounds) - min(bounds)))
    return max(0.0, min(bounds) - margin), min(1.0, max(bounds) + margin)


def _late_range(accuracy: Floats) -> tuple[float, float]:
    """Nearly everything: the first few values would flatten all that follows."""
    low, high = float(np.quantile(accuracy, 0.1)), float(accuracy.max())
    margin = max(0.005, 0.08 * (high - low))
    return max(0.0, low - margin), min(1.0, high + margin)


def _log_axis(x: Scale) -> Iterator[Markup]:
    """1, 2 and 5 times each power of ten, under the line."""
    yield line((x.start, BOTTOM), (x.stop, BOTTOM), class_="axis")
    powers = range(math.floor(x.low), math.ceil(x.high) + 1)
    rounds = [step * 10.0**power for power in powers for step in STEPS]
    inside = [value for value in rounds if x.low <= math.log10(value) <= x.high]
    few = [value for value in inside if math.log10(value) % 1 < 1e-9] if len(inside) > 7 else inside
    for value in few:
        at = x(math.log10(value))
        yield line((at, BOTTOM), (at, TOP), class_="grid")
        yield text(tick_label(value), at, BOTTOM + 15, class_="tick", text_anchor="middle")
    yield text("images a second, each step ten times the last" if few != inside else "images a second (logarithmic)",
               x.stop, BOTTOM + 31, class_="label", text_anchor="end")  # fmt: skip


def _minutes_axis(x: Scale) -> Iterator[Markup]:
    yield line((x.start, BOTTOM), (x.stop, BOTTOM), class_="axis")
    for value in ticks(x.low, x.high, 4):
        yield text(tick_label(value), x(value), BOTTOM + 15, class_="tick", text_anchor="middle")
    yield text("minutes", x.stop, BOTTOM + 31, class_="label", text_anchor="end")


def _point(plot: Frame, point: Point, label_y: float, *, on_right: bool) -> Iterator[Markup]:
    x, y, kind = (
        plot.x(math.log10(point.images_per_second)),
        plot.y(point.accuracy),
        TWIN if point.is_baseline else OTHERS[0],
    )
    if point.range is not None:
        yield line((x, plot.y(point.range.low)), (x, plot.y(point.range.high)), class_="whisker")
    words = f"{point.name}: {percent(point.accuracy, 2)}, {rate(point.images_per_second)} images a second"
    yield element("circle", element("title", words), cx=x, cy=y, r=5, class_=f"point {kind}")
    place = {"x": x + 10, "text_anchor": "start"} if on_right else {"x": x - 10, "text_anchor": "end"}
    yield element("text", point.name, y=label_y + 4, class_="name", **place)


def _on_right(plot: Frame, points: Sequence[Point], i: int) -> bool:
    """Whether a name goes to the right of its dot: unless another dot is there, or the edge, and the left is free."""
    own, width = plot.x(math.log10(points[i].images_per_second)), breadth(points[i].name) * EM + 16
    near = [p for p in points if p is not points[i] and abs(plot.y(p.accuracy) - plot.y(points[i].accuracy)) < APART]
    others = [plot.x(math.log10(point.images_per_second)) for point in near]
    right = own + width < plot.x.stop and not any(own <= x <= own + width for x in others)
    left = own - width > plot.x.start and not any(own - width <= x <= own for x in others)
    return right or (not left and own + width < plot.x.stop)


def _key(name: str, pen: LineStyle, at: tuple[float, float]) -> Iterator[Markup]:
    """A family's name with a piece of its line."""
    x, y = at
    yield _line(f"M{x:.1f} {y:.1f}h12", pen)
    yield text(name, x + SWATCH - 6, y + 4, class_="name")


def _course(plot: Frame, course: LearningCurve, pen: LineStyle) -> Iterator[Markup]:
    places = [(plot.x(m), _within(plot.y(a))) for m, a in zip(*map(np.ndarray.tolist, course), strict=True)]
    yield _line("M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in places), pen)
    yield element("circle", cx=places[-1][0], cy=places[-1][1], r=2.5, class_=pen.color)


def _line(path: str, pen: LineStyle) -> Markup:
    broken = {"stroke_dasharray": pen.dash} if pen.dash else {}
    return element("path", d=path, class_=f"curve {pen.color}", **broken)


def _pens(names: Iterable[str], twin: str) -> dict[str, LineStyle]:
    """The twin in the color that it has everywhere, the others in turn."""
    others = [name for name in names if name != twin]
    n = len(OTHERS)
    return {twin: LineStyle(TWIN)} | {
        name: LineStyle(OTHERS[i % n], DASHES[i // n % 3]) for i, name in enumerate(others)
    }


def _within(y: float) -> float:
    return min(max(y, TOP), BOTTOM)


def _pushed_apart(places: Sequence[float]) -> list[float]:
    """Heights of names, in the same order, moved just so far that none stands on another."""
    order = np.argsort(places, kind="stable")
    moved = np.array(places, float)[order]
    for _ in range(len(moved)):
        for i in range(1, len(moved)):
            lack = APART - (moved[i] - moved[i - 1])
            if lack > 1e-9:
                moved[i - 1 : i + 1] += (-lack / 2, lack / 2)
    found = np.empty(len(moved))
    found[order] = moved
    return [float(y) for y in found]
