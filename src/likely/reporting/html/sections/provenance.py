"""The record: data, options and how the model was made."""

from __future__ import annotations

from collections.abc import Iterator

from markupsafe import Markup

from likely.reporting.formatting import plural
from likely.reporting.html.blocks import Block, Chapter, Code, Column, DefinitionList, Paragraph, Section, Table
from likely.reporting.html.content import DataSummary, Provenance, ReportContent

_MOST_ROWS = 20


def data(content: ReportContent) -> Section | None:
    if content.data is None:
        return None
    lead = f"{_shape(content.data.shape)}, from {content.data.source}. How many of them each part and class had:"
    blocks = tuple(_data_blocks(content.data, content.class_names))
    return Section(Chapter.PROVENANCE, "data", "The data", lead, blocks)


def _shape(shape: tuple[int, ...]) -> str:
    if len(shape) != 3:
        return f"Vectors of {plural(shape[0], 'number')}"
    channels, height, width = shape
    color = {1: "Gray images", 3: "Color images"}.get(channels, f"Images with {channels} channels")
    return f"{color} of {width} × {height} pixels"


def _data_blocks(summary: DataSummary, names: tuple[str, ...]) -> Iterator[Block]:
    parts = list(summary.counts)
    columns = (Column("Class"), *(Column(part, "number") for part in parts))
    total = (Markup("<b>All classes</b>"), *(f"{summary.counts[part].sum():,}" for part in parts))
    rows = tuple((name, *(f"{summary.counts[part][k]:,}" for part in parts)) for k, name in enumerate(names))
    yield Table("Images of every part and class", columns, (total, *rows[:_MOST_ROWS]), rows[_MOST_ROWS:])
    if summary.n_unlabeled:
        yield Paragraph(f"Besides, {plural(summary.n_unlabeled, 'image')} without a label took part in training.")
    if summary.skipped:
        files = tuple(summary.skipped.items())
        columns = (Column("File", "code"), Column("Why"))
        yield Table(f"{plural(len(files), 'file')} left out", columns, files[:_MOST_ROWS], files[_MOST_ROWS:])


def options(content: ReportContent) -> Section | None:
    if not content.options:
        return None
    columns = (Column("Option", "code"), Column("Value", "code"), Column("What it means"))
    tables = tuple(Table(title, columns, tuple(group)) for title, group in content.options.items())
    return Section(Chapter.PROVENANCE, "options", "Every option", "All that was set, by hand or by default.", tables)


def provenance(content: ReportContent) -> Section | None:
    if content.provenance is None:
        return None
    lead = "The command below makes the model again, on the same machine and versions to the last bit that they allow."
    blocks = (Code(content.provenance.command), DefinitionList(tuple(_facts(content.provenance))))
    return Section(Chapter.PROVENANCE, "provenance", "How it was made", lead, blocks)


def _facts(made: Provenance) -> Iterator[tuple[str, str]]:
    yield "Machine", made.machine
    yield "Threads", str(made.threads)
    yield "Precision", made.precision
    yield "Seed", str(made.seed)
    yield "Time", f"{made.minutes:.1f} minutes"
    yield from made.versions.items()
