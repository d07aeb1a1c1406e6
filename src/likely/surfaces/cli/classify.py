"""likely classify: images in, one Answer each out."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import click

from likely.surfaces.cli.opening import ALPHA, model_argument, opened

if TYPE_CHECKING:
    from likely.answer import Answer
    from likely.classifier import Classifier

CHUNK = 256  # images that are read, answered and written before the next


@click.command()
@model_argument
@click.argument("inputs", nargs=-1, required=True, metavar="INPUT...")
@click.option(
    "--format", "form", type=click.Choice(["table", "jsonl", "csv", "parquet"]), help="How to write the answers."
)
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="Write to a file instead of the screen.")
@click.option("--overwrite", is_flag=True, help="Replace the file that --out names.")
@click.option(
    "--alpha", type=ALPHA, default=0.05, show_default=True, help="Share of known images that may be called unknown."
)
@click.option("--top-k", type=click.IntRange(1), help="Name so many classes an image.")
def command(
    model: Path,
    inputs: tuple[str, ...],
    form: str | None,
    out: Path | None,
    overwrite: bool,
    alpha: float,
    top_k: int | None,
    device: str,
    threads: int | None,
) -> None:
    """Say what each INPUT, an image or a folder of images, shows, or that it shows nothing known."""
    from likely.data.images import find
    from likely.surfaces.cli.answers import WRITERS, by_suffix

    form = form or (by_suffix(out) if out else "table")
    if out is not None and out.exists() and not overwrite:
        raise click.UsageError(f"{out} exists; --overwrite replaces it")
    if form == "parquet" and out is None:
        raise click.UsageError("--format parquet is no text for a screen; name a file with --out")
    classifier = opened(model, device, threads)
    if classifier.format_ is None:
        raise click.UsageError(f"{model} was trained on vectors, not images; Classifier.answer takes them in Python")
    paths = find(inputs)
    if not paths:
        raise click.UsageError(f"there are no images in {', '.join(inputs)}")
    failed = 0
    with out.open("wb") if out else nullcontext(sys.stdout.buffer) as stream:
        write = WRITERS[form](stream)
        for answer in _answers(classifier, paths, alpha, top_k):
            failed += answer.error is not None
            if answer.error is not None and (form != "table" or out):
                click.echo(answer.error, err=True)
            write(answer)
        write(None)
    sys.exit(1 if failed else 0)


def _answers(classifier: Classifier, paths: list[Path], alpha: float, top_k: int | None) -> Iterator[Answer]:
    from likely.surfaces.cli.progress import counting

    with counting("classifying") as progress:
        for start in range(0, len(paths), CHUNK):
            chunk = paths[start : start + CHUNK]
            yield from classifier.answer(chunk, alpha=alpha, top_k=top_k)
            progress(start + len(chunk), len(paths))
