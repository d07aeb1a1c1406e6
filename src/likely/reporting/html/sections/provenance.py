"""Provenance: data, options, and the environment of the training."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from markupsafe import Markup

from likely.reporting.formatting import calibration_phrase, duration, plural
from likely.reporting.html.content import DataSummary, Option, Provenance, ReportContent
from likely.reporting.html.page import (
    Block,
    Chapter,
    Code,
    Column,
    DefinitionList,
    Paragraph,
    Section,
    Table,
    class_name,
)

_MAX_ROWS = 20


def provenance_sections(content: ReportContent) -> Iterator[Section]:
    """Yield the sections on data, options and training environment for which there is content."""
    if content.data is not None:
        yield _data(content.data, content.class_names)
    if content.options:
        yield _options(content.options)
    if content.provenance is not None:
        yield _environment(content.provenance)


def _data(data: DataSummary, names: tuple[str, ...]) -> Section:
    introduction = f"{_shape(data.shape)} from {data.source}, by split and class."
    return Section(Chapter.PROVENANCE, "data", "Data", introduction, tuple(_data_blocks(data, names)))


def _shape(shape: tuple[int, ...]) -> str:
    if len(shape) != 3:
        return f"Vectors of {plural(shape[0], 'number')}"
    channels, height, width = shape
    color = {1: "Grayscale images", 3: "Color images"}.get(channels, f"Images with {channels} channels")
    return f"{color} of {width} × {height} pixels"


def _data_blocks(summary: DataSummary, names: tuple[str, ...]) -> Iterator[Block]:
    splits = list(summary.counts)
    columns = (Column("Class"), *(Column(split, "number") for split in splits))
    total = (Markup("<b>All classes</b>"), *(f"{summary.counts[split].sum():,}" for split in splits))
    rows = tuple(
        (class_name(name), *(f"{summary.counts[split][k]:,}" for split in splits)) for k, name in enumerate(names)
    )
    yield Table("Images of each split and class", columns, (total, *rows[:_MAX_ROWS]), rows[_MAX_ROWS:])
    if any(n < summary.counts[split].sum() for split, n in summary.n_groups.items()):
        of_splits = ", ".join(f"{plural(n, 'group')} in {split}" for split, n in summary.n_groups.items())
        yield Paragraph(
            f"Images of one group (near-duplicates, bursts or listed groups) are in one split: {of_splits}."
        )
    if summary.calibration is not None:
        yield Paragraph(calibration_phrase(summary.calibration))
    if summary.n_unlabeled:
        yield Paragraph(f"Training also used {plural(summary.n_unlabeled, 'image')} without a label.")
    if summary.skipped:
        files = tuple(summary.skipped.items())
        columns = (Column("File", "code"), Column("Reason"))
        yield Table(f"{plural(len(files), 'skipped file')}", columns, files[:_MAX_ROWS], files[_MAX_ROWS:])


def _options(options: Mapping[str, tuple[Option, ...]]) -> Section:
    columns = (Column("Option", "code"), Column("Value", "code"), Column("Description"))
    tables = tuple(Table(title, columns, (), tuple(group)) for title, group in options.items())
    return Section(
        Chapter.PROVENANCE, "options", "Options", "All options, set by the user or by default, by part.", tables
    )


def _environment(found: Provenance) -> Section:
    introduction = "This command reproduces the model: bit for bit on the same machine with the same versions."
    blocks = (Code(found.command), DefinitionList(tuple(_entries(found))))
    return Section(
        Chapter.PROVENANCE, "provenance", "Training environment", introduction, blocks, "how was it trained?"
    )


def _entries(found: Provenance) -> Iterator[tuple[str, str]]:
    yield "Machine", found.machine
    yield "Threads", str(found.threads)
    yield "Precision", found.precision
    yield "Seed", str(found.seed)
    yield "Time", duration(found.minutes)
    yield from found.versions.items()
