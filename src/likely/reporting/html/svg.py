"""SVG charts: elements, scales, axes, legends. Colors come from the style sheet of the page, by CSS class."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Self

from markupsafe import Markup, escape

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


def percent_label(value: float) -> str:
    """Format a fraction as a percentage without trailing zeros."""
    return f"{round(value * 100, 6):g}%"


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

    def ticks(self, count: int = 4) -> list[float]:
        """Return about `count` round values in [low, high], with a step of 1, 2 or 5 times a power of ten.

        >>> Scale(0, 0.93, 0, 400).ticks()
        [0.0, 0.2, 0.4, 0.6, 0.8]
        """
        if not self.high > self.low:
            return [self.low]
        rough = (self.high - self.low) / count
        power = 10.0 ** math.floor(math.log10(rough))
        step = min((factor * power for factor in (1, 2, 5, 10)), key=lambda step: abs(math.log(step / rough)))
        digits = max(0, -math.floor(math.log10(step)))
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [round(i * step, digits) for i in range(first, last + 1)]

    def x_axis(self, y: float, label: str, tick: TickLabel = tick_label) -> Iterator[Markup]:
        """Draw a horizontal axis at height `y` with round values below it and its label at the right."""
        yield line((self.start, y), (self.stop, y), class_="axis")
        for value in self.ticks(5):
            yield text(tick(value), self(value), y + 15, class_="tick", text_anchor="middle")
        yield text(label, self.stop, y + 31, class_="label", text_anchor="end")


@dataclass(frozen=True)
class Frame:
    """The two scales of a plot, in the coordinates of its drawing."""

    x: Scale
    y: Scale

    @classmethod
    def for_ranges(cls, x: tuple[float, float], y: tuple[float, float]) -> Self:
        """Return the scales for two ranges of values in a drawing of WIDTH x HEIGHT."""
        return cls(Scale(*x, LEFT, RIGHT), Scale(*y, BOTTOM, TOP))

    def y_axis(self, tick: TickLabel = tick_label) -> Iterator[Markup]:
        """Draw thin lines across the plot with round values at their left."""
        for value in self.y.ticks():
            y = self.y(value)
            yield line((self.x.start, y), (self.x.stop, y), class_="grid")
            yield text(tick(value), self.x.start - 7, y + 4, class_="tick", text_anchor="end")

    def clipped(self, marks: Sequence[Markup]) -> Markup:
        """Clip marks to the plot with a nested svg element that has the same coordinates."""
        x, y, width, height = self.x.start, self.y.stop, self.x.stop - self.x.start, self.y.start - self.y.stop
        # Room for half a line width and for the dots at the ends.
        box = {"x": x - 4, "y": y - 4, "width": width + 8, "height": height + 8}
        return element("svg", *marks, **box, viewBox=" ".join(f"{value:g}" for value in box.values()))


def _name(key: str) -> str:
    return key.removesuffix("_").replace("_", "-")


def _value(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.2f}".rstrip("0").rstrip(".")
    return str(escape(value))
