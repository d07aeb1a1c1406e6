"""Row identifiers in order of time, and hashes of secrets."""

from __future__ import annotations

import hashlib
import os
import threading
import time
import uuid

_LOCK, _LAST = threading.Lock(), [0]


def row_id() -> str:
    """Return a UUID of version 7 (RFC 9562): 48 bits of milliseconds, then random bits.

    Identifiers of one process ascend strictly.

    >>> a, b = row_id(), row_id()
    >>> a < b, len(a)
    (True, 36)
    """
    with _LOCK:
        # The 12 bits behind the version count within a millisecond; what runs over borrows from the next one.
        _LAST[0] = now = max(int(time.time() * 1000) << 12, _LAST[0] + 1)
    chance = int.from_bytes(os.urandom(8)) >> 2
    value = (now >> 12) << 80 | 0x7 << 76 | (now & 0xFFF) << 64 | 0b10 << 62 | chance
    return str(uuid.UUID(int=value))


def sha256(content: bytes) -> str:
    """Return the SHA-256 of the content in hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()
