"""Content of a report, as frozen values: strings, numbers and numpy arrays.

K is the number of classes; images are (N, C, H, W) uint8, grayscale or RGB; labels are (N,) class indices. Every field of
ReportContent after the class names is optional; the report omits sections without content.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from likely.base import LikelihoodType
from likely.evaluation.label_errors import LabelIssue
from likely.evaluation.metrics import Floats, Ints, Metrics, PerClass, Reliability, beta_binomial_bound
from likely.prediction import CalibrationScope
from likely.reporting.html.blocks import Section

Images = NDArray[np.uint8]


@dataclass(frozen=True)
class ReportHeader:
    """Identity of the model: `id` such as fashion@3f2a; `likelihood_type` is None for a model without a likelihood."""

    name: str
    id: str
    family: str
    date: str
    summary: str
    likelihood_type: LikelihoodType | None
    license: str = "other"


@dataclass(frozen=True, eq=False)
class Curves:
    """Training history: each array is (E,), one value per epoch; `losses` and `validation` of one name form one chart."""

    epochs: Ints
    losses: Mapping[str, Floats]
    validation: Mapping[str, Floats] = field(default_factory=dict)
    learning_rate: Floats | None = None


@dataclass(frozen=True, eq=False)
class FalseAlarms:
    """Known test images rejected as unknown at false-alarm rate `alpha`: counts per class, (K,)."""

    alpha: float
    scope: CalibrationScope
    n_test: Ints
    n_rejected: Ints
    n_calibration: Ints
    level: float = 0.95

    @property
    def bounds(self) -> Ints:
        """Upper bounds on the rejections of each class, (K,), that hold for all classes together with probability `level`."""
        level = 1 - (1 - self.level) / max(1, int(np.count_nonzero(self.n_test)))
        pairs = zip(self.n_test.tolist(), self.n_calibration.tolist(), strict=True)
        return np.array([beta_binomial_bound(n, m, self.alpha, level) for n, m in pairs], dtype=np.int64)

    @property
    def pooled_bound(self) -> int:
        """Upper bound on the rejections over all classes, for a marginal guarantee."""
        return beta_binomial_bound(int(self.n_test.sum()), int(self.n_calibration.sum()), self.alpha, self.level)


@dataclass(frozen=True, eq=False)
class PValues:
    """Largest p-values over the classes: (N,) of known test images, (M,) of unknown images."""

    known: Floats
    unknown: Floats | None = None


@dataclass(frozen=True, eq=False)
class Samples:
    """Generated images (N, C, H, W) and their classes (N,)."""

    images: Images
    labels: Ints


@dataclass(frozen=True, eq=False)
class Reconstructions:
    """Test images and their reconstructions after encoding and decoding, (N, C, H, W) each."""

    originals: Images
    reconstructions: Images
    labels: Ints


@dataclass(frozen=True, eq=False)
class MostAtypical:
    """Test images with the smallest p-values, ascending; `p_values` and `labels` are (N,)."""

    images: Images
    p_values: Floats
    labels: Ints


@dataclass(frozen=True, eq=False)
class MostConfidentErrors:
    """Test images with the highest probability of a wrong class, descending; the other arrays are (N,)."""

    images: Images
    labels: Ints
    predicted: Ints
    probability: Floats


@dataclass(frozen=True, eq=False)
class LabelIssues:
    """Training images with possible label errors, the most certain first, with their file names if they have any."""

    images: Images
    issues: tuple[LabelIssue, ...]
    files: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class DataSummary:
    """The data: `counts` holds (K,) images per class for each split, `skipped` the reason for each unused file."""

    source: str
    shape: tuple[int, ...]
    counts: Mapping[str, Ints]
    skipped: Mapping[str, str] = field(default_factory=dict)
    n_unlabeled: int = 0


class Option(NamedTuple):
    """One option: its name, its value, and its description."""

    name: str
    value: str
    description: str


@dataclass(frozen=True)
class Provenance:
    """Information for reproducing the training; `versions` holds the versions of the main packages."""

    command: str
    versions: Mapping[str, str]
    machine: str
    seed: int
    minutes: float
    threads: int
    precision: str


@dataclass(frozen=True, eq=False)
class ReportContent:
    """Content of a report and a model card.

    `confusion` is (K, K) with true classes in the rows, `options` are grouped under titles, `notes` are further caveats,
    and `extra` are further sections, shown at the end of their chapter.
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

    def with_section(self, section: Section | None) -> ReportContent:
        """Return the content with one more section, if there is one."""
        return self if section is None else replace(self, extra=(*self.extra, section))
