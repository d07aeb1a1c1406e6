"""likely demo: the whole story on handwritten digits, from training to an answer that says "none of these"."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click
import numpy as np

if TYPE_CHECKING:
    from likely.data.dataset import LabeledImages
    from likely.experiment import TrainingRun

DATA, MINUTES = "digits", 0.5
MODEL, PICTURES = "model", "pictures"  # the folders that a demo makes
DIGITS = {"a-3.png": 3, "an-8.png": 8}
NO_DIGIT = "no-digit.png"
# A house, in the sixteen grays and the strokes of the digits, in a shape that none has: 0 is black, f is white.
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
    "--out", type=click.Path(path_type=Path), default=Path("likely-demo"), show_default=True, help="Where to write."
)
def command(out: Path) -> None:
    """Train on 8x8 handwritten digits, measure, and classify three pictures, one of which is no digit."""
    from likely.cli.console import screen

    began = time.monotonic()
    model = out / MODEL
    _make_way(out)
    session, test = _train(model)
    _measure(session, test)
    _classify(session, out / PICTURES, test)
    screen.print(f"\n[bold]Look at[/]  {model / 'report.html'}", soft_wrap=True)
    screen.print(
        f"[bold]Next[/]     likely train YOUR-FOLDER --out my-model     [dim]({time.monotonic() - began:.0f} s in all)"
    )


def _make_way(out: Path) -> None:
    """Remove what an earlier demo wrote; a UsageError, and nothing is removed, if there is anything else."""
    from likely.cli.output_folder import clear

    if not out.exists() or not any(out.iterdir()):
        return
    if not _is_demo(out):
        raise click.UsageError(f"{out} holds something else than an earlier demo; name another folder with --out")
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
    """The data that a model was made from, or was being made from when a training was cut short."""
    from likely import checkpoint
    from likely import experiment as run

    if (model / checkpoint.DOCUMENT).exists():
        document = checkpoint.read_document(model, of_any_version=True)
        source: str | None = document.get("record", {}).get("source")
        return source
    return run.load_unfinished_config(model).data if (model / run.TRAINING_STATE).exists() else None


def _train(model: Path) -> tuple[TrainingRun, LabeledImages]:
    from likely.cli.console import screen
    from likely.cli.progress import track_steps
    from likely.data.loading import load_dataset
    from likely.experiment import TrainConfig, start_run
    from likely.training.options import TrainingOptions

    screen.print("[bold]1  Train[/] on 8x8 pictures of handwritten digits")
    run = TrainConfig(data=DATA, training=TrainingOptions(minutes=MINUTES), label_check_folds=2)
    session = start_run(run, model, command=f"likely train {DATA} --minutes {MINUTES} --out {model}")
    for _ in track_steps(session.steps(), "training"):
        pass
    session.finish()
    for _ in track_steps(session.check_labels(), "checking labels", lines=False):
        pass
    test = load_dataset(DATA, session.dataset.format or run.images, splits=("test",)).test
    assert test is not None  # the digits have a test part, and the training has not read it
    return session, test


def _measure(session: TrainingRun, test: LabeledImages) -> None:
    from likely.cli.console import screen
    from likely.cli.evaluate import show
    from likely.evaluation.evaluate import evaluate
    from likely.experiment import ALPHA, write_pages
    from likely.reporting.build import build_evaluation_report

    screen.print(f"\n[bold]2  Evaluate[/] on {len(test)} digits that it has never seen")
    found = evaluate(session.classifier, test, alpha=ALPHA)
    content = build_evaluation_report(session.classifier, session.out, found, test)
    write_pages(session.out, replace(content, label_issues=session.content.label_issues))
    show(found)


def _classify(session: TrainingRun, folder: Path, test: LabeledImages) -> None:
    import sys

    from likely.cli.console import screen
    from likely.cli.writers import table

    screen.print(f"\n[bold]3  Classify[/] three pictures: likely classify {session.out} {folder}", soft_wrap=True)
    write = table(sys.stdout.buffer)
    for answer in [*session.classifier.classify(_pictures(folder, test)), None]:
        write(answer)


def _pictures(folder: Path, test: LabeledImages) -> list[Path]:
    """Two digits of the test part and something that is no digit, as files, pixel by pixel as they are."""
    from likely.data.preprocessing import write_image

    folder.mkdir(parents=True, exist_ok=True)
    pixels = {
        name: test.images.batch([int((test.labels == label).argmax())])[0].numpy() for name, label in DIGITS.items()
    }
    pixels[NO_DIGIT] = np.array([[int(gray, 16) * 17 for gray in row] for row in UNKNOWN_IMAGE.split()], np.uint8)
    for name, values in pixels.items():
        write_image(folder / name, values)
    return [folder / name for name in pixels]
