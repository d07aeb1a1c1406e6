"""API keys: 256 random bits, shown once and stored as a hash, with scopes and an expiry."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Self

from likely.server.store.ids import sha256
from likely.server.store.schema import KeyRow

PREFIX = "lk_"  # by which a key that was lost in a text is found
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


def generate_key() -> tuple[str, str, str]:
    """Return a new key: its id, the secret and the hash to store."""
    secret = PREFIX + secrets.token_urlsafe(N_BYTES)
    return secrets.token_hex(4), secret, sha256(secret.encode())
