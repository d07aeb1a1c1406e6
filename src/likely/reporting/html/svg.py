"""Drawing with SVG: elements, scales and ticks. Colors come from the page's style sheet, by class."""

from __future__ import annotations

import math
from dataclasses import dataclass

from markupsafe import Markup, escape


def element(name: str, *children: Markup | str, **attributes: object) -> Markup:
    """An XML element; `class_` stands for class, other underscores for hyphens, numbers have two decimals at most.

    >>> element("text", "a < b", x=1.0, class_="label")
    Markup('<text x="1" class="label">a &lt; b</text>')
    """
    words = "".join(f' {_name(key)}="{_value(value)}"' for key, value in attributes.items())
    inside = "".join(escape(child) for child in children)
    return Markup(f"<{name}{words}>{inside}</{name}>" if inside else f"<{name}{words}/>")


def drawing(label: str, width: float, height: float, *children: Markup) -> Markup:
    """A whole picture, `label` being what is read aloud in its place."""
    size = {"viewBox": f"0 0 {_value(width)} {_value(height)}", "width": width, "height": height}
    return element("svg", *children, role="img", aria_label=label, **size)


def text(words: str, x: float, y: float, **attributes: object) -> Markup:
    return element("text", words, x=x, y=y, **attributes)


def line(start: tuple[float, float], end: tuple[float, float], **attributes: object) -> Markup:
    return element("line", x1=start[0], y1=start[1], x2=end[0], y2=end[1], **attributes)


@dataclass(frozen=True)
class Scale:
    """value -> position: [low, high] laid on [start, stop]; an interval of no length goes to the middle."""

    low: float
    high: float
    start: float
    stop: float

    def __call__(self, value: float) -> float:
        if self.high == self.low:
            return (self.start + self.stop) / 2
        return self.start + (value - self.low) / (self.high - self.low) * (self.stop - self.start)


def ticks(low: float, high: float, count: int = 4) -> list[float]:
    """About `count` round values in [low, high], a step of 1, 2 or 5 times a power of ten apart.

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
    """
    >>> tick_words(0.2), tick_words(-12000.0), tick_words(0.00003)
    ('0.2', '−12k', '3e−5')
    """
    if abs(value) >= 10_000:
        words = f"{value / 1000:g}k"
    elif 0 < abs(value) < 0.0001:
        words = f"{value:.0e}".replace("e-0", "e-")
    else:
        words = f"{value:g}"
    return words.replace("-", "−")


def _name(key: str) -> str:
    return key.removesuffix("_").replace("_", "-")


def _value(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.2f}".rstrip("0").rstrip(".")
    return str(escape(value))
