"""Tables of models, images, keys, sessions, predictions, labels and the audit log, and the ids of their rows."""

from __future__ import annotations

import os
import threading
import time
import uuid
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import JSON, BigInteger, ColumnElement, DateTime, ForeignKey, Index, Integer, MetaData, String
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import TypeDecorator

NAMES = {  # of constraints, so that a migration can drop one
    "ix": "ix_%(column_0_N_label)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}
ID, HASH, WORD, SENTENCE = String(36), String(64), String(255), String(2000)


_LOCK, _LAST = threading.Lock(), [0]


def row_id() -> str:
    """Return a UUID of version 7 (RFC 9562): 48 bits of milliseconds, then random bits.

    Identifiers of one process ascend strictly.

    >>> a, b = row_id(), row_id()
    >>> a < b, len(a)
    (True, 36)
    """
    with _LOCK:
        # The 12 bits after the version count ids within a millisecond; an overflow continues in the next millisecond.
        _LAST[0] = now = max(int(time.time() * 1000) << 12, _LAST[0] + 1)
    random = int.from_bytes(os.urandom(8)) >> 2
    value = (now >> 12) << 80 | 0x7 << 76 | (now & 0xFFF) << 64 | 0b10 << 62 | random
    return str(uuid.UUID(int=value))


class UTCDateTime(TypeDecorator[datetime]):
    """Timestamp in UTC, stored without a time zone."""

    impl = DateTime
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Any) -> datetime | None:
        return None if value is None else value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: Any) -> datetime | None:
        return None if value is None else value.replace(tzinfo=UTC)


class Base(DeclarativeBase):
    """Base class of all tables."""

    metadata = MetaData(naming_convention=NAMES)


class ModelRow(Base):
    """Version of a model; the id is its name and the first digits of its hash, such as "fashion@3f2a"."""

    __tablename__ = "models"

    id: Mapped[str] = mapped_column(WORD, primary_key=True)
    name: Mapped[str] = mapped_column(WORD, index=True)
    family: Mapped[str] = mapped_column(WORD)
    labels: Mapped[list[str]] = mapped_column(JSON)
    first_served: Mapped[datetime] = mapped_column(UTCDateTime)


class ImageRow(Base):
    """Image as received, in a file named by its SHA-256."""

    __tablename__ = "images"

    sha256: Mapped[str] = mapped_column(HASH, primary_key=True)
    media_type: Mapped[str] = mapped_column(WORD)
    n_bytes: Mapped[int] = mapped_column(BigInteger)
    width: Mapped[int] = mapped_column(Integer)
    height: Mapped[int] = mapped_column(Integer)
    created: Mapped[datetime] = mapped_column(UTCDateTime)


class KeyRow(Base):
    """API key, of which only a hash is stored."""

    __tablename__ = "keys"

    id: Mapped[str] = mapped_column(String(16), primary_key=True)
    name: Mapped[str] = mapped_column(WORD)
    sha256: Mapped[str] = mapped_column(HASH, unique=True)
    scopes: Mapped[list[str]] = mapped_column(JSON)
    created: Mapped[datetime] = mapped_column(UTCDateTime)
    expires: Mapped[datetime | None] = mapped_column(UTCDateTime)
    revoked: Mapped[datetime | None] = mapped_column(UTCDateTime)


class SessionRow(Base):
    """Browser session opened with a key; only a hash of its cookie is stored."""

    __tablename__ = "sessions"

    sha256: Mapped[str] = mapped_column(HASH, primary_key=True)
    key: Mapped[str] = mapped_column(ForeignKey("keys.id"), index=True)
    created: Mapped[datetime] = mapped_column(UTCDateTime)
    expires: Mapped[datetime] = mapped_column(UTCDateTime)


class PredictionRow(Base):
    """Prediction; ids ascend with time."""

    __tablename__ = "predictions"

    id: Mapped[str] = mapped_column(ID, primary_key=True)
    created: Mapped[datetime] = mapped_column(UTCDateTime, index=True)
    image: Mapped[str] = mapped_column(ForeignKey("images.sha256"), index=True)
    model: Mapped[str] = mapped_column(ForeignKey("models.id"))
    key: Mapped[str | None] = mapped_column(ForeignKey("keys.id"))
    request: Mapped[str] = mapped_column(WORD)
    name: Mapped[str] = mapped_column(WORD)
    alpha: Mapped[float]
    status: Mapped[str] = mapped_column(String(16))
    label: Mapped[str | None] = mapped_column(WORD)
    probability: Mapped[float | None]
    p_value: Mapped[float | None]  # of the guarantee `overall`, whichever was asked for
    disagrees_with_previous: Mapped[bool]  # with an earlier version of the model, for the same image
    embedding_x: Mapped[float | None]  # 2-D projection of the image
    embedding_y: Mapped[float | None]
    true_label: Mapped[str | None] = mapped_column(WORD)  # the last label that was assigned
    prediction: Mapped[dict[str, Any]] = mapped_column(JSON)

    __table_args__ = (
        Index(None, "status", "id"),
        Index(None, "model", "id"),
        Index(None, "true_label", "id"),
        Index(None, "disagrees_with_previous", "id"),
    )

    @classmethod
    def is_of(cls, name: str) -> ColumnElement[bool]:
        """Condition that matches predictions by any version of a model."""
        return cls.model.startswith(f"{name}@", autoescape=True)


class LabelRow(Base):
    """Label that a person assigned to an image; None withdraws the previous one."""

    __tablename__ = "labels"

    id: Mapped[str] = mapped_column(ID, primary_key=True)
    prediction: Mapped[str] = mapped_column(ForeignKey("predictions.id"), index=True)
    label: Mapped[str | None] = mapped_column(WORD)
    key: Mapped[str | None] = mapped_column(ForeignKey("keys.id"))
    created: Mapped[datetime] = mapped_column(UTCDateTime)


class AuditRow(Base):
    """Entry of the audit log; rows are only ever added."""

    __tablename__ = "audit"

    id: Mapped[str] = mapped_column(ID, primary_key=True)
    created: Mapped[datetime] = mapped_column(UTCDateTime)
    key: Mapped[str | None] = mapped_column(String(16))
    address: Mapped[str] = mapped_column(WORD)
    action: Mapped[str] = mapped_column(WORD, index=True)
    subject: Mapped[str] = mapped_column(SENTENCE)
