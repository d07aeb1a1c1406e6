"""API keys: 256 random bits, shown once and stored as a hash, with scopes and an expiry."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Self

from sqlalchemy import Engine, delete, select
from sqlalchemy.orm import Session

from likely.server.store.schema import KeyRow, SessionRow

PREFIX = "lk_"  # makes leaked keys easy to find
N_BYTES = 32


class Scope(StrEnum):
    """Permission of a key: read predictions, classify images, label them, or administer everything."""

    READ = "read"
    CLASSIFY = "classify"
    LABEL = "label"
    ADMIN = "admin"


@dataclass(frozen=True)
class Key:
    """API key without its secret."""

    id: str
    name: str
    scopes: frozenset[Scope]
    created: datetime
    expires: datetime | None = None
    revoked: datetime | None = None

    @classmethod
    def from_row(cls, row: KeyRow) -> Self:
        """Return the key of a table row."""
        scopes = frozenset(map(Scope, row.scopes))
        return cls(row.id, row.name, scopes, row.created, row.expires, row.revoked)

    def may(self, scope: Scope) -> bool:
        """Return True if the key has the scope; `admin` includes all others."""
        return scope in self.scopes or Scope.ADMIN in self.scopes

    @property
    def invalid_reason(self) -> str | None:
        """Reason why the key is no longer valid, or None."""
        if self.revoked is not None:
            return f"the key {self.id} was revoked"
        if self.expires is not None and self.expires <= datetime.now(UTC):
            return f"the key {self.id} has expired"
        return None


def hash_secret(secret: str) -> str:
    """Return the hash under which a secret is stored: SHA-256 in hexadecimal digits."""
    return hashlib.sha256(secret.encode()).hexdigest()


class KeyStore:
    """API keys and browser sessions of a store."""

    def __init__(self, engine: Engine, write: Callable[[], AbstractContextManager[Session]]) -> None:
        self._engine, self._write = engine, write

    def add(self, name: str, scopes: Iterable[Scope], *, days: float | None = None) -> tuple[Key, str]:
        """Create a key; return it and its secret, which is stored nowhere."""
        id, secret, hashed = _generate_key()
        now = datetime.now(UTC)
        expires = None if days is None else now + timedelta(days=days)
        with self._write() as session:
            row = KeyRow(id=id, name=name, sha256=hashed, scopes=sorted(set(scopes)), created=now, expires=expires)
            session.add(row)
            session.flush()
            return Key.from_row(row), secret

    def find(self, secret: str) -> Key | None:
        """Return the key with this secret, or None."""
        with Session(self._engine) as session:
            row = session.scalar(select(KeyRow).where(KeyRow.sha256 == hash_secret(secret)))
            return None if row is None else Key.from_row(row)

    def all(self) -> list[Key]:
        """Return all keys, including revoked ones, the newest last."""
        with Session(self._engine) as session:
            return [Key.from_row(row) for row in session.scalars(select(KeyRow).order_by(KeyRow.created))]

    def revoke(self, id: str) -> bool:
        """Revoke a key and its sessions; return False if there is no such key."""
        with self._write() as session:
            row = session.get(KeyRow, id)
            if row is None:
                return False
            row.revoked = row.revoked or datetime.now(UTC)
            session.execute(delete(SessionRow).where(SessionRow.key == id))
            return True

    def log_in(self, key: Key, hours: float) -> str:
        """Open a session and return its secret."""
        _, secret, hashed = _generate_key()
        now = datetime.now(UTC)
        with self._write() as session:
            session.execute(delete(SessionRow).where(SessionRow.expires < now))
            session.add(SessionRow(sha256=hashed, key=key.id, created=now, expires=now + timedelta(hours=hours)))
        return secret

    def find_session(self, secret: str) -> Key | None:
        """Return the key that opened the session, or None if it has ended."""
        with Session(self._engine) as session:
            row = session.get(SessionRow, hash_secret(secret))
            if row is None or row.expires <= datetime.now(UTC):
                return None
            key = session.get(KeyRow, row.key)
            return None if key is None else Key.from_row(key)

    def log_out(self, secret: str) -> None:
        """End a session."""
        with self._write() as session:
            session.execute(delete(SessionRow).where(SessionRow.sha256 == hash_secret(secret)))


def _generate_key() -> tuple[str, str, str]:
    """Return a new key: its id, the secret and the hash to store."""
    secret = PREFIX + secrets.token_urlsafe(N_BYTES)
    return secrets.token_hex(4), secret, hash_secret(secret)
