"""API keys: 256 bits of chance, shown once and kept as a hash; what they may do, until when."""

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
    """What a key may do: see what was answered, have images answered, say what they show, and everything."""

    READ = "read"
    CLASSIFY = "classify"
    LABEL = "label"
    ADMIN = "admin"


@dataclass(frozen=True)
class Key:
    """Who asks, and what they may."""

    id: str
    name: str
    scopes: frozenset[Scope]
    created: datetime
    expires: datetime | None = None
    revoked: datetime | None = None

    @classmethod
    def from_row(cls, row: KeyRow) -> Self:
        """As the table has it."""
        scopes = frozenset(map(Scope, row.scopes))
        return cls(row.id, row.name, scopes, row.created, row.expires, row.revoked)

    def may(self, scope: Scope) -> bool:
        """Whether the key is for that; an admin's is for everything."""
        return scope in self.scopes or Scope.ADMIN in self.scopes

    @property
    def fault(self) -> str | None:
        """Why it opens nothing any more, if that is so."""
        if self.revoked is not None:
            return f"the key {self.id} was revoked"
        if self.expires is not None and self.expires <= datetime.now(UTC):
            return f"the key {self.id} has expired"
        return None


def generate_key() -> tuple[str, str, str]:
    """A new key: its id, the secret itself, and the hash that is kept of it."""
    secret = PREFIX + secrets.token_urlsafe(N_BYTES)
    return secrets.token_hex(4), secret, sha256(secret.encode())
