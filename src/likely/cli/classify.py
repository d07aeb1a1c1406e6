"""likely classify: classify images."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import click

from likely.cli.model_argument import ALPHA, ModelArgument, guarantee_option, model_command
from likely.cli.prior_option import ADAPT, adapted_log_prior, log_prior
from likely.prediction import Guarantee

if TYPE_CHECKING:
    from likely.classifier import Predictor
    from likely.cli.writers import Writer
    from likely.data.image_dataset import ImageBatch
    from likely.data.sources.base import LoadError
    from likely.inference.decision import ConformalOutput
    from likely.prediction import Prediction

MaskArguments: TypeAlias = Callable[[list[Path]], Mapping[str, Any]]
CHUNK = 256  # images that are read, classified and written before the next ones


@click.command()
@model_command
@click.argument("inputs", nargs=-1, required=True, metavar="INPUT...")
@click.option(
    "--format",
    type=click.Choice(["table", "jsonl", "csv", "parquet"]),
    help="Output format.  [default: by the suffix of --out, else table]",
)
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="Write to a file instead of stdout.")
@click.option("--overwrite", is_flag=True, help="Replace the file --out.")
@click.option(
    "--alpha",
    type=ALPHA,
    default=0.05,
    show_default=True,
    help="Largest fraction of images of known classes that may be rejected as unknown.",
)
@guarantee_option
@click.option(
    "--fdr",
    type=ALPHA,
    metavar="Q",
    help="Reject as unknown so that at most this fraction of the rejected images is of known classes (Benjamini-Hochberg over "
    "all INPUTs), instead of by --alpha.",
)
@click.option("--top-k", type=click.IntRange(1), help="Report only the k most probable classes.  [default: all]")
@click.option(
    "--prior",
    metavar="uniform|FILE|adapt",
    help="Class prior: uniform, from a .json or .csv file, or estimated from these images.  [default: as in training]",
)
@click.option(
    "--mask",
    metavar="MASK|transparent",
    help="Use only some pixels: those that are white in the image MASK, or those of each image that are not transparent.",
)
@click.option("--data", metavar="DATA", help="Where the training images are now; p-values with --mask need them.")
def command(
    model: ModelArgument,
    inputs: tuple[str, ...],
    prior: str | None,
    mask: str | None,
    data: str | None,
    **options: Any,
) -> None:
    """Classify each INPUT, an image or a folder of images, or reject it as unknown.

    Exit code 1 if an image could not be read; all others are classified.
    """
    from likely.data.sources.folder import find_images

    if prior == ADAPT and mask is not None:
        raise click.UsageError("--prior adapt uses whole images; with --mask, give a prior file or uniform")
    decision = _DecisionOptions(*map(options.pop, ("alpha", "guarantee", "top_k", "fdr")))
    if decision.fdr is not None and mask is not None:
        raise click.UsageError("--fdr compares the p-values of whole images; leave out --mask")
    if data is not None and mask is None:
        raise click.UsageError("--data is used only with --mask")
    destination = _OutputOptions(**options)
    classifier = model.classifier_of_images("classify")
    paths = find_images(inputs)
    if not paths:
        raise click.UsageError(f"there are no images in {', '.join(inputs)}")
    if prior == ADAPT or decision.fdr is not None:
        found = _joint_predictions(classifier, paths, prior, decision)
    else:
        arguments = {name: getattr(decision, name) for name in ("alpha", "guarantee", "top_k")}
        arguments["log_prior"] = log_prior(classifier, prior)
        found = _predictions(classifier, paths, arguments, _mask_arguments(classifier, model.folder, mask, data))
    for warning in _calibration_warnings(classifier, decision.alpha, decision.guarantee) if mask is None else ():
        click.echo(warning, err=True)
    n_failed = destination.write(found)
    sys.exit(1 if n_failed else 0)


@dataclass(frozen=True)
class _DecisionOptions:
    """The significance level and its guarantee, the number of classes that a prediction lists, and the false discovery rate."""

    alpha: float
    guarantee: Guarantee
    top_k: int | None
    fdr: float | None


@dataclass(frozen=True)
class _OutputOptions:
    """The format and destination of predictions."""

    format: str | None
    out: Path | None
    overwrite: bool

    def __post_init__(self) -> None:
        if self.out is not None and self.out.exists() and not self.overwrite:
            raise click.UsageError(f"{self.out} exists; --overwrite replaces it")
        if self.format == "parquet" and self.out is None:
            raise click.UsageError("--format parquet is binary; name a file with --out")

    def write(self, predictions: Iterator[Prediction]) -> int:
        """Write all predictions, and return the number of failed inputs; their errors also go to stderr."""
        n_failed = 0
        with self._writer() as write:
            for prediction in predictions:
                n_failed += prediction.error is not None
                if prediction.error is not None and not self._shows_errors:
                    click.echo(prediction.error, err=True)
                write(prediction)
            write(None)
        return n_failed

    @property
    def _format(self) -> str:
        from likely.cli.writers import FORMAT_BY_SUFFIX

        if self.format or self.out is None:
            return self.format or "table"
        return FORMAT_BY_SUFFIX.get(self.out.suffix.lower(), "jsonl")

    @property
    def _shows_errors(self) -> bool:
        return self._format == "table" and self.out is None

    @contextmanager
    def _writer(self) -> Iterator[Writer]:
        from likely.cli.writers import WRITERS

        with self.out.open("wb") if self.out else nullcontext(sys.stdout.buffer) as stream:
            yield WRITERS[self._format](stream)


def _calibration_warnings(classifier: Predictor, alpha: float, guarantee: Guarantee) -> Iterator[str]:
    """Yield a warning if there are too few calibration images for the guarantee."""
    from likely.prediction import CalibrationScope
    from likely.reporting.formatting import listing, plural

    if guarantee is Guarantee.OVERALL:
        if n_missing := classifier.decision_rule.image_calibrator.n_missing(alpha):
            yield f"no p-values: alpha {alpha:g} needs {n_missing:,} more calibration images"
        return
    calibrator = classifier.decision_rule.typicality
    scopes, missing = calibrator.scope(alpha), calibrator.n_missing(alpha)
    few = [c for c, scope in enumerate(scopes) if scope is not CalibrationScope.PER_CLASS]
    if not few:
        return
    named = listing(tuple(f"{classifier.labels[c]} {missing[c]:,}" for c in few))
    if scopes[few[0]] is CalibrationScope.POOLED:
        yield (
            f"p-values are pooled over the classes with too few calibration images at alpha {alpha:g}; images missing: {named}"
        )
    else:
        available = plural(len(calibrator.labels), "calibration image")
        needed = math.ceil(1 / alpha - 1e-9)
        yield f"no p-values: {available}, and alpha {alpha:g} needs {needed:,}; images missing: {named}"


def _mask_arguments(classifier: Predictor, folder: Path, mask: str | None, data: str | None) -> MaskArguments:
    """Return a function from a chunk of images to the arguments of `classify` that --mask adds."""
    from likely.cli.masks import TRANSPARENT, alpha_masks, decision_rule_for_mask, load_mask_file

    if mask is None:
        return lambda chunk: {}
    if mask == TRANSPARENT:
        return lambda chunk: {"mask": alpha_masks(classifier, chunk)}
    pixels = load_mask_file(classifier, Path(mask))
    if pixels.all():
        return lambda chunk: {}
    decision_rule = decision_rule_for_mask(classifier, pixels, folder, data)
    return lambda chunk: {"mask": pixels, "decision_rule": decision_rule}


def _predictions(
    classifier: Predictor, paths: list[Path], arguments: Mapping[str, Any], mask_arguments: MaskArguments
) -> Iterator[Prediction]:
    for chunk, batch in _chunks(classifier, paths):
        yield from classifier.classify(batch, **arguments, **mask_arguments(chunk))


def _joint_predictions(
    classifier: Predictor, paths: list[Path], prior: str | None, options: _DecisionOptions
) -> Iterator[Prediction]:
    """Run the network on all images, then return an iterator over predictions that depend on all of them.

    The prior may be the one that they suggest, and --fdr compares their p-values.
    """
    from likely.prediction import Prediction

    inputs, outputs = [], []
    for _, batch in _chunks(classifier, paths):
        inputs.append((batch.readable_names, batch.errors))  # the pixels of all images may not fit into memory
        outputs.append(classifier.outputs(batch.images))
    adapts = prior == ADAPT
    pi = adapted_log_prior(classifier, outputs, options.alpha) if adapts else log_prior(classifier, prior)
    decisions = [classifier.decide(each, pi, options.alpha, options.guarantee) for each in outputs]
    if options.fdr is not None:
        decisions = _with_false_discovery_rate(classifier, decisions, options.fdr)

    def predictions(
        names: Sequence[str], errors: Sequence[LoadError | None], decision: ConformalOutput
    ) -> Iterator[Prediction]:
        found = classifier.predictions(names, decision, options.top_k)
        for error in errors:
            yield Prediction.failed(error.source, error.message, model=classifier.id) if error else next(found)

    return chain.from_iterable(predictions(*each, decision) for each, decision in zip(inputs, decisions, strict=True))


def _with_false_discovery_rate(
    classifier: Predictor, decisions: list[ConformalOutput], q: float
) -> list[ConformalOutput]:
    """Reject by Benjamini-Hochberg over all images, and warn if the calibration images are too few for any rejection."""
    import torch

    from likely.inference.false_discovery import benjamini_hochberg, n_calibration_needed

    p_values, sizes = torch.cat([each.p_value for each in decisions]), [len(each.p_value) for each in decisions]
    smallest = classifier.decision_rule.smallest_p_value(decisions[0].alpha, decisions[0].guarantee)
    needed = n_calibration_needed(p_values, q, smallest)
    if needed is not None:
        click.echo(
            f"no image of {len(p_values):,} can be rejected at a false discovery rate of {q:g} with so few calibration images; "
            f"{needed:,} are needed",
            err=True,
        )
    rejected = torch.split(benjamini_hochberg(p_values, q), sizes)
    return [replace(each, rejected=mask) for each, mask in zip(decisions, rejected, strict=True)]


def _chunks(classifier: Predictor, paths: list[Path]) -> Iterator[tuple[list[Path], ImageBatch]]:
    """Yield chunks of paths with their images; the next chunk is decoded while one is classified."""
    from likely.cli.progress import progress_bar
    from likely.data.image_dataset import prefetch

    chunks = [paths[start : start + CHUNK] for start in range(0, len(paths), CHUNK)]
    with progress_bar("classifying") as progress:
        for i, batch in enumerate(prefetch(classifier.load_images, chunks)):
            yield chunks[i], batch
            progress(i * CHUNK + len(chunks[i]), len(paths))
