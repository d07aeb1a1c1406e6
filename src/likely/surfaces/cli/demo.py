"""likely demo: the whole story on handwritten digits, from training to an answer that says "none of these"."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from PIL import Image

    from likely.classifier import Classifier
    from likely.data.parts import Part

DATA, EPOCHS = "digits", 60
ENLARGED = 8  # times: pictures of 8x8 pixels are too small to look at


@click.command()
@click.option(
    "--out", type=click.Path(path_type=Path), default=Path("likely-demo"), show_default=True, help="Where to write."
)
@click.option("--overwrite", is_flag=True, help="Replace what is in --out, if it is not an earlier demo.")
def command(out: Path, overwrite: bool) -> None:
    """Train on 8x8 handwritten digits, measure, and classify three pictures, one of which is no digit."""
    from likely.surfaces.cli.errors import sentences
    from likely.surfaces.cli.progress import console

    began = time.monotonic()
    model = out / "model"
    if out.exists() and any(out.iterdir()) and not (overwrite or (model / "model.json").exists()):
        raise click.UsageError(f"{out} is not empty and no earlier demo; --overwrite replaces it")
    shutil.rmtree(out, ignore_errors=True)
    with sentences():
        classifier, test = _train(model)
        _measure(classifier, model, test)
        _classify(classifier, model, out / "pictures", test)
    console.print(f"\n[bold]Look at[/]  {model / 'report.html'}", soft_wrap=True)
    console.print(
        f"[bold]Next[/]     likely train YOUR-FOLDER --out my-model     [dim]({time.monotonic() - began:.0f} s in all)"
    )


def _train(model: Path) -> tuple[Classifier, Part]:
    from likely.data.dataset import load
    from likely.run import Run, begin
    from likely.surfaces.cli.progress import console, watched
    from likely.training.options import TrainingOptions

    console.print("[bold]1  Train[/] on 8x8 pictures of handwritten digits")
    run = Run(data=DATA, training=TrainingOptions(epochs=EPOCHS), folds=2)
    session = begin(run, model, command=f"likely train {DATA} --epochs {EPOCHS} --out {model}")
    for _ in watched(session.steps(), "training"):
        pass
    session.finish()
    for _ in watched(session.check_labels(), "checking labels", lines=False):
        pass
    test = load(DATA, session.dataset.format or run.images, parts=("test",)).test
    assert test is not None  # the digits have a test part, and the training has not read it
    return session.classifier, test


def _measure(classifier: Classifier, model: Path, test: Part) -> None:
    from likely.evaluation.assessment import assess
    from likely.evaluation.portrait import published
    from likely.run import ALPHA, REPORT
    from likely.surfaces.cli.evaluate import show
    from likely.surfaces.cli.progress import console

    console.print(f"\n[bold]2  Evaluate[/] on {len(test)} digits that it has never seen")
    found = assess(classifier, test, alpha=ALPHA)
    (model / REPORT).write_text(published(classifier, model, found, test), encoding="utf-8")
    show(found)


def _classify(classifier: Classifier, model: Path, folder: Path, test: Part) -> None:
    import sys

    from likely.surfaces.cli.answers import table
    from likely.surfaces.cli.progress import console

    console.print(f"\n[bold]3  Classify[/] three pictures: likely classify {model} {folder}")
    write = table(sys.stdout.buffer)
    for answer in [*classifier.answer(_pictures(folder, test)), None]:
        write(answer)


def _pictures(folder: Path, test: Part) -> list[Path]:
    """Two digits of the test part and something that is no digit, as files."""
    from PIL import Image

    from likely.data.images import to_pil, write

    folder.mkdir(parents=True)
    paths = []
    for label in (3, 8):
        i = int((test.labels == label).argmax())
        digit = to_pil(test.images.batch([i])[0].numpy())
        paths.append(folder / f"a-{label}.png")
        write(paths[-1], digit.resize((8 * ENLARGED, 8 * ENLARGED), Image.Resampling.NEAREST))
    paths.append(folder / "no-digit.png")
    write(paths[-1], _house())
    return paths


def _house() -> Image.Image:
    """A little house: strokes and greys as a digit has them, in a shape that none has."""
    from PIL import Image, ImageDraw

    side = 8 * ENLARGED
    picture = Image.new("L", (side, side))
    draw = ImageDraw.Draw(picture)
    draw.polygon([(side // 2, 2), (2, side // 2), (side - 3, side // 2)], fill=255)
    draw.rectangle([side // 8, side // 2, side - side // 8, side - 2], outline=200, width=ENLARGED)
    return picture
