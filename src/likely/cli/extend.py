"""likely extend: add classes to a model, or images to its classes, without retraining it."""

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

ALPHA = 0.05  # the false-alarm rate for which missing calibration images are counted


class _ClassParam(click.ParamType[tuple[str, Path]]):
    """NAME=DIR: a class and the folder of its images."""

    name = "NAME=DIR"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, Path]:
        name, equals, folder = str(value).partition("=")
        if not (name and equals and folder):
            self.fail(f"{value!r} is not NAME=DIR, such as boot=photos/boots")
        if not Path(folder).exists():
            self.fail(f"{folder} does not exist; a folder with images of {name!r} was expected")
        return name, Path(folder)


@dataclass(frozen=True)
class _ExtendResult:
    """A predictor that learned n images of a class, and the errors of the images that it did not learn."""

    classifier: Predictor
    name: str
    n: int
    is_new: bool
    seconds: float
    errors: tuple[str, ...]

    @property
    def summary(self) -> str:
        done = "added from" if self.is_new else "learned from further"
        said = f"{self.name}: {done} {self.n:,} image{'s' * (self.n != 1)} in {self.seconds:.1f} s"
        c = self.classifier.index(self.name)
        n_missing = self.classifier.decision_rule.typicality.n_missing(ALPHA)[c]
        if not n_missing:
            return said
        return f"{said}; its p-values and a false-alarm guarantee for it at alpha {ALPHA:g} need {n_missing} more"


@click.command()
@model_command
@click.argument("classes", nargs=-1, required=True, type=_ClassParam(), metavar="NAME=DIR...")
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), required=True, help="Folder of the new model.")
@click.option("--overwrite", is_flag=True, help="Replace the model folder --out.")
def command(model: ModelArgument, classes: tuple[tuple[str, Path], ...], out: Path, overwrite: bool) -> None:
    """Add classes to MODEL, each from a folder of images, without retraining it.

    A class that MODEL has learns from the images as well. The other classes stay as they are. Five images are enough for a
    new class to start with. Exit code 1 if an image could not be read or was trained on before.

    \b
    likely extend model sandal=photos/sandals --out larger
    """
    from likely.cli.output_folder import check_out, clear
    from likely.evaluation.training_record import load_record
    from likely.experiment import save_extended

    _check_names([name for name, _ in classes])
    check_out(model.folder, out, overwrite)
    load_record(model.folder)  # before anything is removed: the new folder needs it
    classifier, counts, failed = model.classifier_of_images("extend"), {}, False
    for name, folder in classes:
        result = _extend(classifier, name, folder)
        classifier, counts[name], failed = result.classifier, result.n, failed or bool(result.errors)
        for sentence in (*result.errors, result.summary):
            click.echo(sentence, err=True)
    if out.exists():
        clear(out)
    save_extended(classifier, counts, model.folder, out, command=shlex.join(["likely", *sys.argv[1:]]))
    click.echo(f"model {out}: {len(classifier.labels)} classes", err=True)
    sys.exit(1 if failed else 0)


def _check_names(names: list[str]) -> None:
    repeated = next((name for name in names if names.count(name) > 1), None)
    if repeated is not None:
        raise click.UsageError(f"{repeated!r} is named twice; put its images into one folder")


def _extend(classifier: Predictor, name: str, folder: Path) -> _ExtendResult:
    from likely.classifier.class_incremental import extend
    from likely.cli.console import console
    from likely.data.decoding import ImageWarning
    from likely.data.sources.folder import find_images

    paths = find_images([str(folder)])
    if not paths:
        raise click.UsageError(f"there are no images in {folder}; images of {name!r} were expected")
    start = time.perf_counter()
    with warnings.catch_warnings(record=True) as caught, console.status(f"learning {name}"):
        warnings.simplefilter("always", ImageWarning)
        extended = extend(classifier, name, paths)
    errors = tuple(str(each.message) for each in caught if issubclass(each.category, ImageWarning))
    is_new, seconds = name not in classifier.labels, time.perf_counter() - start
    return _ExtendResult(extended, name, len(paths) - len(errors), is_new, seconds, errors)
