"""A comparison as Markdown: three tables, and what their figures never stand without."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from likely.reporting.comparison.columns import (
    ACCURACY,
    COSTS,
    DELTA,
    FID,
    FIDELITY,
    PREDICTIONS,
    MetricColumn,
    Row,
    family_rows,
    footnotes,
    seed_rows,
    shown_columns,
)
from likely.reporting.comparison.content import Comparison
from likely.reporting.comparison.fidelity import between_seeds, incomparability, measurements
from likely.reporting.comparison.render import name
from likely.reporting.comparison.sections import facts, fidelity_paragraphs
from likely.reporting.comparison.summary import caveats, manner, summary
from likely.reporting.formatting import breadth, listing
from likely.reporting.model_card import plain

WITH_RANGE = (ACCURACY, DELTA, FID)  # a text has no room for the range of every figure


def table(comparison: Comparison) -> str:
    """table.md: families, the mean over seeds first and each seed after it, by answers, costs and likeness."""
    return "\n".join(_lines(comparison)) + "\n"


def _lines(comparison: Comparison) -> Iterator[str]:
    yield from (
        f"# {plain(name(comparison))}: {listing(comparison.tried, 9)}",
        "",
        summary(comparison),
        manner(comparison),
        "",
    )
    yield from ("## Answers", "", *_table(comparison, PREDICTIONS))
    yield from ("## Costs", "", *_table(comparison, COSTS))
    yield from _likeness(comparison)
    if said := caveats(comparison):
        yield from ("## Before you trust it", "", *(f"- {plain(words)}" for words in said), "")
    yield "; ".join(f"{title}: {plain(value)}" for title, value in facts(comparison)) + "."


def _likeness(comparison: Comparison) -> Iterator[str]:
    groups = measurements(comparison)
    if not groups:
        return
    yield from ("## Likeness", "")
    if (why_not := incomparability(comparison)) is not None:
        yield from (plain(why_not), "")
        return
    apart, found = between_seeds(comparison), next(iter(groups.values()))[0]
    yield from _table(comparison, FIDELITY, with_means=apart is None)
    yield from (*(f"- {plain(words)}" for words in fidelity_paragraphs(comparison, found, apart)), "")


def _table(comparison: Comparison, figures: Sequence[MetricColumn], *, with_means: bool = True) -> Iterator[str]:
    figures = shown_columns(figures, comparison)
    several = len(comparison.seeds) > 1
    rows = family_rows(comparison, figures) if with_means or not several else []
    rows += seed_rows(comparison, figures) if several else []
    body = [_words(row, figures) for row in footnotes(rows)]
    widths = [max(map(_width, column)) for column in zip(_head(figures), *body, strict=True)]
    yield _aligned(_head(figures), widths)
    yield "|" + "|".join("-" * (width + 1) + (":" if i > 1 else "-") for i, width in enumerate(widths)) + "|"
    yield from (_aligned(cells, widths) for cells in body)
    yield ""


def _head(figures: Sequence[MetricColumn]) -> list[str]:
    return ["family", "seeds", *(figure.title for figure in figures)]


def _words(row: Row, figures: Sequence[MetricColumn]) -> list[str]:
    cells = []
    for figure, cell in zip(figures, row.cells, strict=True):
        words = f"**{cell.words}**" if cell.is_best else cell.words
        cells.append(f"{words} ({cell.range})" if cell.range and figure in WITH_RANGE else words)
    return [plain(row.family), row.seeds, *cells]


def _aligned(cells: Sequence[str], widths: Sequence[int]) -> str:
    """Words from the left, figures from the right."""
    spaces = [width - _width(cell) for cell, width in zip(cells, widths, strict=True)]
    padded = [
        f"{' ' * space}{cell}" if i > 1 else f"{cell}{' ' * space}"
        for i, (cell, space) in enumerate(zip(cells, spaces, strict=True))
    ]
    return f"| {' | '.join(padded)} |"


def _width(words: str) -> int:
    return round(sum(2 if breadth(letter) == 1 else 1 for letter in words))
