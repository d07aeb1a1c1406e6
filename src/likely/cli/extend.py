"""likely extend: new classes for a model that stays as it is."""

from __future__ import annotations

import shlex
import sys
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from likely.cli.model_argument import ModelArgument, model_command

if TYPE_CHECKING:
    from likely.classifier import Predictor

ALPHA = 0.05  # the usual false-alarm rate, at which it is said what a class's images can support


class NewClassParam(click.ParamType[tuple[str, Path]]):
    """NAME=DIR: a class and where its images are."""

    name = "NAME=DIR"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, Path]:
        name, equals, place = str(value).partition("=")
        if not (name and equals and place):
            self.fail(
                f"{value!r} does not say where the images of a class are; NAME=DIR was expected, as in boot=photos/boots"
            )
        if not Path(place).exists():
            self.fail(f"{place} does not exist; a folder with images of {name!r} was expected")
        return name, Path(place)


@dataclass(frozen=True)
class ExtendResult:
    """What was learned of a class: from how many images, in how many seconds, and how many are needed to promise more."""

    n: int
    seconds: float
    n_missing: int


@click.command()
@model_command
@click.argument("lessons", nargs=-1, required=True, type=NewClassParam(), metavar="NAME=DIR...")
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), required=True, help="The new model's folder.")
@click.option("--overwrite", is_flag=True, help="Replace the model folder that --out names.")
def command(model: ModelArgument, lessons: tuple[tuple[str, Path], ...], out: Path, overwrite: bool) -> None:
    """Teach MODEL new classes, each from a folder of images, without training it again.

    What it knows of the other classes stays as it is. Five images are enough to begin with.

    \b
    likely extend model sandal=photos/sandals --out larger
    """
    from likely.cli.output_folder import clear
    from likely.experiment import load_record, save_with_new_class

    _refuse(model.folder, lessons, out, overwrite)
    load_record(model.folder)  # before anything is removed: it is part of what will be written
    classifier = model.classifier_of_images("extend")
    failed, counts = 0, {}
    for name, place in lessons:
        classifier, learned, sentences = _taught(classifier, name, place)
        failed += len(sentences)
        for sentence in sentences:
            click.echo(sentence, err=True)
        click.echo(_said(name, learned), err=True)
        counts[name] = learned.n
    if out.exists():
        clear(out)
    save_with_new_class(classifier, counts, model.folder, out, command=shlex.join(["likely", *sys.argv[1:]]))
    click.echo(f"model {out}: {len(classifier.labels)} classes", err=True)
    sys.exit(1 if failed else 0)


def _refuse(folder: Path, lessons: tuple[tuple[str, Path], ...], out: Path, overwrite: bool) -> None:
    from likely.cli.output_folder import check_output_folder

    names = [name for name, _ in lessons]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise click.UsageError(f"{twice!r} was given twice; put its images into one folder")
    if out.resolve() == folder.resolve():
        raise click.UsageError(f"--out {out} is the model itself, which stays as it is; name another folder")
    if out.exists() and any(out.iterdir()):
        if not overwrite:
            raise click.UsageError(f"{out} is not empty; --overwrite replaces it")
        check_output_folder(out)


def _taught(classifier: Predictor, name: str, place: Path) -> tuple[Predictor, ExtendResult, list[str]]:
    """The classifier of one class more, and a sentence for every image that could not be read."""
    from likely.classifier.class_incremental import with_new_class
    from likely.cli.console import console
    from likely.data.decoding import ImageWarning
    from likely.data.preprocessing import find_images

    paths = find_images([str(place)])
    if not paths:
        raise click.UsageError(f"there are no images in {place}; images of {name!r} were expected")
    start = time.perf_counter()
    with warnings.catch_warnings(record=True) as caught, console.status(f"learning {name}"):
        warnings.simplefilter("always", ImageWarning)
        larger = with_new_class(classifier, name, paths)
    unread = [str(each.message) for each in caught if issubclass(each.category, ImageWarning)]
    n_missing = larger.conformal.typicality.n_missing(ALPHA)[-1]
    learned = ExtendResult(len(paths) - len(unread), time.perf_counter() - start, n_missing)
    return larger, learned, unread


def _said(name: str, learned: ExtendResult) -> str:
    said = f"{name}: learned from {learned.n:,} image{'s' * (learned.n != 1)} in {learned.seconds:.1f} s"
    if not learned.n_missing:
        return said
    return (
        f"{said}; to promise false alarms of this class alone at alpha {ALPHA:g} takes {learned.n_missing} more, until then "
        "what is promised is of all small classes together"
    )
