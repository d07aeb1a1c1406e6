"""likely generate: new images of the classes."""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np

from likely.surfaces.cli.opening import model_argument, opened


@click.command()
@model_argument
@click.option(
    "--class", "names", multiple=True, metavar="NAME", help="Draw this class; may be given again. All, if left out."
)
@click.option("-n", "n", type=click.IntRange(1), default=8, show_default=True, help="Images a class.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="FILE.png for one picture, or a folder.")
@click.option("--seed", type=int, default=0, show_default=True, help="Another seed, other images.")
@click.option("--overwrite", is_flag=True, help="Replace what --out names.")
def command(
    model: Path,
    names: tuple[str, ...],
    n: int,
    out: Path,
    seed: int,
    overwrite: bool,
    device: str,
    threads: int | None,
) -> None:
    """Draw new images: one picture with a row a class, or single files in a folder for each class."""
    from likely.data.images import grid, write

    if out.exists() and not overwrite:
        raise click.UsageError(f"{out} exists; --overwrite replaces it")
    classifier = opened(model, device, threads)
    if classifier.format_ is None:
        raise click.UsageError(
            f"{model} was trained on vectors, which make no picture; Classifier.sample draws them in Python"
        )
    chosen = names or classifier.labels
    images = {name: classifier.sample(name, n, seed=seed + i) for i, name in enumerate(chosen)}
    if out.suffix:
        side = max(images[chosen[0]].shape[2:])
        write(out, grid(np.concatenate(list(images.values())), n, scale=max(1, 64 // side)))
    else:
        for name, drawn in images.items():
            folder = out / name
            folder.mkdir(parents=True, exist_ok=True)
            for i, image in enumerate(drawn):
                write(folder / f"{i:04d}.png", image)
    click.echo(f"{n} images of {len(chosen)} classes: {out}", err=True)
