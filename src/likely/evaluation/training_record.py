"""The training record of a model, stored in model.json, and its per-epoch history, stored in history.csv."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import Field
from torch import Tensor

from likely.checkpoint import DOCUMENT, ModelFolder, TrustPolicy, read_document, write_atomically
from likely.evaluation.memorization import Memorization
from likely.evaluation.repeated_splits import RepeatResult
from likely.evaluation.sample_quality import SampleQuality
from likely.evaluation.synthetic_augmentation import AugmentationResult
from likely.exceptions import CheckpointError, DataError
from likely.inference.drift import quantiles
from likely.options import Options
from likely.prediction import CalibrationMethod

HISTORY = "history.csv"
Row = Mapping[str, float]


class ReferencePValues(Options):
    """Quantiles of the p-values of n held-out images, ascending: the reference for drift detection."""

    n: int
    quantiles: tuple[float, ...]

    @classmethod
    def from_p_values(cls, p_values: Tensor) -> ReferencePValues | None:
        """Summarize p-values (N,), NaN excluded; None if there are none."""
        values = p_values[~p_values.isnan()]
        return cls(n=len(values), quantiles=tuple(quantiles(values))) if len(values) else None


class RecalibrationRecord(Options):
    """Images that the p-values were calibrated with after the training."""

    date: str
    command: str
    source: str = Field(description="Data, as named by the user.")
    n_images: int
    n_labeled: int
    classes: tuple[str, ...] = Field((), description="Classes whose p-values the labeled images calibrate.")
    temperature_before: float


class CalibrationSize(Options):
    """Images that calibrate the p-values: all of them, or one of each group of similar images."""

    method: CalibrationMethod = Field(description="Conformal method.")
    n: int = Field(description="Images set apart for calibration, or in the folds of cross-conformal prediction.")
    n_calibrating: int = Field(description="Images whose scores calibrate: one of each group.")
    is_by_group: bool = Field(description="True if the images are in groups.")


class TrainingRecord(Options):
    """Data, command, environment and diagnostics of one training, as JSON-compatible values."""

    date: str = Field(description="Day on which training ended.")
    command: str = Field(description="Command or call that started the training.")
    source: str = Field(description="Training data, as named by the user.")
    counts: dict[str, list[int]] = Field(description="Images of each class, for each split.")
    n_groups: dict[str, int] = Field(
        {}, description="Groups of images that stay together, for each split, if there are any."
    )
    calibration: CalibrationSize | None = Field(None, description="Images that calibrate the p-values.")
    n_unlabeled: int = 0
    skipped: dict[str, str] = Field({}, description="The reason for each file that was left out.")
    versions: dict[str, str] = Field({}, description="Versions of the main packages.")
    machine: str = ""
    seed: int = 0
    minutes: float = 0.0
    threads: int = 1
    precision: str = "float32"
    note: str = Field("", description="A caveat about the images that the metrics were measured on.")

    added_classes: dict[str, int] = Field(
        {}, description="Classes added after training, with the number of their images."
    )
    added_images: dict[str, int] = Field({}, description="Images by which classes of the training were improved later.")
    sample_quality: SampleQuality | None = Field(
        None, description="Class consistency and near-duplicates of generated images."
    )
    repeats: tuple[RepeatResult, ...] = Field((), description="Results of trainings on other random splits.")
    synthetic_augmentation: AugmentationResult | None = Field(
        None, description="Effect of training on generated images."
    )
    reference_p_values: ReferencePValues | None = Field(None, description="p-values of held-out images.")
    recalibration: RecalibrationRecord | None = Field(None, description="The last calibration after the training.")
    memorization: Memorization | None = Field(None, description="Membership inference and nearest-neighbor tests.")

    def with_images(self, c: int, name: str, n: int) -> TrainingRecord:
        """Return the record with n further images of class c, which is a new one if it is the last and not yet counted."""
        is_new = all(c >= len(of_class) for of_class in self.counts.values())
        counts = {split: [*of_class, 0] if is_new else list(of_class) for split, of_class in self.counts.items()}
        counts["train"][c] += n
        field = "added_classes" if is_new or name in self.added_classes else "added_images"
        before: dict[str, int] = getattr(self, field)
        return self.model_copy(update={"counts": counts, field: before | {name: before.get(name, 0) + n}})


def write_history(folder: Path, rows: Sequence[Row]) -> None:
    """Write history.csv, one line per epoch."""
    lines = io.StringIO(newline="")
    writer = csv.DictWriter(lines, list(dict.fromkeys(name for row in rows for name in row)))
    writer.writeheader()
    writer.writerows(rows)
    write_atomically(folder / HISTORY, lines.getvalue().encode())


def read_history(folder: Path) -> list[dict[str, float]]:
    """Return the rows of history.csv, one per epoch; none if the file does not exist. Raise CheckpointError for a bad cell."""
    files = ModelFolder(folder)
    if not files.has(HISTORY):
        return []
    try:
        lines = io.StringIO(files.read(HISTORY).decode(), newline="")
        return [{name: float(value) for name, value in row.items() if value} for row in csv.DictReader(lines)]
    except (TypeError, ValueError, csv.Error) as error:  # TypeError: more cells than columns
        if isinstance(error, CheckpointError):  # of decryption
            raise
        raise CheckpointError(f"{folder / HISTORY} is damaged ({error}); delete it, or copy it again") from None


def load_record(folder: Path, trust: TrustPolicy | None = None) -> TrainingRecord:
    """Return the training record of a model folder; DataError if it was saved from Python."""
    return TrainingRecord.from_stored(*stored_field(folder, "record", trust))


def stored_field(folder: Path, name: str, trust: TrustPolicy | None = None) -> tuple[object, str]:
    """Return a field of model.json that only `likely train` writes, and its place; DataError if it is missing."""
    document = read_document(folder, trust)
    if document.get(name) is None:
        raise DataError(
            f"{folder} was saved from Python, and does not record what it was trained on; `likely train` does"
        )
    return document[name], f"{folder / DOCUMENT}: {name}"
