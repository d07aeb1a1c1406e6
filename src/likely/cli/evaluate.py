"""likely evaluate: measure a model on labeled images that it was not trained on."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from likely.cli.model_argument import ALPHA, ModelArgument, guarantee_option, model_command

if TYPE_CHECKING:
    from rich.table import Table as RichTable

    from likely.classifier import Predictor
    from likely.data.dataset import LabeledImages
    from likely.evaluation.attacks import AttackResult
    from likely.evaluation.eval_split import EvalSplit, OODImages
    from likely.evaluation.evaluate import EvaluationResult
    from likely.evaluation.fidelity import Fidelity
    from likely.evaluation.robustness import Robustness
    from likely.prediction import Guarantee
    from likely.reporting.html.page import Table as ReportTable


@click.command()
@model_command
@click.argument("data")
@click.option("--unknown", metavar="DATA2", help="Images of no known class, to measure how many are rejected.")
@click.option(
    "--alpha",
    type=ALPHA,
    default=0.05,
    show_default=True,
    help="Largest fraction of images of known classes that may be rejected as unknown.",
)
@guarantee_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--report", type=click.Path(path_type=Path, dir_okay=False), help="Write an HTML report.")
@click.option(
    "--importance-samples",
    type=click.IntRange(1),
    help="Also bound log p(x) by importance weighting with this many latent samples per image.",
)
@click.option(
    "--fidelity",
    "extractor",
    type=click.Path(path_type=Path, exists=True),
    metavar="EXTRACTOR",
    help="Also compare generated with real images (FID, KID, precision, recall) in the features of a model folder, a "
    "backbone's folder, or a TorchScript file such as Inception's.",
)
@click.option("--corruptions", is_flag=True, help="Also measure eight corruptions at five strengths; needs --baseline.")
@click.option(
    "--attack", is_flag=True, help="Also run white-box adversarial attacks (PGD, L-infinity); needs --baseline."
)
@click.option(
    "--epsilon",
    type=click.IntRange(0, 255),
    default=8,
    show_default=True,
    help="Largest change of a pixel by --attack, of 255.",
)
@click.option(
    "--attack-samples", type=click.IntRange(1), default=256, show_default=True, help="Number of images to attack."
)
@click.option(
    "--baseline",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder of a softmax baseline to compare robustness with; trained for as long as MODEL if it does not exist.",
)
def command(
    model: ModelArgument,
    data: str,
    unknown: str | None,
    as_json: bool,
    report: Path | None,
    extractor: Path | None,
    baseline: Path | None,
    **options: Any,
) -> None:
    """Measure MODEL on the test split of DATA, or on all of DATA if it has none.

    Images that MODEL was trained on are skipped and counted. Exit code 1 if a file could not be read, 2 if no image is left.
    """
    from likely.cli.console import print_skipped
    from likely.reporting.build import false_alarms
    from likely.reporting.html.caveats import false_alarm_caveats

    robustness = _RobustnessOptions(*(options.pop(name) for name in _RobustnessOptions.__dataclass_fields__))
    if robustness.is_requested and baseline is None:
        raise click.UsageError(
            "--corruptions and --attack compare with a softmax baseline: name its folder with --baseline"
        )
    classifier = model.classifier()
    split, ood = _read(classifier, data, unknown)
    errors = (*split.errors, *(ood.errors if ood else ()))
    print_skipped(errors, list_command=f"{shlex.join(['likely', *sys.argv[1:]])} 2> skipped.txt")
    result = _evaluate(classifier, split, ood, options)
    fidelity = _fidelity(classifier, split.images, extractor) if extractor else None
    pair = [classifier, _baseline(model, classifier, baseline)] if baseline is not None else []
    alpha, guarantee = result.output.alpha, result.output.guarantee
    found = _Results(result, fidelity, *robustness.measure(pair, split.images, alpha, guarantee))
    if as_json:
        click.echo(json.dumps(found.as_json(), ensure_ascii=False))
    else:
        found.print()
    for caveat in false_alarm_caveats(false_alarms(classifier, result), result.classes):
        click.echo(caveat, err=True)
    if report is not None:
        _write_report(report, classifier, model.folder, split.images, found)
    sys.exit(1 if errors else 0)


@dataclass(frozen=True)
class _RobustnessOptions:
    corruptions: bool
    attack: bool
    epsilon: int
    attack_samples: int

    @property
    def is_requested(self) -> bool:
        return self.corruptions or self.attack

    def measure(
        self, classifiers: Sequence[Predictor], images: LabeledImages, alpha: float, guarantee: Guarantee
    ) -> tuple[list[Robustness], list[tuple[str, Sequence[AttackResult]]]]:
        """Measure the model and its baseline on corrupted and on attacked images, where requested."""
        import numpy as np

        from likely.evaluation.attacks import Target, attack
        from likely.evaluation.robustness import measure_robustness

        order = np.random.default_rng(0).permutation(len(images))
        some = images.subset(np.sort(order[: self.attack_samples]))
        corrupted = [
            _with_progress(f"corruptions of {each.id}", measure_robustness, each, images, seed=0, alpha=alpha)
            for each in classifiers
            if self.corruptions
        ]
        attacked = [
            (
                each.id or each.family,
                _with_progress(
                    f"attacks on {each.id}",
                    attack,
                    Target(each, alpha, guarantee),
                    some,
                    epsilon=self.epsilon,
                    seed=0,
                ),
            )
            for each in classifiers
            if self.attack
        ]
        return corrupted, attacked


@dataclass(frozen=True)
class _Results:
    """All results of one call, printed as tables or as one JSON object."""

    evaluation: EvaluationResult
    fidelity: Fidelity | None
    corruptions: Sequence[Robustness]
    attacks: Sequence[tuple[str, Sequence[AttackResult]]]

    def as_json(self) -> Mapping[str, Any]:
        more: dict[str, Any] = {}
        if self.fidelity:
            more["fidelity"] = self.fidelity.model_dump(mode="json")
        if self.corruptions:
            more["corruptions"] = [each.model_dump(mode="json") for each in self.corruptions]
        if self.attacks:
            more["attacks"] = {name: [row.model_dump() for row in rows] for name, rows in self.attacks}
        return self.evaluation.as_json() | more

    def print(self) -> None:
        from likely.cli.console import screen
        from likely.reporting.html.content import RobustnessResults
        from likely.reporting.html.page import Table
        from likely.reporting.html.sections.robustness import robustness_blocks

        print_metrics(self.evaluation, self.fidelity)
        for block in robustness_blocks(RobustnessResults(self.corruptions, self.attacks)):
            screen.print(_console_table(block) if isinstance(block, Table) else block.text)


def print_metrics(found: EvaluationResult, fidelity: Fidelity | None = None) -> None:
    """Print every metric with a short interpretation to stdout."""
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
    for line in fidelity_tiles(fidelity) if fidelity else ():
        table.add_row(*line)
    screen.print(table)
    if fidelity:
        screen.print(extractor_description(fidelity))
    if found.skipped:
        screen.print(f"{found.skipped:,} images skipped, because the model was trained on them")


def _console_table(table: ReportTable) -> RichTable:
    from rich.table import Table

    result = Table(box=None, pad_edge=False)
    for column in table.columns:
        result.add_column(column.title, justify="right" if column.align == "number" else "left")
    for row in table.rows:
        result.add_row(*map(str, row))
    return result


def _read(classifier: Predictor, data: str, unknown: str | None) -> tuple[EvalSplit, OODImages | None]:
    from likely.cli.progress import progress_bar
    from likely.evaluation.eval_split import eval_split, ood_images

    with progress_bar("reading images") as progress:
        return eval_split(classifier, data, progress), ood_images(classifier, unknown, progress) if unknown else None


def _evaluate(
    classifier: Predictor, split: EvalSplit, ood: OODImages | None, options: Mapping[str, Any]
) -> EvaluationResult:
    from likely.cli.console import console
    from likely.evaluation.evaluate import evaluate

    unknown = (ood.source, ood.images) if ood else None
    with console.status("evaluating"):
        return evaluate(classifier, split.images, skipped=split.n_skipped, unknown=unknown, **options)


def _fidelity(classifier: Predictor, images: LabeledImages, path: Path) -> Fidelity:
    from likely.cli.console import console
    from likely.evaluation.extractors import extractor
    from likely.evaluation.fidelity import fidelity

    with console.status("generating and comparing images"):
        return fidelity(classifier, images, extractor(path, device=classifier.device.type))


def _baseline(model: ModelArgument, classifier: Predictor, folder: Path) -> Predictor:
    """Load the softmax baseline of a model, after training it if there is none."""
    from likely.base import GenerativeModel
    from likely.checkpoint import DOCUMENT
    from likely.cli.progress import progress_bar, track_steps
    from likely.experiment import TRAINING_STATE, baseline_run, resume_run

    if not (folder / DOCUMENT).exists():
        with progress_bar("reading images") as progress:
            training = (
                resume_run(folder, progress=progress)
                if (folder / TRAINING_STATE).exists()
                else baseline_run(model.folder, folder, progress=progress)
            )
        for phase in training.phases():
            for _ in track_steps(phase.steps, f"baseline: {phase.name}", lines=phase.is_main):
                pass
    found = replace(model, folder=folder).classifier()
    same_task = (found.labels, found.format) == (classifier.labels, classifier.format)
    if not same_task or isinstance(found.model, GenerativeModel):
        raise click.UsageError(
            f"--baseline {folder} is not a softmax classifier of the same classes and images as {model.folder}; name a "
            "folder that does not exist to train one"
        )
    return found


def _write_report(path: Path, classifier: Predictor, folder: Path, images: LabeledImages, found: _Results) -> None:
    from likely.cli.console import console
    from likely.reporting.build import build_evaluation_report
    from likely.reporting.html import render
    from likely.reporting.html.content import RobustnessResults

    content = build_evaluation_report(classifier, folder, found.evaluation, images, found.fidelity)
    content = replace(content, robustness=RobustnessResults(found.corruptions, found.attacks))
    path.write_text(render(content), encoding="utf-8")
    console.print(f"report {path}", soft_wrap=True, markup=False)


def _with_progress(title: str, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    from likely.cli.progress import progress_bar

    with progress_bar(title) as progress:
        return function(*args, progress=progress, **kwargs)
