"""--prior: in which mix the classes come, of `likely classify`."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from likely.exceptions import InvalidValueError

if TYPE_CHECKING:
    from torch import Tensor

    from likely.classifier import Predictor
    from likely.classifier.prior_adaptation import PriorAdaptation

ADAPT, UNIFORM = "adapt", "uniform"
FORMS = 'a .json file such as {"boot": 0.8, "bag": 0.2}, or a .csv file with the columns label and share'


def log_prior(classifier: Predictor, asked: str | None, paths: list[Path], alpha: float) -> Tensor | None:
    """log π (K,) as --prior asks for it; None for that of the training."""
    from likely.classifier.prior_adaptation import adapt_prior
    from likely.inference.posterior import log_uniform

    if asked is None:
        return None
    if asked == UNIFORM:
        return log_uniform(len(classifier.labels))
    if asked != ADAPT:
        return load_prior_file(classifier, Path(asked))
    images = classifier.load_images(paths).images
    found = adapt_prior(classifier, (outputs for _, outputs in classifier.batches(images)), alpha)
    print_prior(classifier, found)
    return found.prior_estimate.log_prior


def load_prior_file(classifier: Predictor, path: Path) -> Tensor:
    """The shares that a file gives; a UsageError says what is wrong with it."""
    from likely.inference.label_shift import log_prior_from_fractions

    try:
        shares = _read(path)
        for label in shares:
            classifier.index(label)
        missing = [label for label in classifier.labels if label not in shares]
        if missing:
            raise InvalidValueError(
                f"there is no share for {', '.join(map(repr, missing))}; a share for each class was expected"
            )
        return log_prior_from_fractions([shares[label] for label in classifier.labels], classifier.labels)
    except ValueError as error:
        raise click.UsageError(f"--prior {path}: {error}") from error


def print_prior(classifier: Predictor, found: PriorAdaptation) -> None:
    """What the images say of the class mix, on stderr."""
    from likely.cli.console import console

    mix, labels = found.prior_estimate, classifier.labels
    left_out = f"; {found.n_unknown:,} unknown ones left out" if found.n_unknown else ""
    console.print(f"class mix of {mix.n_used:,} images{left_out}", markup=False)
    if not mix.shifted:
        console.print(f"  like that of the training (p = {mix.p_value:.2g}): kept", markup=False)
    else:
        trained = classifier.log_prior.exp().tolist()
        rows = zip(labels, trained, mix.estimate.tolist(), mix.low.tolist(), mix.high.tolist(), strict=True)
        for label, before, now, low, high in rows:
            console.print(
                f"  {label}: {now:.1%} (99% interval {low:.1%} to {high:.1%}), {before:.1%} in training", markup=False
            )
    for a, b in mix.identifiability.confused:
        console.print(f"  the shares of {labels[a]!r} and {labels[b]!r} cannot be told apart", markup=False)


def _read(path: Path) -> Mapping[str, float]:
    """Shares by label; a ValueError if the file has none."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise InvalidValueError(
            f"cannot be read ({(error.strerror or str(error)).lower()}); {UNIFORM}, {ADAPT}, or {FORMS} was expected"
        ) from error
    try:
        if path.suffix.lower() == ".json":
            return {str(label): float(share) for label, share in json.loads(text).items()}
        return {row["label"]: float(row["share"]) for row in csv.DictReader(text.splitlines())}
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InvalidValueError(f"holds no shares; {FORMS} was expected") from error
