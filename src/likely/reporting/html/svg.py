"""SVG charts: elements, scales, axes, legends. Colors come from the style sheet of the page, by CSS class."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from likely.reporting.formatting import breadth

WIDTH = 400.0  # about the width of a phone, so that text keeps its size there
HEIGHT = 230.0
EM = 11.0  # font size in every chart
LEFT, RIGHT, TOP, BOTTOM = 42.0, WIDTH - 16, 34.0, HEIGHT - 36

TickLabel = Callable[[float], str]


def element(name: str, *children: Markup | str, **attributes: object) -> Markup:
    """Return an XML element; `class_` means class, other underscores hyphens; numbers have at most two decimals.

    >>> element("text", "a < b", x=1.0, class_="label")
    Markup('<text x="1" class="label">a &lt; b</text>')
    """
    attrs = "".join(f' {_name(key)}="{_value(value)}"' for key, value in attributes.items())
    content = "".join(escape(child) for child in children)
    return Markup(f"<{name}{attrs}>{content}</{name}>" if content else f"<{name}{attrs}/>")


def drawing(label: str, width: float, height: float, *children: Markup) -> Markup:
    """Return an svg element; screen readers read `label`."""
    size = {"viewBox": f"0 0 {_value(width)} {_value(height)}", "width": width, "height": height}
    return element("svg", *children, role="img", aria_label=label, **size)


def text(content: str, x: float, y: float, **attributes: object) -> Markup:
    return element("text", content, x=x, y=y, **attributes)


def line(start: tuple[float, float], end: tuple[float, float], **attributes: object) -> Markup:
    return element("line", x1=start[0], y1=start[1], x2=end[0], y2=end[1], **attributes)


@dataclass(frozen=True)
class Scale:
    """A linear map from [low, high] to [start, stop]; an empty interval maps to the middle."""

    low: float
    high: float
    start: float
    stop: float

    def __call__(self, value: float) -> float:
        if self.high == self.low:
            return (self.start + self.stop) / 2
        return self.start + (value - self.low) / (self.high - self.low) * (self.stop - self.start)


def ticks(low: float, high: float, count: int = 4) -> list[float]:
    """Return about `count` round values in [low, high], with a step of 1, 2 or 5 times a power of ten.

    >>> ticks(0, 0.93)
    [0.0, 0.2, 0.4, 0.6, 0.8]
    """
    if not high > low:
        return [low]
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = min((factor * power for factor in (1, 2, 5, 10)), key=lambda step: abs(math.log(step / rough)))
    digits = max(0, -math.floor(math.log10(step)))
    return [round(i * step, digits) for i in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def tick_label(value: float) -> str:
    """Format the value of a tick.

    >>> tick_label(0.2), tick_label(-12000.0), tick_label(0.00003)
    ('0.2', '−12k', '3e−5')
    """
    if abs(value) >= 10_000:
        label = f"{value / 1000:g}k"
    elif 0 < abs(value) < 0.0001:
        label = f"{value:.0e}".replace("e-0", "e-")
    else:
        label = f"{value:g}"
    return label.replace("-", "−")


@dataclass(frozen=True)
class Frame:
    """The two scales of a plot, in the coordinates of its drawing."""

    x: Scale
    y: Scale


def frame(x: tuple[float, float], y: tuple[float, float]) -> Frame:
    """Return the scales for two ranges in a drawing of WIDTH x HEIGHT."""
    return Frame(Scale(*x, LEFT, RIGHT), Scale(*y, BOTTOM, TOP))


def x_axis(scale: Scale, y: float, label: str, tick: TickLabel = tick_label) -> Iterator[Markup]:
    """Draw a horizontal axis at height `y` with round values below it and its label at the right."""
    yield line((scale.start, y), (scale.stop, y), class_="axis")
    for value in ticks(scale.low, scale.high, 5):
        yield text(tick(value), scale(value), y + 15, class_="tick", text_anchor="middle")
    yield text(label, scale.stop, y + 31, class_="label", text_anchor="end")


def y_axis(plot: Frame, tick: TickLabel = tick_label) -> Iterator[Markup]:
    """Draw thin lines across the plot with round values at their left."""
    for value in ticks(plot.y.low, plot.y.high, 4):
        y = plot.y(value)
        yield line((plot.x.start, y), (plot.x.stop, y), class_="grid")
        yield text(tick(value), plot.x.start - 7, y + 4, class_="tick", text_anchor="end")


def legend(entries: Iterable[tuple[str, str]], x: float = LEFT) -> Iterator[Markup]:
    """Draw a swatch of each CSS class with its label, on one line at the top."""
    for kind, name in entries:
        yield element("rect", x=x, y=6.0, width=12, height=5, rx=2, class_=kind)
        yield text(name, x + 17, 13, class_="legend")
        x += 17 + breadth(name) * EM + 14


def clipped(plot: Frame, marks: Sequence[Markup]) -> Markup:
    """Clip marks to the plot with a nested svg element that keeps the coordinates."""
    x, y, wide, tall = plot.x.start, plot.y.stop, plot.x.stop - plot.x.start, plot.y.start - plot.y.stop
    # Room for half a line width and for the dots at the ends.
    box = {"x": x - 4, "y": y - 4, "width": wide + 8, "height": tall + 8}
    return element("svg", *marks, **box, viewBox=" ".join(f"{value:g}" for value in box.values()))


def percent_label(value: float) -> str:
    """Format a fraction as a percentage without trailing zeros."""
    return f"{round(value * 100, 6):g}%"


def _name(key: str) -> str:
    return key.removesuffix("_").replace("_", "-")


def _value(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.2f}".rstrip("0").rstrip(".")
    return str(escape(value))
