"""Issues of a data set: messages with a severity, a count and examples."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from itertools import islice
from typing import Any, Self

from likely.data.preprocessing import ImageFormat

_MAX_EXAMPLES = 20


class Severity(StrEnum):
    """`error`: training or its evaluation is invalid. `warning`: results suffer. `note`: information."""

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"


@dataclass(frozen=True)
class Issue:
    """An issue of one kind: severity, message, number of occurrences and up to 20 examples."""

    kind: str
    severity: Severity
    message: str
    count: int
    examples: tuple[str, ...]

    @classmethod
    def error(cls, kind: str, message: str, count: int, examples: Iterable[str]) -> Self:
        """Create an issue that makes training or its evaluation invalid."""
        return cls(kind, Severity.ERROR, message, count, tuple(islice(examples, _MAX_EXAMPLES)))

    @classmethod
    def warning(cls, kind: str, message: str, count: int, examples: Iterable[str]) -> Self:
        """Create an issue that impairs training or its evaluation."""
        return cls(kind, Severity.WARNING, message, count, tuple(islice(examples, _MAX_EXAMPLES)))

    @classmethod
    def note(cls, kind: str, message: str, count: int, examples: Iterable[str]) -> Self:
        """Create an issue for information only."""
        return cls(kind, Severity.NOTE, message, count, tuple(islice(examples, _MAX_EXAMPLES)))


@dataclass(frozen=True)
class DataIssues:
    """Class counts (K,) and unlabeled counts of each split, and the issues found, most severe first.

    `n_unreadable` counts skipped files and lines. `format` is None for vectors.
    """

    name: str
    format: ImageFormat | None
    classes: tuple[str, ...]
    counts: Mapping[str, tuple[int, ...]]
    unlabeled: Mapping[str, int]
    n_unreadable: int
    issues: tuple[Issue, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON object, with counts by class name."""
        return {
            "data": self.name,
            "format": None if self.format is None else self.format.model_dump(mode="json"),
            "classes": list(self.classes),
            "counts": {split: dict(zip(self.classes, counts, strict=True)) for split, counts in self.counts.items()},
            "unlabeled": dict(self.unlabeled),
            "n_unreadable": self.n_unreadable,
            "issues": [asdict(issue) for issue in self.issues],
        }


def counted(n: int, singular: str, plural: str = "") -> str:
    """Return a number with its noun: "1 image", "1,234 images"."""
    return f"{n:,} {singular if n == 1 else plural or singular + 's'}"
