"""likely evaluate: a model held against labelled images that it has not seen."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from likely.surfaces.cli.opening import ALPHA, model_argument, opened

if TYPE_CHECKING:
    from likely.evaluation.assessment import Assessment


@click.command()
@model_argument
@click.argument("data")
@click.option("--unknown", metavar="DATA2", help="Images of no known class, to see how many are turned away.")
@click.option(
    "--alpha", type=ALPHA, default=0.05, show_default=True, help="Share of known images that may be called unknown."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--report", type=click.Path(path_type=Path, dir_okay=False), help="Write an HTML report.")
@click.option(
    "--importance-samples", type=click.IntRange(1), help="Also bound log p(x) with so many latent samples an image."
)
def command(
    model: Path,
    data: str,
    unknown: str | None,
    alpha: float,
    as_json: bool,
    report: Path | None,
    importance_samples: int | None,
    device: str,
    threads: int | None,
) -> None:
    """Measure MODEL on the test part of DATA, or on all of DATA where it has none.

    Images that the model was trained on are skipped and counted; exit code 2 if nothing is left.
    """
    from likely.evaluation.assessment import assess
    from likely.evaluation.portrait import published
    from likely.evaluation.selection import select, unlabelled
    from likely.surfaces.cli.progress import console, counting

    classifier = opened(model, device, threads)
    with counting("reading images") as progress:
        chosen = select(classifier, data, progress)
        others = unlabelled(classifier, unknown, progress) if unknown else None
    for problem in chosen.problems[:10]:
        console.print(f"[yellow]left out:[/] {problem.sentence}", soft_wrap=True)
    with console.status("measuring"):
        found = assess(
            classifier,
            chosen.part,
            alpha=alpha,
            skipped=chosen.n_skipped,
            unknown=others,
            importance_samples=importance_samples,
        )
    if as_json:
        click.echo(json.dumps(found.as_json(), ensure_ascii=False))
    else:
        show(found)
    if report is not None:
        report.write_text(published(classifier, model, found, chosen.part), encoding="utf-8")
        console.print(f"report {report}", soft_wrap=True)
    sys.exit(1 if chosen.problems else 0)


def show(found: Assessment) -> None:
    """The figures on stdout, each with a few words on how to read it."""
    from rich.console import Console
    from rich.table import Table

    from likely.evaluation.figures import headlines

    console = Console(highlight=False)
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="bold")
    table.add_column(justify="right")
    table.add_column(style="dim")
    for line in headlines(found.figures, found.evidence, len(found.classes)):
        table.add_row(*line)
    console.print(table)
    if found.skipped:
        console.print(f"{found.skipped:,} images skipped: the model was trained on them")
