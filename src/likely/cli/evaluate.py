"""likely evaluate: a model held against labeled images that it has not seen."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from likely.cli.model_argument import ALPHA, ModelArgument, model_command

if TYPE_CHECKING:
    from rich.table import Table as RichTable

    from likely.classifier import Predictor
    from likely.data.dataset import LabeledImages
    from likely.evaluation.attacks import AttackResult
    from likely.evaluation.eval_split import EvalSplit, OODImages
    from likely.evaluation.evaluate import EvaluationResult
    from likely.evaluation.fidelity import Fidelity
    from likely.evaluation.robustness import Robustness
    from likely.reporting.html.blocks import Table as ReportTable


@click.command()
@model_command
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
@click.option("--corruptions", is_flag=True, help="Also damage the images in eight ways at five strengths.")
@click.option(
    "--attack",
    is_flag=True,
    help="Also change images so as to deceive, within --epsilon, as somebody would who knows the model.",
)
@click.option(
    "--epsilon", type=click.IntRange(0, 255), default=8, show_default=True, help="Largest change of a pixel, of 255."
)
@click.option("--attack-samples", type=click.IntRange(1), default=256, show_default=True, help="Images to attack.")
@click.option(
    "--baseline",
    type=click.Path(path_type=Path, file_okay=False),
    help="The softmax twin's model folder, to stand beside MODEL where images are damaged or changed; it is trained "
    "there, for as long as MODEL was, if there is none.",
)
def command(
    model: ModelArgument,
    data: str,
    unknown: str | None,
    as_json: bool,
    report: Path | None,
    extractor: Path | None,
    corruptions: bool,
    attack: bool,
    epsilon: int,
    attack_samples: int,
    baseline: Path | None,
    **measured: Any,
) -> None:
    """Measure MODEL on the test part of DATA, or on all of DATA where it has none.

    Images that the model was trained on are skipped and counted; exit code 2 if nothing is left.
    """
    from likely.cli.console import console
    from likely.cli.warnings import print_skipped
    from likely.reporting.build import build_evaluation_report as portrayed
    from likely.reporting.html import render
    from likely.reporting.html.sections.robustness import robustness_section

    if (corruptions or attack) and baseline is None:
        raise click.UsageError(
            "--corruptions and --attack are measured beside the softmax twin: name its folder with --baseline; where there "
            "is none it is trained, for as long as the model was"
        )
    classifier = model.classifier()
    chosen, strangers = _read(classifier, data, unknown)
    problems = (*chosen.errors, *(strangers.errors if strangers else ()))
    print_skipped(problems, all_named_by=f"{shlex.join(['likely', *sys.argv[1:]])} 2> left-out.txt")
    found = _measured(classifier, chosen, strangers, **measured)
    likeness = _fidelity(classifier, chosen.images, extractor) if extractor else None
    pair = [classifier, _twin(model, classifier, baseline)] if baseline is not None else []
    damaged = _damaged(pair, chosen.images, found.output.alpha) if corruptions else []
    attack_success_rate = _deceived(pair, chosen.images, found.output.alpha, epsilon, attack_samples) if attack else []
    if as_json:
        more: dict[str, Any] = {"fidelity": likeness.model_dump(mode="json")} if likeness else {}
        more |= {"corruptions": [each.model_dump(mode="json") for each in damaged]} if damaged else {}
        more |= (
            {"attacks": {name: [row.model_dump() for row in rows] for name, rows in attack_success_rate}}
            if attack_success_rate
            else {}
        )
        click.echo(json.dumps(found.as_json() | more, ensure_ascii=False))
    else:
        show(found, likeness)
        _show_damage(damaged, attack_success_rate)
    if report is not None:
        content = portrayed(classifier, model.folder, found, chosen.images, likeness)
        page = render(content.with_section(robustness_section(damaged, attack_success_rate)))
        report.write_text(page, encoding="utf-8")
        console.print(f"report {report}", soft_wrap=True, markup=False)
    sys.exit(1 if problems else 0)


def show(found: EvaluationResult, likeness: Fidelity | None = None) -> None:
    """The figures on stdout, each with a few words on how to read it."""
    from rich.table import Table

    from likely.cli.console import screen
    from likely.reporting.html.sections.sample_quality import extractor_description, fidelity_tiles
    from likely.reporting.metric_tiles import metric_tiles

    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="bold")
    table.add_column(justify="right")
    table.add_column(style="dim")
    for line in metric_tiles(found.metrics, found.likelihood_type, len(found.classes)):
        table.add_row(*line)
    for line in fidelity_tiles(likeness) if likeness else ():
        table.add_row(*line)
    screen.print(table)
    if likeness:
        screen.print(extractor_description(likeness))
    if found.skipped:
        screen.print(f"{found.skipped:,} images skipped: the model was trained on them")


def _twin(model: ModelArgument, own: Predictor, folder: Path) -> Predictor:
    """The twin of a model that is open, trained now if there is none."""
    from likely.base import GenerativeModel
    from likely.checkpoint import DOCUMENT
    from likely.cli.progress import progress_bar, track_steps
    from likely.experiment import TRAINING_STATE, baseline_run, resume_run

    if not (folder / DOCUMENT).exists():
        with progress_bar("reading images") as progress:
            begun = (folder / TRAINING_STATE).exists()
            session = (
                resume_run(folder, progress=progress)
                if begun
                else baseline_run(model.folder, folder, progress=progress)
            )
        for _ in track_steps(session.steps(), "training the twin"):
            pass
        session.finish()
    twin = replace(model, folder=folder).classifier()
    if (twin.labels, twin.format) != (own.labels, own.format) or isinstance(twin.model, GenerativeModel):
        raise click.UsageError(
            f"--baseline {folder} is no twin of {model.folder}: a softmax classifier of the same classes and "
            "images was expected; name a folder that does not exist, and one is trained there"
        )
    return twin


def _damaged(pair: Sequence[Predictor], part: LabeledImages, alpha: float) -> list[Robustness]:
    from likely.cli.progress import progress_bar
    from likely.evaluation.robustness import measure_robustness

    found = []
    for classifier in pair:
        with progress_bar(f"damaging images, {classifier.id}") as progress:
            found.append(measure_robustness(classifier, part, seed=0, alpha=alpha, progress=progress))
    return found


def _deceived(
    pair: Sequence[Predictor], part: LabeledImages, alpha: float, budget: float, n: int
) -> list[tuple[str, tuple[AttackResult, ...]]]:
    """Of the first few images in an order drawn at random, the same for both."""
    import numpy as np

    from likely.cli.progress import progress_bar
    from likely.evaluation.attacks import attack

    some = part.subset(np.sort(np.random.default_rng(0).permutation(len(part))[:n]))
    found = []
    for classifier in pair:
        with progress_bar(f"attacking {classifier.id}") as progress:
            rows = attack(classifier, some, epsilon=budget, alpha=alpha, seed=0, progress=progress)
        found.append((classifier.id or classifier.family, rows))
    return found


def _show_damage(
    damaged: Sequence[Robustness], attack_success_rate: Sequence[tuple[str, Sequence[AttackResult]]]
) -> None:
    """Print the tables and paragraphs of the report."""
    from likely.cli.console import screen
    from likely.reporting.html.blocks import Table
    from likely.reporting.html.sections.robustness import robustness_blocks

    for block in robustness_blocks(damaged, attack_success_rate):
        screen.print(_console_table(block) if isinstance(block, Table) else block.text)


def _console_table(table: ReportTable) -> RichTable:
    from rich.table import Table

    columns = Table(box=None, pad_edge=False)
    for column in table.columns:
        columns.add_column(column.title, justify="right" if column.align == "number" else "left")
    for row in table.rows:
        columns.add_row(*map(str, row))
    return columns


def _fidelity(classifier: Predictor, part: LabeledImages, path: Path) -> Fidelity:
    from likely.cli.console import console
    from likely.evaluation.extractors import extractor
    from likely.evaluation.fidelity import fidelity

    with console.status("drawing and comparing images"):
        return fidelity(classifier, part, extractor(path, device=classifier.device.type))


def _read(classifier: Predictor, data: str, unknown: str | None) -> tuple[EvalSplit, OODImages | None]:
    from likely.cli.progress import progress_bar
    from likely.evaluation.eval_split import eval_split, ood_images

    with progress_bar("reading images") as progress:
        return eval_split(classifier, data, progress), ood_images(classifier, unknown, progress) if unknown else None


def _measured(classifier: Predictor, chosen: EvalSplit, strangers: OODImages | None, **how: Any) -> EvaluationResult:
    from likely.cli.console import console
    from likely.evaluation.evaluate import evaluate

    others = (strangers.source, strangers.images) if strangers else None
    with console.status("measuring"):
        return evaluate(classifier, chosen.images, skipped=chosen.n_skipped, unknown=others, **how)
