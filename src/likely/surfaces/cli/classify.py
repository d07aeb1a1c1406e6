"""likely classify: images in, one Answer each out."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from likely.surfaces.cli.opening import ALPHA, Opening, opens_model

if TYPE_CHECKING:
    from likely.answer import Answer
    from likely.classifier import Classifier
    from likely.surfaces.cli.answers import Writer

CHUNK = 256  # images that are read, answered and written before the next


@click.command()
@opens_model
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
def command(model: Opening, inputs: tuple[str, ...], alpha: float, top_k: int | None, **written: Any) -> None:
    """Say what each INPUT, an image or a folder of images, shows, or that it shows nothing known."""
    from likely.data.images import find

    destination = Destination(**written)
    classifier = model.classifier_of_images("answer")
    paths = find(inputs)
    if not paths:
        raise click.UsageError(f"there are no images in {', '.join(inputs)}")
    failed = 0
    with destination.writer() as write:
        for answer in _answers(classifier, paths, alpha, top_k):
            failed += answer.error is not None
            if answer.error is not None and not destination.shows_errors:
                click.echo(answer.error, err=True)
            write(answer)
        write(None)
    sys.exit(1 if failed else 0)


@dataclass(frozen=True)
class Destination:
    """Where the answers go, and how they are written."""

    form: str | None
    out: Path | None
    overwrite: bool

    def __post_init__(self) -> None:
        if self.out is not None and self.out.exists() and not self.overwrite:
            raise click.UsageError(f"{self.out} exists; --overwrite replaces it")
        if self.form == "parquet" and self.out is None:
            raise click.UsageError("--format parquet is no text for a screen; name a file with --out")

    @property
    def format(self) -> str:
        """As asked for, else as the file's name has it, else a table."""
        from likely.surfaces.cli.answers import by_suffix

        return self.form or (by_suffix(self.out) if self.out else "table")

    @property
    def shows_errors(self) -> bool:
        """Whether whoever reads the answers reads what went wrong among them."""
        return self.format == "table" and self.out is None

    @contextmanager
    def writer(self) -> Iterator[Writer]:
        """What takes one answer after the other, and then None."""
        from likely.surfaces.cli.answers import WRITERS

        with self.out.open("wb") if self.out else nullcontext(sys.stdout.buffer) as stream:
            yield WRITERS[self.format](stream)


def _answers(classifier: Classifier, paths: list[Path], alpha: float, top_k: int | None) -> Iterator[Answer]:
    from likely.surfaces.cli.progress import counting

    with counting("classifying") as progress:
        for start in range(0, len(paths), CHUNK):
            chunk = paths[start : start + CHUNK]
            yield from classifier.answer(chunk, alpha=alpha, top_k=top_k)
            progress(start + len(chunk), len(paths))
