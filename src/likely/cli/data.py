"""likely data: what DATA holds and what is wrong with it."""

from __future__ import annotations

import json
import sys
from functools import cache
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from rich.console import RenderableType

    from likely.data.preprocessing import ImageFormat
    from likely.data.quality.issues import DataIssues

SOME_UNREADABLE = 1
# Beyond so many classes a table is no summary; then it shows the largest and the smallest.
MOST_CLASSES, SHOWN_AT_EACH_END = 30, 8
SHOWN_EXAMPLES = 3
SIGNS = {"error": ("✗", "bold red"), "warning": ("!", "bold yellow"), "note": ("·", "cyan")}


class CheckCommand(click.Command):
    """A command that has the flags of images too, declared where images are and loaded when they are needed."""

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        return [*super().get_params(ctx), *_image_flags()]


@cache  # click tells parameters apart by identity
def _image_flags() -> tuple[click.Option, ...]:
    from likely.cli.flags import flags
    from likely.data.preprocessing import ImageOptions

    return tuple(flags(ImageOptions))


@click.group(name="data")
def command() -> None:
    """Look at DATA before training."""


@command.command(cls=CheckCommand)
@click.argument("data")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout, and nothing else.")
def check(data: str, as_json: bool, **given: Any) -> None:
    """Find what cannot be read, copies, leaks from training to test, and classes with too few images.

    Exit codes: 0 everything could be read, 1 some files could not, 2 DATA is not understood.
    """
    from likely.cli.console import console
    from likely.cli.flags import chosen
    from likely.cli.progress import progress_bar
    from likely.data.preprocessing import ImageOptions
    from likely.data.quality.check import check as look

    images = ImageOptions.model_validate(chosen(ImageOptions, given))
    with progress_bar("reading images") as progress:
        findings = look(data, images, progress=progress)
    if as_json:
        click.echo(json.dumps(findings.as_dict()))
    else:
        console.print(_summary(findings))
    sys.exit(SOME_UNREADABLE if findings.n_unreadable else 0)


def _summary(findings: DataIssues) -> RenderableType:
    from rich.console import Group
    from rich.text import Text

    verdict = _found(findings) if findings.issues else Text("  ✓ nothing wrong was found\n", "green")
    return Group(Text(), _headline(findings), _counts(findings), verdict)


def _headline(findings: DataIssues) -> RenderableType:
    from rich.text import Text

    n = sum(map(sum, findings.counts.values())) + sum(findings.unlabeled.values())
    form = findings.format
    kind = "vectors" if form is None else f"images, {'gray' if form.channels == 1 else 'color'}"
    size = "" if form is None else f", read at {form.height} x {form.width} ({_way(form)})"
    return Text.assemble("  ", (findings.name, "bold"), f"  {n:,} {kind}{size}; {len(findings.classes)} classes")


def _way(form: ImageFormat) -> str:
    return form.resize if form.center_crop_ratio == 1 else f"{form.resize}, {form.center_crop_ratio:.2f} times enlarged"


def _counts(findings: DataIssues) -> RenderableType:
    """How many images each class has in each part."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, show_footer=True, footer_style="dim", pad_edge=True)
    table.add_column("class", "all")
    for part, counts in findings.counts.items():
        table.add_column(part, f"{sum(counts) + findings.unlabeled[part]:,}", justify="right")
    for name, numbers in _rows(findings):
        table.add_row(Text(name), *(f"{n:,}" if n else Text("0", "dim") for n in numbers))
    if any(findings.unlabeled.values()):
        table.add_row(Text("unlabeled", "italic"), *(f"{n:,}" for n in findings.unlabeled.values()))
    return table


def _rows(findings: DataIssues) -> list[tuple[str, tuple[int, ...]]]:
    """Every class, sorted by name; of very many the largest and the smallest, sorted by size."""
    rows = list(zip(findings.classes, zip(*findings.counts.values(), strict=True), strict=True))
    if len(rows) <= MOST_CLASSES:
        return rows
    ranked = sorted(rows, key=lambda row: row[1], reverse=True)
    between = f"… {len(rows) - 2 * SHOWN_AT_EACH_END} classes between"
    return [*ranked[:SHOWN_AT_EACH_END], (between, ()), *ranked[-SHOWN_AT_EACH_END:]]


def _found(findings: DataIssues) -> RenderableType:
    """Each finding as a sentence, with a few examples below, their paths from DATA on."""
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 1))
    for finding in findings.issues:
        sign, style = SIGNS[finding.severity]
        table.add_row("", Text(sign, style), Text(finding.message))
        for example in finding.examples[:SHOWN_EXAMPLES]:
            short = example.replace(f"{findings.name}/", "").replace(f"{findings.name}:", "")
            table.add_row("", "", Text(short, "dim", overflow="fold"))
        if finding.count > SHOWN_EXAMPLES < len(finding.examples):
            table.add_row("", "", Text(f"… and {finding.count - SHOWN_EXAMPLES:,} more", "dim"))
        table.add_row()
    return table
