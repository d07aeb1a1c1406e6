"""What every chart has around its data: scales, ticks, labels, a legend."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from likely.reporting.formatting import breadth
from likely.reporting.html.svg import Scale, element, line, text, tick_label, ticks

WIDTH = 400.0  # about a phone's, so that letters keep their size there
HEIGHT = 230.0
EM = 11.0  # the letters' size in every chart
LEFT, RIGHT, TOP, BOTTOM = 42.0, WIDTH - 16, 34.0, HEIGHT - 36

Words = Callable[[float], str]


@dataclass(frozen=True)
class Frame:
    """A plot's two scales, in the drawing's coordinates."""

    x: Scale
    y: Scale


def frame(x: tuple[float, float], y: tuple[float, float]) -> Frame:
    """The usual plot: two ranges laid on a drawing of WIDTH x HEIGHT."""
    return Frame(Scale(*x, LEFT, RIGHT), Scale(*y, BOTTOM, TOP))


def x_axis(scale: Scale, y: float, label: str, words: Words = tick_label) -> Iterator[Markup]:
    """Round values under the line at height `y`, and the axis's name at the right."""
    yield line((scale.start, y), (scale.stop, y), class_="axis")
    for value in ticks(scale.low, scale.high, 5):
        yield text(words(value), scale(value), y + 15, class_="tick", text_anchor="middle")
    yield text(label, scale.stop, y + 31, class_="label", text_anchor="end")


def y_axis(plot: Frame, words: Words = tick_label) -> Iterator[Markup]:
    """Round values left of thin lines across the plot."""
    for value in ticks(plot.y.low, plot.y.high, 4):
        y = plot.y(value)
        yield line((plot.x.start, y), (plot.x.stop, y), class_="grid")
        yield text(words(value), plot.x.start - 7, y + 4, class_="tick", text_anchor="end")


def legend(entries: Iterable[tuple[str, str]], x: float = LEFT) -> Iterator[Markup]:
    """A swatch of each class with its words, on one line at the top."""
    for kind, words in entries:
        yield element("rect", x=x, y=6.0, width=12, height=5, rx=2, class_=kind)
        yield text(words, x + 17, 13, class_="legend")
        x += 17 + breadth(words) * EM + 14


def clipped(plot: Frame, marks: Sequence[Markup]) -> Markup:
    """Marks without what lies outside the plot: a drawing inside the drawing, which keeps its coordinates."""
    x, y, wide, tall = plot.x.start, plot.y.stop, plot.x.stop - plot.x.start, plot.y.start - plot.y.stop
    # Room for half a line's thickness and for the dots at the ends.
    box = {"x": x - 4, "y": y - 4, "width": wide + 8, "height": tall + 8}
    return element("svg", *marks, **box, viewBox=" ".join(f"{value:g}" for value in box.values()))


def percent_label(value: float) -> str:
    return f"{round(value * 100, 6):g}%"
