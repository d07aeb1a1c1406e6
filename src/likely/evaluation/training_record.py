"""What is remembered of how a model was made: kept in its model.json, shown in its report and its card."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from pydantic import Field
from torch import Tensor

from likely.checkpoint import ModelFolder, write_text
from likely.evaluation.memorization import Memorization
from likely.evaluation.repeated_splits import RepeatResult
from likely.evaluation.sample_quality import SampleQuality
from likely.evaluation.synthetic_augmentation import AugmentationResult
from likely.inference.drift import quantiles
from likely.options import Options
from likely.reporting.html.content import Curves, DataSummary, Provenance

HISTORY = "history.csv"
Row = Mapping[str, float]


class ReferencePValues(Options):
    """The p-values of n held-out images, as quantiles from the least to the largest: what later ones are compared with."""

    n: int
    quantiles: tuple[float, ...]

    @classmethod
    def from_p_values(cls, p_values: Tensor) -> ReferencePValues | None:
        """Of p-values (N,); None if there are none."""
        values = p_values[~p_values.isnan()]
        return cls(n=len(values), quantiles=tuple(quantiles(values))) if len(values) else None


class TrainingRecord(Options):
    """The circumstances of one training, in words and numbers that JSON can hold."""

    date: str = Field(description="The day it ended.")
    command: str = Field(description="The command or call that made it.")
    source: str = Field(description="The data it learned from, as they were named.")
    counts: dict[str, list[int]] = Field(description="Images of each class, part by part.")
    n_unlabeled: int = 0
    skipped: dict[str, str] = Field({}, description="A sentence for everything that was left out.")
    versions: dict[str, str] = Field({}, description="Versions of the packages that matter.")
    machine: str = ""
    seed: int = 0
    minutes: float = 0.0
    threads: int = 1
    precision: str = "float32"
    note: str = Field("", description="What the report's figures were measured on, where that needs saying.")

    added_classes: dict[str, int] = Field(
        {}, description="Classes that were learned later, without another training, and from how many images each."
    )
    sample_quality: SampleQuality | None = Field(
        None, description="What judges say of the images that the model draws."
    )
    repeats: tuple[RepeatResult, ...] = Field((), description="The same training on other splits, if it was repeated.")
    synthetic_augmentation: AugmentationResult | None = Field(
        None, description="What generated images did to it, if some were tried."
    )
    reference_p_values: ReferencePValues | None = Field(
        None, description="How typical the model finds images that it has not learned from."
    )
    memorization: Memorization | None = Field(None, description="How well the model gives its training images away.")

    def provenance(self) -> Provenance:
        """What it takes to make the model again."""
        kept = ("command", "versions", "machine", "seed", "minutes", "threads", "precision")
        return Provenance(**{name: getattr(self, name) for name in kept})

    def with_new_class(self, name: str, n: int) -> TrainingRecord:
        """The same with a class besides, the last, that was learned later from n images."""
        counts = {part: [*of, n if part == "train" else 0] for part, of in self.counts.items()}
        return self.model_copy(update={"counts": counts, "added": self.added_classes | {name: n}})

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader of its figures has to know."""
        later = ", ".join(f"{name} (from {n:,} images)" for name, n in self.added_classes.items())
        said = f"Learned later, without training the rest again: {later}." if later else ""
        return tuple(filter(None, (self.note, said)))

    def data(self, shape: tuple[int, ...]) -> DataSummary:
        """What was read."""
        counts = {part: np.array(n, np.int64) for part, n in self.counts.items()}
        return DataSummary(self.source, shape, counts, self.skipped, self.n_unlabeled)


def write_history(folder: Path, rows: Sequence[Row]) -> None:
    """history.csv: a line an epoch."""
    lines = io.StringIO(newline="")
    writer = csv.DictWriter(lines, list(dict.fromkeys(name for row in rows for name in row)))
    writer.writeheader()
    writer.writerows(rows)
    write_text(folder / HISTORY, lines.getvalue())


def read_history(folder: Path) -> list[dict[str, float]]:
    """What `write_history` wrote; nothing where there is no such file."""
    files = ModelFolder(folder)
    if not files.has(HISTORY):
        return []
    lines = io.StringIO(files.read(HISTORY).decode(), newline="")
    return [{name: float(value) for name, value in row.items() if value} for row in csv.DictReader(lines)]


def curves(rows: Sequence[Row]) -> Curves | None:
    """History rows as the report draws them: columns "loss/…" and "validation/…" by their names."""
    if not rows:
        return None
    column = {name: np.array([row.get(name, np.nan) for row in rows], np.float64) for row in rows for name in row}
    return Curves(
        epochs=column["epoch"].astype(np.int64),
        losses={name.removeprefix("loss/"): v for name, v in column.items() if name.startswith("loss/")},
        validation={
            name.removeprefix("validation/"): v for name, v in column.items() if name.startswith("validation/")
        },
        learning_rate=column.get("learning_rate"),
    )
