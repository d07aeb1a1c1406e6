"""likely evaluate: a model held against labelled images that it has not seen."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from likely.surfaces.cli.opening import ALPHA, Opening, opens_model

if TYPE_CHECKING:
    from likely.classifier import Classifier
    from likely.data.parts import Part
    from likely.evaluation.assessment import Assessment
    from likely.evaluation.fidelity import Fidelity
    from likely.evaluation.selection import Selection, Strangers


@click.command()
@opens_model
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
@click.option(
    "--fidelity",
    "extractor",
    type=click.Path(path_type=Path, exists=True),
    metavar="EXTRACTOR",
    help="Also hold generated images against the real ones, in the features of another model folder, of a pretrained "
    "backbone's folder, or of a TorchScript file such as Inception's.",
)
def command(
    model: Opening,
    data: str,
    unknown: str | None,
    as_json: bool,
    report: Path | None,
    extractor: Path | None,
    **measured: Any,
) -> None:
    """Measure MODEL on the test part of DATA, or on all of DATA where it has none.

    Images that the model was trained on are skipped and counted; exit code 2 if nothing is left.
    """
    from likely.evaluation.portrait import measured as portrayed
    from likely.evaluation.report import render
    from likely.surfaces.cli.problems import say
    from likely.surfaces.cli.screen import console

    classifier = model.classifier()
    chosen, strangers = _read(classifier, data, unknown)
    problems = (*chosen.problems, *(strangers.problems if strangers else ()))
    say(problems, all_named_by=f"{shlex.join(['likely', *sys.argv[1:]])} 2> left-out.txt")
    found = _measured(classifier, chosen, strangers, **measured)
    likeness = _fidelity(classifier, chosen.part, extractor) if extractor else None
    if as_json:
        more = {"fidelity": likeness.model_dump(mode="json")} if likeness else {}
        click.echo(json.dumps(found.as_json() | more, ensure_ascii=False))
    else:
        show(found, likeness)
    if report is not None:
        page = render(portrayed(classifier, model.folder, found, chosen.part, likeness))
        report.write_text(page, encoding="utf-8")
        console.print(f"report {report}", soft_wrap=True, markup=False)
    sys.exit(1 if problems else 0)


def show(found: Assessment, likeness: Fidelity | None = None) -> None:
    """The figures on stdout, each with a few words on how to read it."""
    from rich.table import Table

    from likely.evaluation.figures import headlines
    from likely.evaluation.report.sections.fidelity import fidelity_lines, measured_with
    from likely.surfaces.cli.screen import screen

    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="bold")
    table.add_column(justify="right")
    table.add_column(style="dim")
    for line in headlines(found.figures, found.evidence, len(found.classes)):
        table.add_row(*line)
    for line in fidelity_lines(likeness) if likeness else ():
        table.add_row(*line)
    screen.print(table)
    if likeness:
        screen.print(measured_with(likeness))
    if found.skipped:
        screen.print(f"{found.skipped:,} images skipped: the model was trained on them")


def _fidelity(classifier: Classifier, part: Part, path: Path) -> Fidelity:
    from likely.evaluation.extractors import extractor
    from likely.evaluation.fidelity import fidelity
    from likely.surfaces.cli.screen import console

    with console.status("drawing and comparing images"):
        return fidelity(classifier, part, extractor(path, device=classifier.device.type))


def _read(classifier: Classifier, data: str, unknown: str | None) -> tuple[Selection, Strangers | None]:
    from likely.evaluation.selection import select, unlabelled
    from likely.surfaces.cli.progress import counting

    with counting("reading images") as progress:
        return select(classifier, data, progress), unlabelled(classifier, unknown, progress) if unknown else None


def _measured(classifier: Classifier, chosen: Selection, strangers: Strangers | None, **how: Any) -> Assessment:
    from likely.evaluation.assessment import assess
    from likely.surfaces.cli.screen import console

    others = (strangers.source, strangers.images) if strangers else None
    with console.status("measuring"):
        return assess(classifier, chosen.part, skipped=chosen.n_skipped, unknown=others, **how)
