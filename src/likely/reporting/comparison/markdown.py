"""The comparison as Markdown: three tables with their notes."""

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
    MetricTable,
    Row,
)
from likely.reporting.comparison.content import Comparison
from likely.reporting.comparison.summary import Summary, summarize
from likely.reporting.formatting import breadth, listing
from likely.reporting.model_card import plain

_COLUMNS_WITH_RANGE = (ACCURACY, DELTA, FID)  # plain text has no room for more ranges


def markdown_table(comparison: Comparison) -> str:
    """Return table.md: predictions, costs and sample quality of each family, means over seeds before single seeds."""
    return "\n".join(_lines(comparison)) + "\n"


def _lines(comparison: Comparison) -> Iterator[str]:
    summary = summarize(comparison)
    yield from (
        f"# {plain(comparison.name)}: {listing(comparison.tried, 9)}",
        "",
        summary.result,
        summary.setup,
        "",
    )
    yield from ("## Predictions", "", *_table(comparison, PREDICTIONS))
    yield from ("## Costs", "", *_table(comparison, COSTS))
    yield from _sample_quality(comparison, summary)
    if summary.caveats:
        yield from ("## Caveats", "", *(f"- {plain(caveat.text)}" for caveat in summary.caveats), "")
    yield "; ".join(f"{title}: {plain(value)}" for title, value in summary.environment) + "."


def _sample_quality(comparison: Comparison, summary: Summary) -> Iterator[str]:
    if not comparison.fidelity_by_seed:
        return
    yield from ("## Sample quality", "")
    if (reason := comparison.incomparability) is not None:
        yield from (plain(reason), "")
        return
    yield from _table(comparison, FIDELITY, with_means=comparison.difference_between_seeds is None)
    yield from (*(f"- {plain(note)}" for note in summary.fidelity_notes), "")


def _table(comparison: Comparison, columns: Sequence[MetricColumn], *, with_means: bool = True) -> Iterator[str]:
    table, several = MetricTable(comparison, columns), len(comparison.seeds) > 1
    rows = table.family_rows() if with_means or not several else []
    rows += table.seed_rows() if several else []
    head, body = _head(table.columns), [_cells(row, table.columns) for row in rows]
    widths = [max(map(_width, texts)) for texts in zip(head, *body, strict=True)]
    yield _aligned(head, widths)
    yield "|" + "|".join("-" * (width + 1) + (":" if i > 1 else "-") for i, width in enumerate(widths)) + "|"
    yield from (_aligned(cells, widths) for cells in body)
    yield ""


def _head(columns: Sequence[MetricColumn]) -> list[str]:
    return ["family", "seeds", *(column.title for column in columns)]


def _cells(row: Row, columns: Sequence[MetricColumn]) -> list[str]:
    texts = []
    for column, cell in zip(columns, row.cells, strict=True):
        text = f"**{cell.text}**" if cell.is_best else cell.text
        texts.append(f"{text} ({cell.range})" if cell.range and column in _COLUMNS_WITH_RANGE else text)
    return [plain(row.family), row.seeds, *texts]


def _aligned(cells: Sequence[str], widths: Sequence[int]) -> str:
    """Align family and seeds at the left, numbers at the right."""
    spaces = [width - _width(cell) for cell, width in zip(cells, widths, strict=True)]
    padded = [
        f"{' ' * space}{cell}" if i > 1 else f"{cell}{' ' * space}"
        for i, (cell, space) in enumerate(zip(cells, spaces, strict=True))
    ]
    return f"| {' | '.join(padded)} |"


def _width(text: str) -> int:
    return sum(2 if breadth(letter) == 1 else 1 for letter in text)
