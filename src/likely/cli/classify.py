"""likely classify: images in, one Answer each out."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from likely.cli.model_argument import ALPHA, ModelArgument, model_command
from likely.cli.prior_option import ADAPT, log_prior

if TYPE_CHECKING:
    from likely.classifier import Predictor
    from likely.cli.writers import Writer
    from likely.prediction import Prediction

Masking = Callable[[list[Path]], Mapping[str, Any]]
CHUNK = 256  # images that are read, answered and written before the next


@click.command()
@model_command
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
@click.option(
    "--prior",
    metavar="uniform|FILE|adapt",
    help="The mix that the classes come in: all alike, as a .json or .csv file says, or as these images show; that of the "
    "training if left out.",
)
@click.option(
    "--mask",
    metavar="MASK|transparent",
    help="Go by a part of each image alone: the white pixels of the picture MASK, or those of each image that are not "
    "transparent.",
)
@click.option(
    "--data",
    metavar="DATA",
    help="Where the training images are now, if p-values behind a mask are to be had from them.",
)
def command(
    model: ModelArgument,
    inputs: tuple[str, ...],
    alpha: float,
    top_k: int | None,
    prior: str | None,
    mask: str | None,
    data: str | None,
    **written: Any,
) -> None:
    """Say what each INPUT, an image or a folder of images, shows, or that it shows nothing known."""
    from likely.data.preprocessing import find_images

    if prior == ADAPT and mask is not None:
        raise click.UsageError("--prior adapt looks at whole images; with --mask give the shares in a file, or uniform")
    if data is not None and mask is None:
        raise click.UsageError("--data is for p-values behind a mask; name one with --mask, or leave --data out")
    destination = OutputOptions(**written)
    classifier = model.classifier_of_images("answer")
    paths = find_images(inputs)
    if not paths:
        raise click.UsageError(f"there are no images in {', '.join(inputs)}")
    asked = {"alpha": alpha, "top_k": top_k, "log_prior": log_prior(classifier, prior, paths, alpha)}
    masking = _masking(classifier, model.folder, mask, data)
    for sentence in _shortfall(classifier, alpha) if mask is None else ():
        click.echo(sentence, err=True)
    failed = 0
    with destination.writer() as write:
        for answer in _answers(classifier, paths, asked, masking):
            failed += answer.error is not None
            if answer.error is not None and not destination.shows_errors:
                click.echo(answer.error, err=True)
            write(answer)
        write(None)
    sys.exit(1 if failed else 0)


@dataclass(frozen=True)
class OutputOptions:
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
        from likely.cli.writers import by_suffix

        return self.form or (by_suffix(self.out) if self.out else "table")

    @property
    def shows_errors(self) -> bool:
        """Whether whoever reads the answers reads what went wrong among them."""
        return self.format == "table" and self.out is None

    @contextmanager
    def writer(self) -> Iterator[Writer]:
        """What takes one answer after the other, and then None."""
        from likely.cli.writers import WRITERS

        with self.out.open("wb") if self.out else nullcontext(sys.stdout.buffer) as stream:
            yield WRITERS[self.format](stream)


def _shortfall(classifier: Predictor, alpha: float) -> Iterator[str]:
    """What the p-values can promise where a class has too few calibration images for its own."""
    from likely.prediction import CalibrationScope
    from likely.reporting.formatting import listing, plural

    kinds, missing = classifier.conformal.typicality.scope(alpha), classifier.conformal.typicality.n_missing(alpha)
    few = [c for c, kind in enumerate(kinds) if kind is not CalibrationScope.PER_CLASS]
    if not few:
        return
    named = listing(tuple(f"{classifier.labels[c]} {missing[c]:,}" for c in few))
    if kinds[few[0]] is CalibrationScope.POOLED:
        yield f"p-values are pooled over classes that have too few images of their own at alpha {alpha:g}; missing: {named}"
    else:
        have = plural(len(classifier.conformal.typicality.labels), "calibration image")
        yield f"without p-values: {have} in all, and alpha {alpha:g} takes {math.ceil(1 / alpha - 1e-9)}; missing: {named}"


def _masking(classifier: Predictor, folder: Path, mask: str | None, data: str | None) -> Masking:
    """What goes with a chunk of images: nothing, one mask and what was calibrated behind it, or a mask for each."""
    from likely.cli.masks import TRANSPARENT, alpha_masks, conformal_for_mask, load_mask_file

    if mask is None:
        return lambda chunk: {}
    if mask == TRANSPARENT:
        return lambda chunk: {"mask": alpha_masks(classifier, chunk)}
    pixels = load_mask_file(classifier, Path(mask))
    if pixels.all():
        return lambda chunk: {}
    judge = conformal_for_mask(classifier, pixels, folder, data)
    return lambda chunk: {"mask": pixels, "conformal": judge}


def _answers(
    classifier: Predictor, paths: list[Path], asked: Mapping[str, Any], masking: Masking
) -> Iterator[Prediction]:
    from likely.cli.progress import progress_bar

    with progress_bar("classifying") as progress:
        for start in range(0, len(paths), CHUNK):
            chunk = paths[start : start + CHUNK]
            yield from classifier.classify(chunk, **asked, **masking(chunk))
            progress(start + len(chunk), len(paths))
