"""Prediction store: every prediction with its image and label, API keys, sessions and the audit log."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Self

from sqlalchemy import Engine, delete, exists, func, select, text, update
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from likely.checkpoint.encryption import Keyring
from likely.exceptions import StoreError
from likely.prediction import Prediction
from likely.server.store.db import StoreLock, connect, is_current, migrate
from likely.server.store.images import BlobStore
from likely.server.store.keys import KeyStore
from likely.server.store.queries import (
    ClassStats,
    PredictionFilter,
    PredictionRecord,
    class_stats,
)
from likely.server.store.schema import AuditRow, ImageRow, LabelRow, ModelRow, PredictionRow, row_id

DATABASE, IMAGES = "likely.sqlite", "images"
PRIVATE = 0o700  # mode of a new folder: only its owner has access
BATCH_SIZE = 500  # rows per query


@dataclass(frozen=True)
class StoredImage:
    """Image as received."""

    content: bytes
    media_type: str
    width: int
    height: int


@dataclass(frozen=True)
class NewPrediction:
    """Prediction about to be stored, with the image it belongs to."""

    image: StoredImage
    prediction: Prediction
    model: str
    alpha: float
    request: str
    key: str | None = None
    embedding_2d: tuple[float, float] | None = None  # in the model's 2-D projection
    image_p_value: float | None = None  # that of the guarantee `overall`, for drift detection


class Store:
    """Database and folder of image files; `open` creates what is missing."""

    def __init__(self, folder: Path, engine: Engine, keys: Keyring | None = None) -> None:
        self.folder, self.engine, self.files = folder, engine, BlobStore(folder / IMAGES, keys)
        self.keys = KeyStore(engine, self._write)
        self._lock: StoreLock | None = None
        self._writing = threading.Lock()  # one at a time, because SQLite has a single writer

    @classmethod
    def open(
        cls, folder: Path, url: str | None = None, keys: Keyring | None = None, *, exclusive: bool = False
    ) -> Self:
        """Open the store in a folder, or with its database at `url`; raise StoreError if it cannot be reached.

        With `keys` images are encrypted at rest. An `exclusive` process, such as a service, recovers from a crash first;
        raises StoreError if another process has locked the store.
        """
        folder.mkdir(parents=True, exist_ok=True, mode=PRIVATE)
        engine = connect(url or f"sqlite:///{folder / DATABASE}")
        self = cls(folder, engine, keys)
        try:
            if exclusive or not is_current(engine):
                self._acquire()
            if not exclusive:
                self._release()
        except OperationalError as error:
            self.close()
            where = engine.url.render_as_string(hide_password=True)
            raise StoreError(f"the database {where} cannot be reached: {str(error.orig).strip()}") from None
        except BaseException:
            self.close()
            raise
        return self

    def _acquire(self) -> None:
        try:
            self._lock = StoreLock(self.folder, self.engine)
        except BlockingIOError:
            raise StoreError(
                f"another process, such as a service, has locked the store {self.folder}; stop it or name "
                "another --store"
            ) from None
        migrate(self.engine)
        self._recover()

    def _release(self) -> None:
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def ping(self) -> None:
        """Raise an error unless the database responds."""
        with self.engine.connect() as connection:
            connection.execute(text("SELECT 1"))

    def close(self) -> None:
        """Release the lock and the database connections."""
        self._release()
        self.engine.dispose()

    def register_model(self, model: ModelRow) -> None:
        """Register a version of a model that makes predictions from now on."""
        with self._write() as session:
            if session.get(ModelRow, model.id) is None:
                session.add(model)

    def add(self, predictions: Sequence[NewPrediction]) -> list[str]:
        """Store predictions with their images and return their ids; both are on the disk when this returns."""
        hashes = [hashlib.sha256(new.image.content).hexdigest() for new in predictions]
        pictures = {key: new.image for key, new in zip(hashes, predictions, strict=True)}
        now = datetime.now(UTC)
        with self._write() as session:
            there = set(session.scalars(select(ImageRow.sha256).where(ImageRow.sha256.in_(pictures))))
            new = {key: picture for key, picture in pictures.items() if key not in there}
            lost = {key for key in there if key not in self.files}  # lost from the disk, and restored now
            contents = {key: pictures[key].content for key in (*new, *lost)}
            with self.files.receiving(contents) as commits:
                session.add_all(_image_row(key, picture, now) for key, picture in new.items())
                session.flush()
                before = {
                    model: _previous_predictions(session, there, model) for model in {new.model for new in predictions}
                }
                rows = [
                    _prediction_row(key, g, before[g.model].get(key), now)
                    for key, g in zip(hashes, predictions, strict=True)
                ]
                session.add_all(rows)
                session.flush()
                commits()
                session.commit()
        return [row.id for row in rows]

    def predictions(
        self, selection: PredictionFilter, *, before: str | None = None, limit: int = 50
    ) -> list[PredictionRecord]:
        """Return a page of predictions, the newest first."""
        with Session(self.engine) as session:
            return [
                PredictionRecord.from_row(row) for row in session.scalars(selection.page(before=before, limit=limit))
            ]

    def iterate(self, selection: PredictionFilter) -> Iterator[PredictionRecord]:
        """Iterate over all matching predictions, page by page."""
        before = None
        while page := self.predictions(selection, before=before, limit=BATCH_SIZE):
            yield from page
            before = page[-1].id

    def count(self, selection: PredictionFilter) -> dict[str, int]:
        """Count predictions by status."""
        rows = selection.rows.subquery()
        with Session(self.engine) as session:
            found = session.execute(select(rows.c.status, func.count().label("n")).group_by(rows.c.status))
            return {row.status: row.n for row in found}

    def class_stats(self, model: str) -> dict[str, ClassStats]:
        """Return statistics of each class over all versions of a model."""
        with Session(self.engine) as session:
            return class_stats(session, model)

    def latest_p_values(self, model: str, n: int) -> list[float]:
        """Return the p-values, of the guarantee `overall`, of the last n images that a version of a model classified."""
        known = (PredictionRow.model == model) & PredictionRow.p_value.is_not(None)
        with Session(self.engine) as session:
            found = session.scalars(
                select(PredictionRow.p_value).where(known).order_by(PredictionRow.id.desc()).limit(n)
            )
            return [p for p in found if p is not None]

    def prediction(self, id: str) -> PredictionRecord | None:
        """Return a prediction by its id."""
        with Session(self.engine) as session:
            row = session.get(PredictionRow, id)
            return None if row is None else PredictionRecord.from_row(row)

    def label(self, ids: Sequence[str], label: str | None, key: str | None) -> list[str]:
        """Assign a label to predictions, or withdraw it; return the ids that exist."""
        now, known = datetime.now(UTC), list[str]()
        with self._write() as session:
            for start in range(0, len(ids), BATCH_SIZE):
                these = PredictionRow.id.in_(ids[start : start + BATCH_SIZE])
                found = list(session.scalars(select(PredictionRow.id).where(these)))
                session.add_all(LabelRow(id=row_id(), prediction=id, label=label, key=key, created=now) for id in found)
                session.execute(update(PredictionRow).where(these).values(true_label=label))
                known += found
        return known

    def image(self, key: str) -> StoredImage | None:
        """Return an image by its SHA-256."""
        with Session(self.engine) as session:
            row = session.get(ImageRow, key)
        if row is None:
            return None
        return StoredImage(self.files.read(key), row.media_type, row.width, row.height)

    def prune(self, days: float) -> int:
        """Delete unlabeled predictions older than `days`, and images without predictions; return the number of predictions."""
        until, n = datetime.now(UTC) - timedelta(days=days), 0
        while some := self._prune_batch(until):
            n += some
        return n

    def _prune_batch(self, until: datetime) -> int:
        """Delete one batch, so that other writers wait only briefly."""
        old = (PredictionRow.created < until) & PredictionRow.true_label.is_(None)
        with self._write() as session:
            found = session.execute(select(PredictionRow.id, PredictionRow.image).where(old).limit(BATCH_SIZE)).all()
            ids, images = [id for id, _ in found], {image for _, image in found}
            session.execute(delete(LabelRow).where(LabelRow.prediction.in_(ids)))
            session.execute(delete(PredictionRow).where(PredictionRow.id.in_(ids)))
            is_left = exists().where(PredictionRow.image == ImageRow.sha256)
            gone = list(session.scalars(select(ImageRow.sha256).where(ImageRow.sha256.in_(images), ~is_left)))
            session.execute(delete(ImageRow).where(ImageRow.sha256.in_(gone)))
            with self.files.removing(gone) as commits:
                commits()
                session.commit()
        return len(found)

    def audit(self, action: str, subject: str, *, key: str | None, address: str) -> None:
        """Append to the audit log."""
        with self._write() as session:
            now = datetime.now(UTC)
            session.add(AuditRow(id=row_id(), created=now, key=key, address=address, action=action, subject=subject))

    @contextmanager
    def _write(self) -> Iterator[Session]:
        with self._writing, Session(self.engine, expire_on_commit=False) as session, session.begin():
            yield session

    def _recover(self) -> None:
        """Settle staged files after a crash: those with a row stay, the others are deleted."""
        waiting = list(self.files.staged().items())
        for start in range(0, len(waiting), BATCH_SIZE):
            some = dict(waiting[start : start + BATCH_SIZE])
            with Session(self.engine) as session:
                there = set(session.scalars(select(ImageRow.sha256).where(ImageRow.sha256.in_(some.values()))))
            self.files.settle(name for name, sha256 in some.items() if sha256 in there)
            self.files.drop(some)  # those without a row


def _previous_predictions(session: Session, images: Iterable[str], model: str) -> dict[str, tuple[str | None, str]]:
    """Return the last label and status that other versions of a model assigned to these images."""
    table = PredictionRow
    others = table.is_of(model.rpartition("@")[0]) & (table.model != model)
    last = select(func.max(table.id)).where(table.image.in_(images), others).group_by(table.image)
    found = session.execute(select(table.image, table.label, table.status).where(table.id.in_(last)))
    return {image: (label, status) for image, label, status in found}


def _image_row(sha256: str, picture: StoredImage, now: datetime) -> ImageRow:
    columns = {"width": picture.width, "height": picture.height, "n_bytes": len(picture.content)}
    return ImageRow(sha256=sha256, media_type=picture.media_type, created=now, **columns)


def _prediction_row(
    image: str, new: NewPrediction, before: tuple[str | None, str] | None, now: datetime
) -> PredictionRow:
    prediction = new.prediction
    changed = before is not None and before != (prediction.label, prediction.status.value)
    columns = {"label": prediction.label, "probability": prediction.probability, "p_value": new.image_p_value}
    return PredictionRow(
        id=row_id(),
        created=now,
        image=image,
        model=new.model,
        key=new.key,
        request=new.request,
        name=prediction.input[:255],
        alpha=new.alpha,
        status=prediction.status.value,
        disagrees_with_previous=changed,
        embedding_x=None if new.embedding_2d is None else new.embedding_2d[0],
        embedding_y=None if new.embedding_2d is None else new.embedding_2d[1],
        prediction=prediction.model_dump(mode="json"),
        **columns,
    )
