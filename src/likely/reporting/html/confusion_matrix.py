"""Confusion matrices as SVG: correct predictions in blue, errors in orange, stronger the more frequent."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from markupsafe import Markup

from likely.evaluation.metrics import Floats, Ints
from likely.reporting.formatting import breadth, percent, plural, shorten
from likely.reporting.html.svg import EM, drawing, element, text

MAX_NAMED_CLASSES = 30  # more names would be illegible
_MAX_NUMBERED_CLASSES = 16  # with more, counts do not fit the cells
_SHADES = 8


class _Layout(NamedTuple):
    """The grid of cells: `edge` pixels each, the first one at (left, top)."""

    edge: float
    left: float
    top: float


def confusion_matrix(counts: Ints, names: tuple[str, ...]) -> Markup:
    """Draw a cell for each pair of classes, true classes in the rows, with names; for up to MAX_NAMED_CLASSES."""
    short = [shorten(name, 22) for name in names]
    longest = max(breadth(name) for name in short) * EM
    layout = _layout(len(names), longest)
    size = layout.edge * len(names)
    fractions = _row_fractions(counts)
    return drawing(
        f"Confusion matrix of {plural(len(names), 'class')}: {percent(counts.trace() / counts.sum())} on the diagonal",
        layout.left + size + _overhang(layout, longest),
        layout.top + size + 2,
        element("rect", x=layout.left, y=layout.top, width=size, height=size, class_="plate"),
        *_names(layout, short, longest),
        *(_cell(layout, counts, fractions, (int(i), int(j)), names) for i, j in np.argwhere(counts)),
    )


def compact_matrix(counts: Ints) -> Markup:
    """Draw a confusion matrix without names, one path per shade, for any number of classes."""
    n, shades = len(counts), np.ceil(_strength(_row_fractions(counts)) * _SHADES).astype(int)
    cells = [(kind, shade, _squares(where)) for kind, shade, where in _by_shade(shades)]
    paths = [element("path", d=d, class_=kind, fill_opacity=shade / _SHADES) for kind, shade, d in cells if d]
    plate = element("rect", width=n, height=n, class_="plate")
    inside = element("svg", plate, *paths, x=0, y=0, width=400, height=400, viewBox=f"0 0 {n} {n}")
    return drawing(f"Confusion matrix of {n} classes without their names", 400, 400, inside)


def _by_shade(shades: Ints) -> Iterator[tuple[str, int, Ints]]:
    diagonal = np.eye(len(shades), dtype=bool)
    for shade in range(1, _SHADES + 1):
        yield "right", shade, np.argwhere((shades == shade) & diagonal)
        yield "wrong", shade, np.argwhere((shades == shade) & ~diagonal)


def _squares(where: Ints) -> str:
    return "".join(f"M{j} {i}h1v1h-1z" for i, j in where.tolist())


def _row_fractions(counts: Ints) -> Floats:
    fractions: Floats = counts / np.maximum(1, counts.sum(axis=1, keepdims=True))
    return fractions


def _strength(fraction: Floats) -> Floats:
    """Return the square root, which makes one error in fifty visible."""
    strength: Floats = np.sqrt(fraction)
    return strength


def _layout(n: int, longest: float) -> _Layout:
    edge = float(np.clip(420 / n, 17, 56))
    slanted = longest > edge - 6
    return _Layout(edge, longest + 12, longest * 0.71 + 14 if slanted else 22.0)


def _overhang(layout: _Layout, longest: float) -> float:
    return max(2.0, longest * 0.71 - layout.edge / 2 + 8) if longest > layout.edge - 6 else 2.0


def _names(layout: _Layout, short: list[str], longest: float) -> Iterator[Markup]:
    slanted = longest > layout.edge - 6
    for i, name in enumerate(short):
        middle = layout.edge * (i + 0.5)
        yield text(name, layout.left - 7, layout.top + middle + 4, class_="name", text_anchor="end")
        x, y = layout.left + middle + 3 * slanted, layout.top - 7
        placement = {"transform": f"rotate(-45 {x:.1f} {y:.1f})"} if slanted else {"text_anchor": "middle"}
        yield text(name, x, y, class_="name", **placement)


def _cell(layout: _Layout, counts: Ints, fractions: Floats, at: tuple[int, int], names: tuple[str, ...]) -> Markup:
    (i, j), n = at, int(counts[at])
    strength = float(_strength(fractions)[at])
    predicted = "predicted correctly" if i == j else f"predicted {names[j]}"
    title = element(
        "title", f"{n} of {plural(int(counts[i].sum()), 'image')} of {names[i]} {predicted} ({percent(fractions[at])})"
    )
    x, y = layout.left + layout.edge * j, layout.top + layout.edge * i
    box = {"x": x + 0.5, "y": y + 0.5, "width": layout.edge - 1, "height": layout.edge - 1, "rx": 1.5}
    marks = [title, element("rect", **box, class_="right" if i == j else "wrong", fill_opacity=strength)]
    if len(names) <= _MAX_NUMBERED_CLASSES:
        kind = "count on" if strength > 0.75 else "count"
        marks.append(text(f"{n}", x + layout.edge / 2, y + layout.edge / 2 + 4, class_=kind, text_anchor="middle"))
    return element("g", *marks)
