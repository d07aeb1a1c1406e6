"""Results of a benchmark, one JSON line per family and seed, and the content of the comparison page."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, Field

from likely.evaluation.fidelity import Fidelity
from likely.evaluation.metrics import Floats, Reliability
from likely.evaluation.sample_quality import SampleQuality
from likely.options import Options

Pixels = NDArray[np.uint8]


class ResultKey(Options):
    """The configuration of a measurement; only results of the same configuration share a table."""

    data: str = Field(description="DATA, as named by the user.")
    family: str
    options: dict[str, Any] = Field(description="All options of the family.")
    seed: int
    minutes: float | None = Field(None, description="Minutes of training.")
    epochs: int | None = Field(None, description="Epochs of training, instead of minutes.")
    images: dict[str, Any] = Field({}, description="Image options: size and color.")
    samples: int | None = Field(None, description="Images to generate; by default as many as there are real ones.")
    extractor: str | None = Field(None, description="Feature extractor of fidelity; None for the softmax baseline.")


class ReliabilityBins(Options):
    """A reliability diagram for JSON: None where a bin is empty."""

    counts: tuple[int, ...]
    confidence: tuple[float | None, ...]
    accuracy: tuple[float | None, ...]

    @classmethod
    def from_reliability(cls, found: Reliability) -> Self:
        means = (found.confidence, found.accuracy)
        confidence, accuracy = (tuple(None if np.isnan(m) else float(m) for m in row) for row in means)
        return cls(counts=tuple(found.counts.tolist()), confidence=confidence, accuracy=accuracy)

    @property
    def reliability(self) -> Reliability:
        return Reliability(
            np.array(self.counts, np.int64), np.array(self.confidence, float), np.array(self.accuracy, float)
        )


class AccuracyMetrics(Options):
    """Metrics of `likely evaluate`, and the paired difference to the baseline."""

    n: int
    n_groups: int | None = Field(
        None, description="Groups of images, if there are any: intervals are those of new groups."
    )
    skipped: int
    accuracy: float
    accuracy_interval: tuple[float, float] | None = None
    balanced_accuracy: float
    nll: float
    ece: float
    brier: float
    bits_per_dim: float | None
    likelihood_kind: str | None
    false_alarm_rate: float | None
    alpha: float
    ambiguous_rate: float | None
    delta_vs_baseline: float | None = Field(None, description="Accuracy minus that of the baseline on the same images.")
    delta_interval: tuple[float, float] | None = Field(None, description="95% interval of the difference.")
    reliability: ReliabilityBins


class EfficiencyMetrics(Options):
    """Costs of training and prediction, on one machine."""

    n_parameters: int = Field(description="Numbers in the model.")
    n_train: int = Field(description="Training images.")
    epochs_done: float | None = Field(description="Passes over them; None for closed-form families.")
    minutes_spent: float
    train_images_per_second: float | None
    peak_memory_gb: float | None = Field(description="Peak memory of the training process, if measured.")
    images_per_second: float = Field(description="Throughput of predict_proba: the median of several repeats.")
    relative_to_baseline: float | None = Field(
        description="Throughput divided by that of the baseline: the median over pairs."
    )
    predictions_per_second: float = Field(
        description="Throughput of classify, which includes p-values and prediction sets."
    )
    n_timed: int = Field(description="Images per timing.")
    n_repeats: int


class Result(ResultKey):
    """One line of results.jsonl: configuration, environment and measurements, or the `error`."""

    model_config = ConfigDict(frozen=True, extra="ignore")  # later versions may have more fields

    date: str
    version: str = Field(description="Version of the package.")
    commit: str | None = Field(None, description="Commit, if the package runs from a checkout.")
    machine: str
    threads: int
    left_out: int = Field(0, description="Files of DATA that could not be used.")
    model: str | None = Field(None, description="Name of the model and first digits of the hash of its weights.")
    error: str | None = None
    accuracy: AccuracyMetrics | None = None
    efficiency: EfficiencyMetrics | None = None
    fidelity: Fidelity | None = None
    sample_quality: SampleQuality | None = None

    @property
    def key(self) -> ResultKey:
        return ResultKey(**{name: getattr(self, name) for name in ResultKey.model_fields})

    def line(self) -> str:
        return json.dumps(self.model_dump(mode="json"), ensure_ascii=False)


class LearningCurve(NamedTuple):
    """Validation accuracy (E,) after minutes of training (E,)."""

    minutes: Floats
    accuracy: Floats


@dataclass(frozen=True, eq=False)
class Comparison:
    """Content of the comparison page and table.

    `results` are ordered by seed and family, failures included. `panels` hold images by title, the real ones first: n
    images (n, C, H, W) of each of the `shown` classes. `settings` lists the changed options of each family, and `notes` are
    further caveats.
    """

    data: str
    baseline: str
    families: tuple[str, ...]  # the baseline first
    results: tuple[Result, ...]
    command: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    n_classes: int = 0
    shown: tuple[str, ...] = ()
    panels: Mapping[str, Sequence[Pixels]] = field(default_factory=dict)
    learning_curves: Mapping[str, LearningCurve] = field(default_factory=dict)
    settings: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def seeds(self) -> tuple[int, ...]:
        return tuple(dict.fromkeys(result.seed for result in self.results))

    @property
    def failures(self) -> tuple[Result, ...]:
        return tuple(result for result in self.results if result.error is not None)

    @property
    def name(self) -> str:
        """The last component of the path of the data."""
        return self.data.rstrip("/\\").replace("\\", "/").rpartition("/")[2] or self.data

    def of(self, family: str) -> tuple[Result, ...]:
        """Return the successful results of a family."""
        return tuple(result for result in self.results if result.family == family and result.error is None)

    @property
    def measured(self) -> tuple[str, ...]:
        """The families with a successful result."""
        return tuple(family for family in self.families if self.of(family))

    @property
    def tried(self) -> tuple[str, ...]:
        """The families with a result or a failure."""
        tried = {result.family for result in self.results}
        return tuple(family for family in self.families if family in tried)

    @property
    def fidelity_by_seed(self) -> dict[int, list[Fidelity]]:
        """The fidelity measurements of each seed."""
        found: dict[int, list[Fidelity]] = {}
        for result in self.results:
            if result.fidelity is not None:
                found.setdefault(result.seed, []).append(result.fidelity)
        return found

    @property
    def incomparability(self) -> str | None:
        """The reason, as a sentence, why families of one seed cannot share a fidelity table; None if they can."""
        by_seed = self.fidelity_by_seed
        if not by_seed:
            return "No measured family generates images."
        reasons = (first.difference(other) for first, *others in by_seed.values() for other in others)
        reason = next(filter(None, reasons), None)
        return None if reason is None else f"Fidelity metrics are not comparable: {reason}"

    @property
    def difference_between_seeds(self) -> str | None:
        """The reason, as a sentence, why fidelity metrics of different seeds cannot be averaged; None if they can.

        Data without a test split are split again for each seed, so that each seed has other real images.
        """
        firsts = [group[0] for group in self.fidelity_by_seed.values()]
        return next(filter(None, (firsts[0].difference(other) for other in firsts[1:])), None)

    @property
    def is_comparable(self) -> bool:
        """True if all fidelity metrics can be compared, also between seeds."""
        return self.incomparability is None and self.difference_between_seeds is None
