"""likely generate: sample images of the classes, and interpolate between classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

import click

from likely.cli.flags import FiniteRange
from likely.cli.model_argument import ModelArgument, model_command

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL import Image

    from likely.classifier import Predictor

STEPS = 10
N_IN_PICTURE, N_IN_DATASET = 8, 100  # images per class by default


@dataclass(frozen=True)
class _GenerateRequest:
    """Samples of classes, or walks between classes if there is a `start`."""

    names: tuple[str, ...]
    n: int
    start: str | None
    waypoints: tuple[str, ...]
    steps: int | None
    truncation: float
    seed: int
    one_picture: bool

    def __post_init__(self) -> None:
        if self.start is None and (self.waypoints or self.steps):
            raise click.UsageError("--to and --steps belong to a walk, which starts with --from NAME")
        if self.start is not None and self.names:
            raise click.UsageError("--class is for images and --from for walks; give one of them")


@click.command()
@model_command
@click.option("--class", "names", multiple=True, metavar="NAME", help="Class; may be repeated.  [default: all]")
@click.option(
    "-n",
    "n",
    type=click.IntRange(1),
    help=f"Images per class, or walks.  [default: {N_IN_PICTURE}; {N_IN_DATASET} with --dataset]",
)
@click.option(
    "--from", "start", metavar="NAME", help="Walk in latent space from an image of this class to one of --to."
)
@click.option("--to", "waypoints", multiple=True, metavar="NAME", help="Next class of the walk; may be repeated.")
@click.option("--steps", type=click.IntRange(2), help=f"Images between two classes of a walk.  [default: {STEPS}]")
@click.option(
    "--truncation",
    type=FiniteRange(0),
    default=1.0,
    show_default=True,
    help="Scale of the latent noise; below 1, images are more typical and less varied.",
)
@click.option("--out", type=click.Path(path_type=Path), help="FILE.png for one picture, or a folder.")
@click.option("--dataset", type=click.Path(path_type=Path), help="Folder to write class folders for `likely train` to.")
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), default=0, show_default=True, help="Random seed.")
@click.option("--overwrite", is_flag=True, help="Replace --out or --dataset.")
def command(
    model: ModelArgument, out: Path | None, dataset: Path | None, overwrite: bool, n: int | None, **request: Any
) -> None:
    """Generate new images, or walks from one class to another: one picture, or files in a folder.

    \b
    likely generate model --out all.png                          one row per class
    likely generate model --class boot -n 100 --out photos       photos/boot/0000.png and 99 more
    likely generate model --from sandal --to boot --out walk.png
    likely generate model --dataset generated                    generated/boot/0000.png …: 100 per class
    """
    destination = _destination(out, dataset, overwrite)
    request["n"] = n or (N_IN_DATASET if dataset is not None else N_IN_PICTURE)
    asked = _GenerateRequest(**request, one_picture=dataset is None and bool(destination.suffix))
    if dataset is not None and asked.start is not None:
        raise click.UsageError("--dataset is for images, not for walks; use --out")
    classifier = model.classifier_of_images("sample")
    _check_family(classifier, asked)
    write = _write_samples if asked.start is None else _write_walks
    click.echo(f"{write(classifier, asked, destination)}: {destination}", err=True)


def _destination(out: Path | None, dataset: Path | None, overwrite: bool) -> Path:
    chosen = [path for path in (out, dataset) if path is not None]
    if len(chosen) != 1:
        raise click.UsageError("give one of --out FILE.png, --out FOLDER and --dataset FOLDER")
    if chosen[0].exists() and not overwrite:
        raise click.UsageError(f"{chosen[0]} exists; --overwrite replaces it")
    return chosen[0]


def _check_family(classifier: Predictor, request: _GenerateRequest) -> None:
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


def _write_samples(classifier: Predictor, request: _GenerateRequest, out: Path) -> str:
    """Write images of the classes, as one picture or in a folder per class, and return a summary."""
    from likely.classifier.sampling import sample
    from likely.reporting.formatting import plural

    names = list(dict.fromkeys(request.names or classifier.labels))
    for name in names:
        classifier.index(name)  # raises for an unknown class before any image is sampled
    if not request.one_picture:
        _check_folder_names(names, out)
    images = [
        sample(classifier, name, request.n, seed=request.seed + i, truncation=request.truncation)
        for i, name in enumerate(names)
    ]
    if request.one_picture:
        _write_picture(out, _grid(images, names))
    else:
        for name, samples in zip(names, images, strict=True):
            _write_files(out / name, samples)
    summary = plural(request.n, "image")
    return f"{summary} of {names[0]}" if len(names) == 1 else f"{summary} of each of {len(names)} classes"


def _write_walks(classifier: Predictor, request: _GenerateRequest, out: Path) -> str:
    """Write walks, as one picture with a row per segment or in a folder per walk, and return a summary."""
    from likely.evaluation.interpolation import InterpolationPath, frames, interpolate_classes
    from likely.reporting.formatting import plural
    from likely.reporting.images.image_grid import labeled_rows

    assert request.start is not None
    path = InterpolationPath((request.start, *(request.waypoints or (request.start,))), request.steps or STEPS)
    walks = interpolate_classes(classifier, path, request.n, seed=request.seed, truncation=request.truncation)
    if request.one_picture:
        segments = [segment for walk in walks for segment in walk]
        rows = [segment.images for segment in segments]
        _write_picture(out, labeled_rows(rows, [(segment.start, segment.end) for segment in segments]))
    else:
        for i, walk in enumerate(walks):
            _write_files(out / f"{i:04d}", frames(walk))
    return f"{plural(request.n, 'walk')} {' → '.join(path.names)}"


def _check_folder_names(names: Sequence[str], out: Path) -> None:
    """Raise a UsageError if a class name, which may come from an untrusted model, leads out of the folder."""
    for name in names:
        if PurePath(name).anchor or ".." in PurePath(name).parts:
            raise click.UsageError(f"class {name!r} would be written outside {out}; use --out FILE.png for it")


def _grid(images: Sequence[NDArray[Any]], names: Sequence[str]) -> Image.Image:
    """Return a grid with one row per class, or with several rows of a single class."""
    from likely.reporting.images.image_grid import grid, grid_by_class

    return grid(images[0], names[0]) if len(names) == 1 else grid_by_class({"": images}, names)


def _write_picture(out: Path, picture: Image.Image) -> None:
    from likely.data.preprocessing import write_image
    from likely.reporting.images.image_grid import TRANSPARENT_FORMATS, opaque

    write_image(out, picture if out.suffix.lower() in TRANSPARENT_FORMATS else opaque(picture))


def _write_files(folder: Path, images: NDArray[Any]) -> None:
    from likely.data.preprocessing import write_image

    folder.mkdir(parents=True, exist_ok=True)
    for i, image in enumerate(images):
        write_image(folder / f"{i:04d}.png", image)
