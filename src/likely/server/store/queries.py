"""Filters of predictions, pages of them, and statistics by class."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import datetime
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from sqlalchemy import ColumnElement, Select, func, select
from sqlalchemy.orm import Session

from likely.exceptions import InvalidValueError
from likely.prediction import Prediction, Status
from likely.server.store.schema import PredictionRow

MAX_PAGE = 500  # predictions of a page


def _writable(word: str) -> str:
    if not all(each.isprintable() for each in word):  # a database may refuse a zero byte or a lone surrogate
        raise InvalidValueError("should consist of printable characters")
    return word


Word = Annotated[str, AfterValidator(_writable)]


class PredictionFilter(BaseModel):
    """Filter of predictions; fields that are left out match everything."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    status: Annotated[list[Status], Field(description="One of these statuses.")] = []
    label: Annotated[Word | None, Field(max_length=255, description="The most probable class.")] = None
    true_label: Annotated[Word | None, Field(max_length=255, description="The label that people assigned.")] = None
    is_labeled: Annotated[bool | None, Field(description="True for predictions that people have labeled.")] = None
    disagrees_with_previous: Annotated[
        bool | None, Field(description="True if an earlier version of the model predicted something else.")
    ] = None
    model: Annotated[Word | None, Field(max_length=255, description="Name of a model, or of one version.")] = None
    since: Annotated[datetime | None, Field(description="Created at this time or later.")] = None
    until: Annotated[datetime | None, Field(description="Created before this time.")] = None

    @property
    def rows(self) -> Select[Any]:
        """Query of the matching rows."""
        return select(PredictionRow).where(*self._conditions())

    def page(self, *, before: str | None, limit: int) -> Select[Any]:
        """Query of the newest matching rows, or of those older than the prediction `before`."""
        rows = self.rows.order_by(PredictionRow.id.desc()).limit(limit)
        return rows if before is None else rows.where(PredictionRow.id < before)

    def _conditions(self) -> Iterator[ColumnElement[bool]]:
        table = PredictionRow
        if self.status:
            yield table.status.in_([status.value for status in self.status])
        for name in ("label", "true_label", "disagrees_with_previous"):
            if (wanted := getattr(self, name)) is not None:
                yield getattr(table, name) == wanted
        if self.is_labeled is not None:
            yield table.true_label.is_not(None) if self.is_labeled else table.true_label.is_(None)
        if self.model is not None:
            yield table.model == self.model if "@" in self.model else table.is_of(self.model)
        if self.since is not None:
            yield table.created >= self.since
        if self.until is not None:
            yield table.created < self.until


class ClassStats(BaseModel):
    """Number of predictions of a class, and how they compare with the labels people assigned."""

    model_config = ConfigDict(frozen=True)

    label: str
    n_known: Annotated[int, Field(description="Predictions of this class with status known.")] = 0
    n_ambiguous: Annotated[int, Field(description="Ambiguous predictions with this class as the most probable.")] = 0
    n_unknown: Annotated[int, Field(description="Unknown images with this class as the most probable.")] = 0
    n_right: Annotated[int, Field(description="Known predictions that people confirmed.")] = 0
    n_wrong: Annotated[int, Field(description="Known predictions that people corrected.")] = 0
    n_missed: Annotated[
        int, Field(description="Images that people labeled with this class and that were not recognized as it.")
    ] = 0


def class_stats(session: Session, model: str) -> dict[str, ClassStats]:
    """Return the statistics of each class over all versions of a model."""
    by = (PredictionRow.label, PredictionRow.true_label, PredictionRow.status)
    rows = select(*by, func.count()).where(PredictionRow.is_of(model)).group_by(*by)
    found: dict[str | None, Counter[str]] = {}
    for label, true_label, status, n in session.execute(rows):
        of_label, known = found.setdefault(label, Counter()), status == Status.KNOWN
        of_label[f"n_{status}"] += n
        if true_label is None:
            continue
        if known:
            of_label["n_right" if true_label == label else "n_wrong"] += n
        if not known or true_label != label:
            found.setdefault(true_label, Counter())["n_missed"] += n
    return {label: ClassStats(label=label, **counts) for label, counts in found.items() if label is not None}


class PredictionRecord(BaseModel):
    """Stored prediction with the label assigned since."""

    model_config = ConfigDict(frozen=True)

    id: str
    created: datetime
    image: Annotated[str, Field(description="SHA-256 of the image; see /v1/images/{image}.")]
    model: str
    alpha: float
    disagrees_with_previous: Annotated[
        bool, Field(description="True if an earlier version of the model predicted something else for this image.")
    ]
    embedding_2d: Annotated[
        tuple[float, float] | None, Field(description="Coordinates of the image in the 2-D projection.")
    ]
    true_label: Annotated[str | None, Field(description="The label that people assigned.")]
    prediction: Prediction

    @classmethod
    def from_row(cls, row: PredictionRow) -> PredictionRecord:
        """Return the record of a table row."""
        columns = {
            name: getattr(row, name)
            for name in ("id", "created", "image", "model", "alpha", "disagrees_with_previous", "true_label")
        }
        place = None if row.embedding_x is None or row.embedding_y is None else (row.embedding_x, row.embedding_y)
        return cls(**columns, embedding_2d=place, prediction=Prediction.model_validate(row.prediction))
