"""Robustness: what is left of a classifier's accuracy, honesty and modesty when its images are damaged."""

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
    """How the answers to a set of labeled images were."""

    accuracy: float = Field(description="The share of images whose most probable class is their label.")
    ece: float = Field(description="The mean gap between confidence and accuracy; 0 is honest.")
    unknown_rate: float | None = Field(description="The share turned away as unknown; None without calibration.")


class CorruptionResult(CleanResult):
    """The same of images that one corruption has damaged."""

    corruption: str
    strength: int = Field(description="From 1, barely seen, to 5.")


class Robustness(Options):
    """A table of every corruption at every strength, beside the undamaged images; JSON can hold it."""

    model: str = Field(description="The model that was shown the images.")
    n: int = Field(description="Labeled images, the same for every row.")
    seed: int = Field(description="The seed of the damage.")
    alpha: float = Field(description="The share of undamaged known images that may be called unknown.")
    clean: CleanResult = Field(description="The answers to the images as they are.")
    rows: tuple[CorruptionResult, ...] = Field(description="One for each corruption and strength.")

    @property
    def mean_accuracy(self) -> float:
        """Mean corruption accuracy: every corruption and every strength counts the same.

        It is the plain mean, not relative to another classifier's as in Hendrycks & Dietterich 2019, section 4.
        """
        return sum(row.accuracy for row in self.rows) / len(self.rows)

    @property
    def mean_unknown_rate(self) -> float | None:
        """The same mean of the images turned away as unknown; None without calibration."""
        rates = [row.unknown_rate for row in self.rows if row.unknown_rate is not None]
        return sum(rates) / len(rates) if rates else None

    def of(self, corruption: str) -> tuple[CorruptionResult, ...]:
        """The rows of one corruption, by strength."""
        return tuple(row for row in self.rows if row.corruption == corruption)


def measure_robustness(
    classifier: Predictor, labeled: LabeledImages, *, seed: int, alpha: float, progress: Progress | None = None
) -> Robustness:
    """Show a classifier the labeled images of a part as they are, then under every corruption at every strength.

    `progress` is told how often the images have been judged, and how often they will be. A ValueError if no image has a
    label, or if the model takes vectors.
    """
    known = labeled.labeled()
    if not len(known):
        raise InvalidValueError(
            f"none of {len(labeled)} images has a label; at least one image of a known class was expected"
        )
    kinds = list(product(CORRUPTIONS, STRENGTHS))
    sets = [known.images, *(corrupted(known.images, name, strength, seed) for name, strength in kinds)]
    answers = []
    for images in sets:
        answers.append(_answered(classifier, images, known.labels, alpha))
        if progress is not None:
            progress(len(answers), len(sets))
    clean, *damaged = answers
    return Robustness(
        model=classifier.id or "unsaved",
        n=len(known),
        seed=seed,
        alpha=alpha,
        clean=clean,
        rows=tuple(_row(*kind, answered) for kind, answered in zip(kinds, damaged, strict=True)),
    )


def _answered(classifier: Predictor, images: ImageDataset, labels: Ints, alpha: float) -> CleanResult:
    judgment = classifier.conformal_output(images, alpha=alpha)
    log_posterior = judgment.log_posterior.numpy()
    n_unknown = sum(status is Status.UNKNOWN for status in judgment.statuses)
    return CleanResult(
        accuracy=metrics.accuracy(log_posterior, labels),
        ece=metrics.ece(log_posterior, labels),
        unknown_rate=None if CalibrationScope.NONE in judgment.calibration_scope else n_unknown / len(labels),
    )


def _row(corruption: str, strength: int, answered: CleanResult) -> CorruptionResult:
    return CorruptionResult(corruption=corruption, strength=strength, **answered.model_dump())
