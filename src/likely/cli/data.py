"""likely data: inspect DATA before training."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from rich.console import RenderableType

    from likely.data.preprocessing import ImageFormat
    from likely.data.quality.issues import DataIssues

SOME_UNREADABLE = 1
# With more classes than MAX_CLASSES, the table shows only the largest and the smallest ones.
MAX_CLASSES, CLASSES_AT_EACH_END = 30, 8
MAX_EXAMPLES = 3
SIGNS = {"error": ("✗", "bold red"), "warning": ("!", "bold yellow"), "note": ("·", "cyan")}


class ImageCommand(click.Command):
    """A command with a flag for each field of ImageOptions, which are imported when the command runs."""

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        return [*super().get_params(ctx), *_image_flags()]


@cache  # click tells parameters apart by identity
def _image_flags() -> tuple[click.Option, ...]:
    from likely.cli.flags import flags
    from likely.data.preprocessing import ImageOptions

    return tuple(flags(ImageOptions))


@click.group(name="data")
def command() -> None:
    """Inspect DATA before training."""


@command.command(cls=ImageCommand)
@click.argument("data")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def check(data: str, as_json: bool, **image_options: Any) -> None:
    """Find unreadable files, duplicates, leaks from training to test data, and classes with too few images.

    Exit codes: 0 everything could be read, 1 some files could not, 2 DATA is not understood.
    """
    from likely.cli.console import console
    from likely.cli.flags import parse_flags
    from likely.cli.progress import progress_bar
    from likely.data.preprocessing import ImageOptions
    from likely.data.quality.check import check as find_issues

    images = parse_flags(ImageOptions, image_options)
    with progress_bar("reading images") as progress:
        found = find_issues(data, images, progress=progress)
    if as_json:
        click.echo(json.dumps(found.as_dict()))
    else:
        console.print(_summary(found))
    sys.exit(SOME_UNREADABLE if found.n_unreadable else 0)


def _summary(found: DataIssues) -> RenderableType:
    from rich.console import Group
    from rich.text import Text

    issues = _issues(found) if found.issues else Text("  ✓ no issues\n", "green")
    return Group(Text(), _headline(found), _counts(found), issues)


def _headline(found: DataIssues) -> RenderableType:
    from rich.text import Text

    n = sum(map(sum, found.counts.values())) + sum(found.unlabeled.values())
    form = found.format
    kind = "vectors" if form is None else f"images, {'gray' if form.channels == 1 else 'color'}"
    size = "" if form is None else f", resized to {form.height} x {form.width} ({_resizing(form)})"
    return Text.assemble("  ", (found.name, "bold"), f"  {n:,} {kind}{size}; {len(found.classes)} classes")


def _resizing(form: ImageFormat) -> str:
    return form.resize if form.center_crop_ratio == 1 else f"{form.resize}, enlarged {form.center_crop_ratio:.2f} times"


def _counts(found: DataIssues) -> RenderableType:
    """Return a table of the number of images per class and split."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, show_footer=True, footer_style="dim", pad_edge=True)
    table.add_column("class", "all")
    for split, counts in found.counts.items():
        table.add_column(split, f"{sum(counts) + found.unlabeled[split]:,}", justify="right")
    for name, numbers in _rows(found):
        table.add_row(Text(name), *(f"{n:,}" if n else Text("0", "dim") for n in numbers))
    if any(found.unlabeled.values()):
        table.add_row(Text("unlabeled", "italic"), *(f"{n:,}" for n in found.unlabeled.values()))
    return table


def _rows(found: DataIssues) -> list[tuple[str, tuple[int, ...]]]:
    """Return every class, sorted by name; of very many, the largest and the smallest, sorted by size."""
    rows = list(zip(found.classes, zip(*found.counts.values(), strict=True), strict=True))
    if len(rows) <= MAX_CLASSES:
        return rows
    ranked = sorted(rows, key=lambda row: row[1], reverse=True)
    between = f"… {len(rows) - 2 * CLASSES_AT_EACH_END} more classes"
    return [*ranked[:CLASSES_AT_EACH_END], (between, ()), *ranked[-CLASSES_AT_EACH_END:]]


def _issues(found: DataIssues) -> RenderableType:
    """Return each issue as a sentence followed by a few examples, whose paths are relative to DATA."""
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 1))
    for issue in found.issues:
        sign, style = SIGNS[issue.severity]
        table.add_row("", Text(sign, style), Text(issue.message))
        for example in _examples(found.name, issue.examples, issue.count):
            table.add_row("", "", Text(example, "dim", overflow="fold"))
        table.add_row()
    return table


def _examples(data: str, examples: Sequence[str], n: int) -> Iterator[str]:
    for example in examples[:MAX_EXAMPLES]:
        yield example.replace(f"{data}/", "").replace(f"{data}:", "")
    if n > MAX_EXAMPLES < len(examples):
        yield f"… and {n - MAX_EXAMPLES:,} more"
