"""likely demo: train, evaluate and classify on handwritten digits."""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click
import numpy as np

if TYPE_CHECKING:
    from likely.data.dataset import LabeledImages
    from likely.experiment import Training

DATA, MINUTES = "digits", 0.5
MODEL, PICTURES = "model", "pictures"  # folders that the demo writes
DIGITS = {"a-3.png": 3, "an-8.png": 8}
NO_DIGIT = "no-digit.png"
# A house in the sixteen grays and strokes of the digits, but in no digit's shape: 0 is black, f is white.
UNKNOWN_IMAGE = """
    000ff000
    00ffff00
    0ffffff0
    ffffffff
    0f0000f0
    0f0ff0f0
    0f0ff0f0
    0ffffff0
"""


@click.command()
@click.option(
    "--out", type=click.Path(path_type=Path), default=Path("likely-demo"), show_default=True, help="Folder to write."
)
def command(out: Path) -> None:
    """Train on 8x8 handwritten digits, evaluate, and classify three images, one of which is no digit."""
    from likely.cli.console import screen

    start = time.monotonic()
    model = out / MODEL
    _clear_demo(out)
    training, test = _train(model)
    _evaluate(training, test)
    _classify(training, out / PICTURES, test)
    screen.print(f"\n[bold]Report[/]  {model / 'report.html'}", soft_wrap=True)
    screen.print(
        f"[bold]Next[/]    likely train YOUR-FOLDER --out my-model     [dim]({time.monotonic() - start:.0f} s in all)"
    )


def _clear_demo(out: Path) -> None:
    """Remove the files of an earlier demo; a UsageError, and nothing is removed, if there are others."""
    from likely.cli.output_folder import clear

    if not out.exists() or not any(out.iterdir()):
        return
    if not _is_demo(out):
        raise click.UsageError(f"{out} was not written by `likely demo`; name another folder with --out")
    clear(out / MODEL)
    for name in (*DIGITS, NO_DIGIT):
        (out / PICTURES / name).unlink(missing_ok=True)


def _is_demo(out: Path) -> bool:
    model, pictures = out / MODEL, out / PICTURES
    if not model.is_dir() or {path.name for path in out.iterdir()} - {MODEL, PICTURES}:
        return False
    if pictures.exists() and {path.name for path in pictures.iterdir()} - {*DIGITS, NO_DIGIT}:
        return False
    return not any(model.iterdir()) or _source(model) == DATA


def _source(model: Path) -> str | None:
    """Return the DATA of a model, or of its unfinished training."""
    from likely import checkpoint, experiment

    if (model / checkpoint.DOCUMENT).exists():
        document = checkpoint.read_document(model, of_any_version=True)
        record = document.get("record")
        return record.get("source") if isinstance(record, dict) else None
    return experiment.load_unfinished_config(model).data if (model / experiment.TRAINING_STATE).exists() else None


def _train(model: Path) -> tuple[Training, LabeledImages]:
    from likely.cli.console import screen
    from likely.cli.progress import track_steps
    from likely.data.loading import load_dataset
    from likely.experiment import TrainConfig, start_run
    from likely.training.options import TrainingOptions

    screen.print("[bold]1  Train[/] on 8x8 images of handwritten digits")
    config = TrainConfig(data=DATA, training=TrainingOptions(minutes=MINUTES), label_check_folds=2)
    training = start_run(config, model, command=f"likely train {DATA} --minutes {MINUTES} --out {model}")
    for phase in training.phases():
        for _ in track_steps(phase.steps, phase.name, lines=phase.is_main):
            pass
    test = load_dataset(DATA, training.setup.dataset.format or config.images, splits=("test",)).test
    assert test is not None  # the digits have a test split, which training does not read
    return training, test


def _evaluate(training: Training, test: LabeledImages) -> None:
    from likely.cli.console import screen
    from likely.cli.evaluate import print_metrics
    from likely.evaluation.evaluate import evaluate
    from likely.experiment import ALPHA, write_pages
    from likely.reporting.build import build_evaluation_report

    screen.print(f"\n[bold]2  Evaluate[/] on {len(test)} test images")
    found = evaluate(training.predictor, test, alpha=ALPHA)
    content = build_evaluation_report(training.predictor, training.folder, found, test)
    write_pages(training.folder, replace(content, label_issues=training.content.label_issues))
    print_metrics(found)


def _classify(training: Training, folder: Path, test: LabeledImages) -> None:
    from likely.cli.console import screen
    from likely.cli.writers import WRITERS

    screen.print(f"\n[bold]3  Classify[/] three images: likely classify {training.folder} {folder}", soft_wrap=True)
    write = WRITERS["table"](sys.stdout.buffer)
    for prediction in [*training.predictor.classify(_write_images(folder, test)), None]:
        write(prediction)


def _write_images(folder: Path, test: LabeledImages) -> list[Path]:
    """Write two digits of the test split and the unknown image as files, and return their paths."""
    from likely.data.preprocessing import write_image

    folder.mkdir(parents=True, exist_ok=True)
    pixels = {
        name: test.images.batch([int((test.labels == label).argmax())])[0].numpy() for name, label in DIGITS.items()
    }
    pixels[NO_DIGIT] = np.array([[int(gray, 16) * 17 for gray in row] for row in UNKNOWN_IMAGE.split()], np.uint8)
    for name, values in pixels.items():
        write_image(folder / name, values)
    return [folder / name for name in pixels]
