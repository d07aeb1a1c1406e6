"""Robustness: accuracy, calibration and rejection on corrupted images."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

from pydantic import Field

from likely.classifier import Predictor
from likely.data.dataset import LabeledImages
from likely.data.image_dataset import ImageDataset
from likely.evaluation import metrics
from likely.evaluation.corruptions import CORRUPTIONS, STRENGTHS, corrupted
from likely.evaluation.metrics import Ints
from likely.exceptions import InvalidValueError
from likely.options import Options
from likely.prediction import CalibrationScope, Status

Progress = Callable[[int, int], None]


class CleanResult(Options):
    """Metrics on a set of labeled images."""

    accuracy: float = Field(description="Fraction of images whose predicted class is their label.")
    ece: float = Field(description="Expected calibration error; 0 is perfectly calibrated.")
    unknown_rate: float | None = Field(
        description="Fraction of the images that are rejected; None without calibration."
    )


class CorruptionResult(CleanResult):
    """Metrics on images with one corruption."""

    corruption: str
    strength: int = Field(description="From 1, barely visible, to 5.")


class Robustness(Options):
    """Metrics for every corruption at every strength, and for the clean images."""

    model: str = Field(description="The model that was measured.")
    n: int = Field(description="Labeled images, the same for every row.")
    seed: int = Field(description="Seed of the corruptions.")
    alpha: float = Field(description="False-alarm rate on clean known images.")
    clean: CleanResult = Field(description="Metrics on the clean images.")
    rows: tuple[CorruptionResult, ...] = Field(description="One row for each corruption and strength.")

    @property
    def mean_accuracy(self) -> float:
        """Mean accuracy over all corruptions and strengths.

        A plain mean, not relative to another classifier as in Hendrycks & Dietterich 2019, section 4.
        """
        return sum(row.accuracy for row in self.rows) / len(self.rows)

    @property
    def mean_unknown_rate(self) -> float | None:
        """Mean rejection rate over all corruptions and strengths; None without calibration."""
        rates = [row.unknown_rate for row in self.rows if row.unknown_rate is not None]
        return sum(rates) / len(rates) if rates else None

    def of(self, corruption: str) -> tuple[CorruptionResult, ...]:
        """Return the rows of one corruption, by strength."""
        return tuple(row for row in self.rows if row.corruption == corruption)


def measure_robustness(
    classifier: Predictor, labeled: LabeledImages, *, seed: int, alpha: float, progress: Progress | None = None
) -> Robustness:
    """Measure a classifier on labeled images without corruption, then with every corruption at every strength.

    `progress` receives the number of finished passes and their total. Raise InvalidValueError if no image has a label or if
    the model takes vectors.
    """
    known = labeled.labeled()
    if not len(known):
        raise InvalidValueError(
            f"none of {len(labeled)} images has a label; at least one image of a known class was expected"
        )
    kinds = list(product(CORRUPTIONS, STRENGTHS))
    sets = [known.images, *(corrupted(known.images, name, strength, seed) for name, strength in kinds)]
    results = []
    for images in sets:
        results.append(_measured(classifier, images, known.labels, alpha))
        if progress is not None:
            progress(len(results), len(sets))
    clean, *on_corrupted = results
    return Robustness(
        model=classifier.id or "unsaved",
        n=len(known),
        seed=seed,
        alpha=alpha,
        clean=clean,
        rows=tuple(_row(*kind, result) for kind, result in zip(kinds, on_corrupted, strict=True)),
    )


def _measured(classifier: Predictor, images: ImageDataset, labels: Ints, alpha: float) -> CleanResult:
    output = classifier.conformal_output(images, alpha=alpha)
    log_posterior = output.log_posterior.numpy()
    n_unknown = sum(status is Status.UNKNOWN for status in output.statuses)
    return CleanResult(
        accuracy=metrics.accuracy(log_posterior, labels),
        ece=metrics.ece(log_posterior, labels),
        unknown_rate=None if output.scope is CalibrationScope.NONE else n_unknown / len(labels),
    )


def _row(corruption: str, strength: int, result: CleanResult) -> CorruptionResult:
    return CorruptionResult(corruption=corruption, strength=strength, **result.model_dump())
