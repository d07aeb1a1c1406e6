"""likely generate: new images of the classes, and walks from one to another."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

import click

from likely.cli.model_argument import ModelArgument, model_command

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL import Image

    from likely.classifier import Predictor

STEPS = 10
IN_A_PICTURE, IN_A_DATASET = 8, 100  # images of each class, unless a number is given


@dataclass(frozen=True)
class GenerateRequest:
    """What is to be drawn: images of classes, or walks if there is a `start`."""

    names: tuple[str, ...]
    n: int
    start: str | None
    waypoints: tuple[str, ...]
    steps: int | None
    truncation: float
    seed: int
    in_one_picture: bool


@click.command()
@model_command
@click.option(
    "--class", "names", multiple=True, metavar="NAME", help="Draw this class; may be given again. All, if left out."
)
@click.option("-n", "n", type=click.IntRange(1), help="Images of each class, or walks.  [default: 8, of a dataset 100]")
@click.option(
    "--from",
    "start",
    metavar="NAME",
    help="Walk from an image of this class, in small steps, to one of the class --to, or to another of its own.",
)
@click.option(
    "--to", "waypoints", multiple=True, metavar="NAME", help="Where a walk leads; given again, it goes on to there."
)
@click.option(
    "--steps", type=click.IntRange(2), help=f"Images from one class of a walk to the next; {STEPS} if left out."
)
@click.option(
    "--truncation",
    type=click.FloatRange(0),
    default=1.0,
    show_default=True,
    help="Below 1: images closer to their class's most typical one, cleaner and more alike.",
)
@click.option("--out", type=click.Path(path_type=Path), help="FILE.png for one picture, or a folder.")
@click.option(
    "--dataset", type=click.Path(path_type=Path), help="A folder of class folders, which `likely train` reads."
)
@click.option("--seed", type=int, default=0, show_default=True, help="Another seed, other images.")
@click.option("--overwrite", is_flag=True, help="Replace what --out or --dataset names.")
def command(
    model: ModelArgument, out: Path | None, dataset: Path | None, overwrite: bool, n: int | None, **asked: Any
) -> None:
    """Draw new images, or walks from one to another: one picture, or single files in a folder.

    \b
    likely generate model --out all.png                          each class a row
    likely generate model --class boot -n 100 --out photos       photos/boot/0000.png and 99 more
    likely generate model --from sandal --to boot --out walk.png
    likely generate model --dataset made                         made/boot/0000.png …: 100 of every class
    """
    place = out or dataset
    if place is None or (out is not None and dataset is not None):
        raise click.UsageError("where to? --out FILE.png, --out FOLDER or --dataset FOLDER was expected, one of them")
    if place.exists() and not overwrite:
        raise click.UsageError(f"{place} exists; --overwrite replaces it")
    asked["n"] = n or (IN_A_DATASET if dataset is not None else IN_A_PICTURE)
    request = GenerateRequest(**asked, in_one_picture=dataset is None and bool(place.suffix))
    if dataset is not None and request.start is not None:
        raise click.UsageError("--dataset is of images, and a walk is none; use --out")
    _refuse_contradictions(request)
    classifier = model.classifier_of_images("sample")
    _refuse_families(classifier, request)
    draw = _draw_images if request.start is None else _draw_walks
    click.echo(f"{draw(classifier, request, place)}: {place}", err=True)


def _draw_images(classifier: Predictor, request: GenerateRequest, out: Path) -> str:
    """Images of the classes: a sheet, or a folder for each class. Returns what was drawn, in words."""
    from likely.classifier.sampling import sample
    from likely.reporting.formatting import plural

    names = list(dict.fromkeys(request.names or classifier.labels))
    for name in names:
        classifier.index(name)  # a class that there is not is named before any is drawn
    if not request.in_one_picture:
        _refuse_ways_out(names, out)
    asked = {"truncation": request.truncation}
    images = [sample(classifier, name, request.n, seed=request.seed + i, **asked) for i, name in enumerate(names)]
    if request.in_one_picture:
        _write_sheet(out, _sheet(images, names))
    else:
        for name, drawn in zip(names, images, strict=True):
            _write_files(out / name, drawn)
    said = plural(request.n, "image")
    return f"{said} of {names[0]}" if len(names) == 1 else f"{said} of each of {len(names)} classes"


def _draw_walks(classifier: Predictor, request: GenerateRequest, out: Path) -> str:
    """Walks: a sheet with a strip from each class to the next, or a folder for each walk."""
    from likely.evaluation.interpolation import InterpolationPath, frames, interpolate_classes
    from likely.reporting.formatting import plural
    from likely.reporting.images.image_grid import labeled_rows

    assert request.start is not None
    route = InterpolationPath((request.start, *(request.waypoints or (request.start,))), request.steps or STEPS)
    drawn = interpolate_classes(classifier, route, request.n, seed=request.seed, truncation=request.truncation)
    if request.in_one_picture:
        legs = [leg for walk in drawn for leg in walk]
        _write_sheet(out, labeled_rows([leg.images for leg in legs], [(leg.start, leg.end) for leg in legs]))
    else:
        for i, walk in enumerate(drawn):
            _write_files(out / f"{i:04d}", frames(walk))
    return f"{plural(request.n, 'walk')} {' → '.join(route.names)}"


def _refuse_contradictions(request: GenerateRequest) -> None:
    if request.start is None and (request.waypoints or request.steps):
        raise click.UsageError("--to and --steps are for a walk, and a walk starts with --from NAME")
    if request.start is not None and request.names:
        raise click.UsageError("--class is for images and --from for walks; one of them was expected")
    if not math.isfinite(request.truncation):
        raise click.UsageError(
            f"--truncation {request.truncation} is no number to scale with; one like 0.7 was expected"
        )


def _refuse_families(classifier: Predictor, request: GenerateRequest) -> None:
    from likely.base import GenerativeModel, Latent
    from likely.classifier.sampling import latent_model
    from likely.models import families_with

    if not isinstance(classifier.model, GenerativeModel):
        raise click.UsageError(
            f"a {classifier.family!r} model cannot generate images; families that can: {families_with(GenerativeModel)}"
        )
    if request.truncation != 1 and latent_model(classifier) is None and classifier.feature_decoder is None:
        raise click.UsageError(
            f"--truncation needs a latent space and {classifier.family!r} has none; families with one: {families_with(Latent)}"
        )


def _refuse_ways_out(names: Sequence[str], out: Path) -> None:
    """A class becomes a folder inside `out`, and a model that someone else made may call its classes anything."""
    for name in names:
        if PurePath(name).anchor or ".." in PurePath(name).parts:
            raise click.UsageError(
                f"class {name!r} names a folder outside {out}; with --out FILE.png it can be drawn all the same"
            )


def _sheet(images: Sequence[NDArray[Any]], names: Sequence[str]) -> Image.Image:
    """A row for each class, or all lines of a single one under its name."""
    from likely.reporting.images.image_grid import grid, grid_by_class

    return grid(images[0], names[0]) if len(names) == 1 else grid_by_class({"": images}, names)


def _write_sheet(out: Path, sheet: Image.Image) -> None:
    from likely.data.preprocessing import write_image
    from likely.reporting.images.image_grid import TRANSPARENT_FORMATS, opaque

    write_image(out, sheet if out.suffix.lower() in TRANSPARENT_FORMATS else opaque(sheet))


def _write_files(folder: Path, images: NDArray[Any]) -> None:
    from likely.data.preprocessing import write_image

    folder.mkdir(parents=True, exist_ok=True)
    for i, image in enumerate(images):
        write_image(folder / f"{i:04d}.png", image)
