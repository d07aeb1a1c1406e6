"""Findings: what a look at DATA brought up, as sentences with a severity, a count and examples."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from itertools import islice
from typing import Any

from likely.data.preprocessing import ImageFormat

N_EXAMPLES = 20


class Severity(StrEnum):
    """`error`: training or its test will go wrong. `warning`: they will suffer. `note`: good to know."""

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"


@dataclass(frozen=True)
class Issue:
    """One thing that was found: of what kind, how bad, in a sentence, how many there are, and up to 20 of them."""

    kind: str
    severity: Severity
    message: str
    count: int
    examples: tuple[str, ...]


@dataclass(frozen=True)
class DataIssues:
    """What DATA holds in each part, images of each class (K,) and unlabeled ones, and what was found, worst first.

    `n_unreadable` counts the files and lines that had to be passed over. `format` is None for vectors.
    """

    name: str
    format: ImageFormat | None
    classes: tuple[str, ...]
    counts: Mapping[str, tuple[int, ...]]
    unlabeled: Mapping[str, int]
    n_unreadable: int
    issues: tuple[Issue, ...]

    def as_dict(self) -> dict[str, Any]:
        """The same as JSON would have it; counts by the name of their class."""
        named = {part: dict(zip(self.classes, counts, strict=True)) for part, counts in self.counts.items()}
        format = None if self.format is None else self.format.model_dump(mode="json")
        return {
            "data": self.name,
            "format": format,
            "classes": list(self.classes),
            "counts": named,
            "unlabeled": dict(self.unlabeled),
            "unreadable": self.n_unreadable,
            "findings": [asdict(finding) for finding in self.issues],
        }


def error(kind: str, message: str, count: int, examples: Iterable[str]) -> Issue:
    """A finding that makes a training, or its test, go wrong."""
    return Issue(kind, Severity.ERROR, message, count, tuple(islice(examples, N_EXAMPLES)))


def warning(kind: str, message: str, count: int, examples: Iterable[str]) -> Issue:
    """A finding that a training or its test will suffer from."""
    return Issue(kind, Severity.WARNING, message, count, tuple(islice(examples, N_EXAMPLES)))


def note(kind: str, message: str, count: int, examples: Iterable[str]) -> Issue:
    """A finding that is good to know."""
    return Issue(kind, Severity.NOTE, message, count, tuple(islice(examples, N_EXAMPLES)))


def counted(n: int, singular: str, plural: str = "") -> str:
    """A number with its noun: "1 image", "1,234 images"."""
    return f"{n:,} {singular if n == 1 else plural or singular + 's'}"
