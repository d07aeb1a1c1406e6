"""What a report shows, as plain frozen values: strings, numbers and numpy arrays.

K is the number of classes; images are (N, C, H, W) uint8, gray or RGB; labels are (N,) class indices. Every part of
ReportContent after the class names may be absent, and its section is absent with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from likely.base import LikelihoodType
from likely.evaluation.label_errors import LabelIssue
from likely.evaluation.metrics import Floats, Ints, PerClass, Reliability, beta_binomial_bound
from likely.evaluation.summary import Metrics
from likely.prediction import CalibrationScope
from likely.reporting.html.blocks import Section

Images = NDArray[np.uint8]


@dataclass(frozen=True)
class ReportHeader:
    """Who the model is: `id` such as fashion@3f2a; `evidence` None for a model without a likelihood."""

    name: str
    id: str
    family: str
    date: str
    summary: str
    likelihood_type: LikelihoodType | None
    license: str = "other"


@dataclass(frozen=True, eq=False)
class Curves:
    """The training: every array is (E,), one value an epoch; a loss and a validation of one name share a chart."""

    epochs: Ints
    losses: Mapping[str, Floats]
    validation: Mapping[str, Floats] = field(default_factory=dict)
    learning_rate: Floats | None = None


@dataclass(frozen=True, eq=False)
class FalseAlarms:
    """Known test images that were called unknown at `alpha`, class by class: (K,) counts each."""

    alpha: float
    calibration: CalibrationScope
    n_test: Ints
    n_rejected: Ints
    n_calibration: Ints
    level: float = 0.95

    @property
    def bounds(self) -> Ints:
        """The most alarms of each class, (K,), that chance explains: with probability `level` no class has more."""
        level = 1 - (1 - self.level) / max(1, int(np.count_nonzero(self.n_test)))
        pairs = zip(self.n_test.tolist(), self.n_calibration.tolist(), strict=True)
        return np.array([beta_binomial_bound(n, m, self.alpha, level) for n, m in pairs], dtype=np.int64)

    @property
    def pooled_bound(self) -> int:
        """The most alarms over all classes together, where the promise is made for all of them together."""
        return beta_binomial_bound(int(self.n_test.sum()), int(self.n_calibration.sum()), self.alpha, self.level)


@dataclass(frozen=True, eq=False)
class PValues:
    """The p-values of the answers, the largest over the classes: (N,) of known test images, (M,) of unknown ones."""

    known: Floats
    unknown: Floats | None = None


@dataclass(frozen=True, eq=False)
class Samples:
    """Images that the model drew, (N, C, H, W), and for which class, (N,)."""

    images: Images
    labels: Ints


@dataclass(frozen=True, eq=False)
class Reconstructions:
    """Test images and what the model makes of them after encoding and decoding, (N, C, H, W) each."""

    originals: Images
    reconstructions: Images
    labels: Ints


@dataclass(frozen=True, eq=False)
class MostAtypical:
    """The test images with the smallest p-values, the smallest first; `p_values` and `labels` are (N,)."""

    images: Images
    p_values: Floats
    labels: Ints


@dataclass(frozen=True, eq=False)
class MostConfidentErrors:
    """The test images with the highest probability on a wrong class, the highest first; the rest are (N,)."""

    images: Images
    labels: Ints
    predicted: Ints
    probability: Floats


@dataclass(frozen=True, eq=False)
class LabelIssues:
    """Training images whose label is in doubt, the surest first, with their files where they have any."""

    images: Images
    issues: tuple[LabelIssue, ...]
    files: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class DataSummary:
    """What was read: `counts` has (K,) for every part (train, test, …), `skipped` a reason for every file left out."""

    source: str
    shape: tuple[int, ...]
    counts: Mapping[str, Ints]
    skipped: Mapping[str, str] = field(default_factory=dict)
    n_unlabeled: int = 0


class Option(NamedTuple):
    """One option as it was set, and what it means."""

    name: str
    value: str
    meaning: str


@dataclass(frozen=True)
class Provenance:
    """What it takes to make the model again; `versions` has one of every package that matters."""

    command: str
    versions: Mapping[str, str]
    machine: str
    seed: int
    minutes: float
    threads: int
    precision: str


@dataclass(frozen=True, eq=False)
class ReportContent:
    """Everything that a report shows, and a card.

    `confusion` is (K, K) with the labels in its rows, `options` are grouped under titles, `notes` are further warnings
    in words, and `extra` are sections of other makers, each shown at the end of its group.
    """

    header: ReportHeader
    class_names: tuple[str, ...]
    metrics: Metrics | None = None
    curves: Curves | None = None
    confusion: Ints | None = None
    reliability: Reliability | None = None
    false_alarms: FalseAlarms | None = None
    p_values: PValues | None = None
    per_class: PerClass | None = None
    samples: Samples | None = None
    reconstructions: Reconstructions | None = None
    most_atypical: MostAtypical | None = None
    most_confident_errors: MostConfidentErrors | None = None
    label_issues: LabelIssues | None = None
    data: DataSummary | None = None
    options: Mapping[str, tuple[Option, ...]] = field(default_factory=dict)
    provenance: Provenance | None = None
    notes: tuple[str, ...] = ()
    extra: tuple[Section, ...] = ()

    def with_note(self, note: str) -> ReportContent:
        """The same with one warning more."""
        return replace(self, notes=(*self.notes, note))

    def with_section(self, section: Section | None) -> ReportContent:
        """The same with one section more, if there is one."""
        return self if section is None else replace(self, extra=(*self.extra, section))
