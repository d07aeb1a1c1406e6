"""Content of a report, as frozen values: strings, numbers and numpy arrays.

K is the number of classes; images are (N, C, H, W) uint8, grayscale or RGB; labels are (N,) class indices. Every field of
ReportContent after the class names is optional; the report omits sections without content.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from likely.base import LikelihoodType
from likely.evaluation.attacks import AttackResult
from likely.evaluation.fidelity import Fidelity
from likely.evaluation.interpolation import Segment
from likely.evaluation.label_errors import LabelIssue
from likely.evaluation.memorization import Memorization
from likely.evaluation.metrics import Floats, Ints, Metrics, PerClass, Reliability, beta_binomial_bound
from likely.evaluation.repeated_splits import RepeatResult
from likely.evaluation.robustness import Robustness
from likely.evaluation.sample_quality import SampleQuality
from likely.evaluation.synthetic_augmentation import AugmentationResult
from likely.evaluation.training_record import CalibrationSize
from likely.prediction import CalibrationScope

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


class FalseAlarmRow(NamedTuple):
    """False alarms of one class, or of all classes: n known test images, of which some were rejected.

    `bound` is the largest number of rejections that the guarantee explains; None without a guarantee.
    """

    name: str
    n: int
    rejected: int
    bound: int | None

    @property
    def above(self) -> bool:
        """True if more images were rejected than the guarantee explains."""
        return self.bound is not None and self.rejected > self.bound


@dataclass(frozen=True, eq=False)
class FalseAlarms:
    """Known test images that were rejected, counted per class, (K,); the guarantee allows a fraction `alpha`.

    With `is_by_group`, one image of each group counts.
    """

    alpha: float
    scope: CalibrationScope
    n_test: Ints
    n_rejected: Ints
    n_calibration: Ints
    level: float = 0.95
    n_overall: int | None = None  # calibration images of the guarantee `overall`; None for that of classes
    is_by_group: bool = False

    @property
    def bounds(self) -> Ints:
        """Upper bounds on the rejections of each class, (K,), that hold for all classes together with probability `level`."""
        level = 1 - (1 - self.level) / max(1, int(np.count_nonzero(self.n_test)))
        pairs = zip(self.n_test.tolist(), self.n_calibration.tolist(), strict=True)
        return np.array([beta_binomial_bound(n, m, self.alpha, level) for n, m in pairs], dtype=np.int64)

    @property
    def pooled_bound(self) -> int:
        """Upper bound on the rejections over all classes, for a marginal guarantee."""
        return self._pooled_quantile(self.level)

    @property
    def pooled_lower_bound(self) -> int | None:
        """Lower bound on the rejections over all classes; None if the guarantee is of classes, or there is none."""
        has_bound = self.n_overall is not None and self.scope is CalibrationScope.POOLED
        return self._pooled_quantile(1 - self.level) if has_bound else None

    def _pooled_quantile(self, level: float) -> int:
        n = int(self.n_calibration.sum()) if self.n_overall is None else self.n_overall
        return beta_binomial_bound(int(self.n_test.sum()), n, self.alpha, level)

    def rows(self, names: tuple[str, ...]) -> tuple[FalseAlarmRow, ...]:
        """Return a row for each class that has images, with its bound; a marginal guarantee has one bound, for all."""
        counts = zip(names, self.n_test.tolist(), self.n_rejected.tolist(), strict=True)
        if self.scope is CalibrationScope.PER_CLASS:
            bounded = zip(counts, self.bounds.tolist(), strict=True)
            return tuple(FalseAlarmRow(*count, bound) for count, bound in bounded if count[1])
        rows = [FalseAlarmRow(*count, None) for count in counts if count[1]]
        bound = self.pooled_bound if self.scope is CalibrationScope.POOLED else None
        return (FalseAlarmRow("all classes", int(self.n_test.sum()), int(self.n_rejected.sum()), bound), *rows)


@dataclass(frozen=True, eq=False)
class PValues:
    """p-values of images: (N,) of known test images, (M,) of unknown images."""

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
    """Test images with the smallest p-values, ascending; the other arrays are (N,), the files' names empty if unknown."""

    images: Sequence[Images]
    p_values: Floats
    labels: Ints
    predicted: Ints
    files: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class MostConfidentErrors:
    """Test images with the highest probability of a wrong class, descending; the other arrays are (N,)."""

    images: Sequence[Images]
    labels: Ints
    predicted: Ints
    probability: Floats
    files: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class AcceptedUnknown:
    """Unknown images that are not rejected, n of them, and some with the largest p-values; the other arrays are (N,)."""

    n: int
    images: Sequence[Images]
    p_values: Floats
    predicted: Ints
    files: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class LabelIssues:
    """Training images with possible label errors, the most certain first, with their file names if they have any."""

    images: Sequence[Images]
    issues: tuple[LabelIssue, ...]
    files: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class ImageGroup:
    """A group of n images that show the same thing: some of them, and the classes (distinct labels) of all."""

    n: int
    classes: tuple[int, ...]
    images: Sequence[Images]
    files: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class SimilarImages:
    """Groups of two or more training images: `n_groups` with `n_images`, of which some are shown.

    Groups with several labels come first, then large ones.
    """

    n_groups: int
    n_images: int
    n_mixed: int
    groups: tuple[ImageGroup, ...]


@dataclass(frozen=True, eq=False)
class DataSummary:
    """The data: `counts` holds (K,) images per class for each split, `skipped` the reason for each unused file.

    `n_groups` holds the number of groups of images for each split, if there are any. `calibration` is None if unknown.
    """

    source: str
    shape: tuple[int, ...]
    counts: Mapping[str, Ints]
    skipped: Mapping[str, str] = field(default_factory=dict)
    n_unlabeled: int = 0
    n_groups: Mapping[str, int] = field(default_factory=dict)
    calibration: CalibrationSize | None = None


@dataclass(frozen=True, eq=False)
class RobustnessResults:
    """Robustness of the model and of its baseline, in this order: on corrupted images, and under attacks by model name."""

    corruptions: Sequence[Robustness] = ()
    attacks: Sequence[tuple[str, Sequence[AttackResult]]] = ()


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

    `confusion` is (K, K) with true classes in the rows, `options` are grouped under titles, and `notes` are further
    caveats.
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
    repeats: tuple[RepeatResult, ...] = ()
    synthetic_augmentation: AugmentationResult | None = None
    robustness: RobustnessResults | None = None
    samples: Samples | None = None
    reconstructions: Reconstructions | None = None
    interpolation: tuple[Segment, ...] = ()
    sample_quality: SampleQuality | None = None
    fidelity: Fidelity | None = None
    most_atypical: MostAtypical | None = None
    most_confident_errors: MostConfidentErrors | None = None
    accepted_unknown: AcceptedUnknown | None = None
    label_issues: LabelIssues | None = None
    similar_images: SimilarImages | None = None
    memorization: Memorization | None = None
    data: DataSummary | None = None
    options: Mapping[str, tuple[Option, ...]] = field(default_factory=dict)
    provenance: Provenance | None = None
    notes: tuple[str, ...] = ()
