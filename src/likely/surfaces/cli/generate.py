"""likely generate: new images of the classes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

import click

from likely.surfaces.cli.opening import Opening, opens_model

if TYPE_CHECKING:
    from numpy.typing import NDArray

SMALLEST = 64  # pixels a side: an image on a sheet is enlarged to about this


@click.command()
@opens_model
@click.option(
    "--class", "names", multiple=True, metavar="NAME", help="Draw this class; may be given again. All, if left out."
)
@click.option("-n", "n", type=click.IntRange(1), default=8, show_default=True, help="Images a class.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="FILE.png for one picture, or a folder.")
@click.option("--seed", type=int, default=0, show_default=True, help="Another seed, other images.")
@click.option("--overwrite", is_flag=True, help="Replace what --out names.")
def command(model: Opening, names: tuple[str, ...], n: int, out: Path, seed: int, overwrite: bool) -> None:
    """Draw new images: one picture with a row a class, or single files in a folder for each class."""
    if out.exists() and not overwrite:
        raise click.UsageError(f"{out} exists; --overwrite replaces it")
    classifier = model.classifier_of_images("sample")
    chosen = list(dict.fromkeys(names or classifier.labels))
    write = _write_sheet if out.suffix else _write_files
    if write is _write_files:
        _refuse_ways_out(chosen, out)
    write(out, {name: classifier.sample(name, n, seed=seed + i) for i, name in enumerate(chosen)})
    click.echo(f"{n} images of {len(chosen)} classes: {out}", err=True)


def _refuse_ways_out(names: list[str], out: Path) -> None:
    """A class becomes a folder inside `out`, and a model that someone else made may call its classes anything."""
    for name in names:
        if PurePath(name).anchor or ".." in PurePath(name).parts:
            raise click.UsageError(
                f"class {name!r} names a folder outside {out}; with --out FILE.png it can be drawn all the same"
            )


def _write_sheet(out: Path, images: Mapping[str, NDArray[Any]]) -> None:
    import numpy as np

    from likely.data.images import grid, write

    drawn = list(images.values())
    n, _, *sides = drawn[0].shape
    write(out, grid(np.concatenate(drawn), n, scale=max(1, SMALLEST // max(sides))))


def _write_files(out: Path, images: Mapping[str, NDArray[Any]]) -> None:
    from likely.data.images import write

    for name, drawn in images.items():
        folder = out / name
        folder.mkdir(parents=True, exist_ok=True)
        for i, image in enumerate(drawn):
            write(folder / f"{i:04d}.png", image)
