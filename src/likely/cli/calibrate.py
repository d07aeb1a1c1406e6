"""likely calibrate: calibrate a model with images of the place where it is used, without retraining it."""

from __future__ import annotations

import math
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from likely.cli.model_argument import ALPHA, ModelArgument, model_command

if TYPE_CHECKING:
    from likely.classifier import Predictor
    from likely.classifier.recalibration import Recalibration

N_NAMED = 3  # most atypical images in a warning


@click.command()
@model_command
@click.argument("data")
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder of the calibrated model.  [default: MODEL itself]",
)
@click.option("--overwrite", is_flag=True, help="Replace the model folder --out.")
@click.option(
    "--alpha",
    type=ALPHA,
    default=0.05,
    show_default=True,
    help="Smallest significance level that the images must suffice for: 1 / alpha − 1 in all, and 1 / alpha of a class.",
)
def command(model: ModelArgument, data: str, out: Path | None, overwrite: bool, alpha: float) -> None:
    """Calibrate MODEL with images of its classes from the place where it is used, without retraining it.

    Afterwards at most a fraction alpha of images like these is rejected as unknown. Labels are not needed: DATA may be a folder
    of images. Labels, as in the DATA of a training, also correct the probabilities, and the p-values of each class with enough
    images. Images that MODEL was trained on and a test split are left out. Exit code 1 if a file could not be read.

    \b
    likely calibrate model site/photos --out calibrated
    """
    from likely.checkpoint.signing import SIGNATURE
    from likely.classifier.recalibration import recalibrate
    from likely.cli.console import print_skipped
    from likely.cli.output_folder import check_out
    from likely.cli.progress import progress_bar
    from likely.evaluation.eval_split import calibration_images
    from likely.evaluation.training_record import load_record
    from likely.experiment import save_recalibrated

    if out is not None:
        check_out(model.folder, out, overwrite)
    load_record(model.folder)  # before the images are read: the new folder needs it
    classifier = model.classifier()
    with progress_bar("reading images") as progress:
        found = calibration_images(classifier, data, progress)
    print_skipped(found.errors, list_command=f"{shlex.join(['likely', *sys.argv[1:]])} 2> skipped.txt")
    with progress_bar("calibrating") as progress:
        result = recalibrate(classifier, found.images, alpha, progress)
    target, words = out or model.folder, shlex.join(["likely", *sys.argv[1:]])
    signed = "; sign it again" if (target / SIGNATURE).exists() else ""
    saved = save_recalibrated(result, data, model.folder, target, command=words)
    _print_summary(classifier, result, alpha)
    for warning in _warnings(classifier, result, alpha):
        click.echo(warning, err=True)
    click.echo(f"model {target}: calibrated with {len(result.names):,} images, now {saved.id}{signed}", err=True)
    sys.exit(1 if found.errors else 0)


def _print_summary(before: Predictor, found: Recalibration, alpha: float) -> None:
    """Print a table of what changed to stdout."""
    from rich.table import Table

    from likely.cli.console import screen

    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="bold")
    table.add_column(justify="right")
    table.add_column(style="dim")
    for row in _rows(before, found, alpha):
        table.add_row(*row)
    screen.print(table)


def _rows(before: Predictor, found: Recalibration, alpha: float) -> Iterator[tuple[str, str, str]]:
    from likely.evaluation.metrics import clopper_pearson
    from likely.reporting.formatting import interval, listing, percent, plural

    n, rejected = len(found.names), found.n_rejected(alpha)
    n_before = len(before.decision_rule.image_calibrator.scores)
    if rejected is not None:
        bounds = interval(clopper_pearson(rejected, n))
        note = f"of the images were rejected before; at most {alpha * 100:g}% expected; 95% interval {bounds}"
        yield "False-alarm rate", percent(rejected / n), note
    skipped = f"; {plural(found.n_skipped, 'training image')} left out" if found.n_skipped else ""
    yield "Calibration images", f"{n:,}", f"{n_before:,} before{skipped}"
    T = found.predictor.decision_rule.temperature
    labels = f"from {plural(found.n_labeled, 'label')}" if found.n_labeled else "unchanged without labels"
    yield "Temperature", f"{T:.2f}", f"{found.temperature_before:.2f} before; {labels}"
    others = tuple(name for name in before.labels if name not in found.updated)
    note = f"{listing(others)}: fewer than {math.ceil(1 / alpha - 1e-9)} labels each" if others else ""
    yield "Classes calibrated", f"{len(found.updated)} of {len(before.labels)}", note


def _warnings(before: Predictor, found: Recalibration, alpha: float) -> Iterator[str]:
    """Yield a warning if the images have more small p-values than images like those of the training."""
    from likely.evaluation.metrics import beta_binomial_bound

    rejected, calibrator = found.n_rejected(alpha), before.decision_rule.image_calibrator
    if rejected is None:
        return
    bound = beta_binomial_bound(len(found.names), int(calibrator.weights.sum()), alpha)
    if rejected > bound:
        yield (
            f"{rejected:,} of {len(found.names):,} images have p-values of at most {alpha:g} by the calibration before, and at "
            f"most {bound:,} were expected: they differ from the training images, or unknown images are among them; remove "
            f"those, and calibrate again. The most atypical are {', '.join(found.names[:N_NAMED])}."
        )
