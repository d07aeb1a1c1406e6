"""What a benchmark measured: a Result for each family and seed, one line of JSON, and what a page shows beside them."""

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
    """What was asked: results that differ in any of it were measured otherwise, and share no table."""

    data: str = Field(description="DATA, as it was named.")
    family: str
    options: dict[str, Any] = Field(description="Every option of the family.")
    seed: int
    minutes: float | None = Field(None, description="Minutes that the training was given.")
    epochs: int | None = Field(None, description="Epochs that it was given instead.")
    images: dict[str, Any] = Field({}, description="What was asked of the images: size and color.")
    samples: int | None = Field(None, description="Images to draw; as many as there are to compare with, if not said.")
    extractor: str | None = Field(
        None, description="What fidelity is measured in; none for a family that draws nothing."
    )


class ReliabilityBins(Options):
    """A reliability diagram as JSON holds it: None where a bin is empty."""

    counts: tuple[int, ...]
    confidence: tuple[float | None, ...]
    accuracy: tuple[float | None, ...]

    @classmethod
    def from_reliability(cls, found: Reliability) -> Self:
        means = ([None if np.isnan(m) else float(m) for m in row] for row in (found.confidence, found.accuracy))
        confidence, accuracy = means
        return cls(counts=tuple(found.counts.tolist()), confidence=tuple(confidence), accuracy=tuple(accuracy))

    @property
    def reliability(self) -> Reliability:
        return Reliability(
            np.array(self.counts, np.int64), np.array(self.confidence, float), np.array(self.accuracy, float)
        )


class AccuracyMetrics(Options):
    """How good the answers are: the figures of `likely evaluate`, and how far ahead of the twin they are."""

    n: int
    skipped: int
    accuracy: float
    balanced_accuracy: float
    nll: float
    ece: float
    brier: float
    bits_per_dim: float | None
    likelihood_kind: str | None
    false_alarm_rate: float | None
    alpha: float
    ambiguous_rate: float | None
    delta_vs_baseline: float | None = Field(None, description="Accuracy less the twin's on the same images.")
    delta_interval: tuple[float, float] | None = Field(None, description="What that may be, with 95% confidence.")
    reliability: ReliabilityBins


class EfficiencyMetrics(Options):
    """What the answers cost, on one machine."""

    n_parameters: int = Field(description="Numbers that the model keeps.")
    n_train: int = Field(description="Training images.")
    epochs_done: float | None = Field(description="Passes over them; None if one pass of measuring was all.")
    minutes_spent: float
    train_images_per_second: float | None
    peak_memory_gb: float | None = Field(description="Of the whole process while it trained; None if nobody watched.")
    images_per_second: float = Field(description="Of predict_proba: the median of several repeats.")
    relative_to_baseline: float | None = Field(
        description="The same as a share of the twin's, measured in turn: the median of pairs."
    )
    predictions_per_second: float = Field(description="Of answer, which judges each image as well.")
    n_timed: int = Field(description="Images that were timed together.")
    n_repeats: int


class Result(ResultKey):
    """One line of results.jsonl: what was asked, what made it and where, and what was measured, or the `error` instead."""

    model_config = ConfigDict(frozen=True, extra="ignore")  # a later version may know more

    date: str
    version: str = Field(description="Of the package.")
    commit: str | None = Field(None, description="Where the package runs from a checkout.")
    machine: str
    threads: int
    left_out: int = Field(0, description="Files of DATA that could not be used.")
    model: str | None = Field(None, description="The model's name and the first digits of its weights' hash.")
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
    """How a training went: the accuracy on validation images, (E,), after so many minutes, (E,)."""

    minutes: Floats
    accuracy: Floats


@dataclass(frozen=True, eq=False)
class Comparison:
    """Everything that the page and the table show.

    `results` are in the order of seeds and families, failures among them. `panels` are images side by side under their
    titles, the real ones first, n of each of the `shown` classes: (n, C, H, W). `settings` says in words which options of a
    family were not left as they are, and `notes` are further warnings.
    """

    data: str
    baseline: str
    families: tuple[str, ...]  # the twin first
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

    def of(self, family: str) -> tuple[Result, ...]:
        """The family's results that are none of a failure."""
        return tuple(result for result in self.results if result.family == family and result.error is None)

    @property
    def measured(self) -> tuple[str, ...]:
        """The families of which there is a result."""
        return tuple(family for family in self.families if self.of(family))

    @property
    def tried(self) -> tuple[str, ...]:
        """The families of which there is a result or a failure."""
        there = {result.family for result in self.results}
        return tuple(family for family in self.families if family in there)
