"""The option --prior: the class prior p(c) of `likely classify`."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from likely.exceptions import InvalidValueError

if TYPE_CHECKING:
    from torch import Tensor

    from likely.base import ModelOutputs
    from likely.classifier import Predictor
    from likely.classifier.prior_adaptation import PriorAdaptation

ADAPT, UNIFORM = "adapt", "uniform"
FORMATS = 'a .json file such as {"boot": 0.8, "bag": 0.2}, or a .csv file with the columns label and fraction'


def log_prior(classifier: Predictor, prior: str | None) -> Tensor | None:
    """Return log p(c), (K,), for --prior uniform or FILE; None for the training prior."""
    from likely.inference.posterior import log_uniform

    if prior is None:
        return None
    if prior == UNIFORM:
        return log_uniform(len(classifier.labels))
    return _load_prior_file(classifier, Path(prior))


def adapted_log_prior(classifier: Predictor, batches: Iterable[ModelOutputs], alpha: float) -> Tensor:
    """Estimate log p(c), (K,), for --prior adapt, and print the estimate."""
    from likely.classifier.prior_adaptation import adapt_prior

    adaptation = adapt_prior(classifier, batches, alpha)
    _print_prior(classifier, adaptation)
    return adaptation.prior_estimate.log_prior


def _load_prior_file(classifier: Predictor, path: Path) -> Tensor:
    from likely.inference.label_shift import log_prior_from_fractions

    try:
        fractions = _read(path)
        for label in fractions:
            classifier.index(label)
        missing = [label for label in classifier.labels if label not in fractions]
        if missing:
            raise InvalidValueError(f"{', '.join(map(repr, missing))} missing; a fraction for every class was expected")
        return log_prior_from_fractions([fractions[label] for label in classifier.labels], classifier.labels)
    except InvalidValueError as error:
        raise click.UsageError(f"--prior {path}: {error}") from error


def _read(path: Path) -> Mapping[str, float]:
    """Return the fraction of each label; an InvalidValueError if the file cannot be read or has another format."""
    try:
        text = path.read_text(encoding="utf-8")
        if path.suffix.lower() == ".json":
            return {str(label): float(fraction) for label, fraction in json.loads(text).items()}
        return {row["label"]: float(row["fraction"]) for row in csv.DictReader(text.splitlines())}
    except OSError as error:
        raise InvalidValueError(
            f"cannot be read ({(error.strerror or str(error)).lower()}); {UNIFORM}, {ADAPT}, or {FORMATS} was expected"
        ) from error
    except (AttributeError, KeyError, TypeError, ValueError) as error:  # of a file in another format
        raise InvalidValueError(f"contains no prior; {FORMATS} was expected") from error


def _print_prior(classifier: Predictor, adaptation: PriorAdaptation) -> None:
    """Print the estimated prior with 99% intervals to stderr."""
    from likely.cli.console import console

    prior, labels = adaptation.prior_estimate, classifier.labels
    excluded = f"; {adaptation.n_unknown:,} unknown ones excluded" if adaptation.n_unknown else ""
    lines = [f"class prior of {prior.n_used:,} images{excluded}"]
    if not prior.shifted:
        lines.append(f"  no shift detected (p = {prior.p_value:.2g}): the training prior is used")
    else:
        before = classifier.log_prior.exp().tolist()
        rows = zip(labels, before, prior.estimate.tolist(), prior.low.tolist(), prior.high.tolist(), strict=True)
        lines += [
            f"  {label}: {now:.1%} (99% interval {low:.1%} to {high:.1%}), {trained:.1%} in training"
            for label, trained, now, low, high in rows
        ]
    for a, b in prior.identifiability.confused:
        lines.append(f"  the fractions of {labels[a]!r} and {labels[b]!r} cannot be distinguished")
    for line in lines:
        console.print(line, markup=False)
