"""Exclusive lock of a store: one process at a time recovers it, and one service at a time writes to it."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from filelock import FileLock, Timeout
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import SQLAlchemyError

LOCK = "lock"
ADVISORY_LOCK = 0x6C696B656C79  # the number of our lock in a PostgreSQL database


class StoreLock:
    """Lock on a store's folder and, for PostgreSQL, on its database; the system releases it with the process."""

    def __init__(self, folder: Path, engine: Engine) -> None:
        """Acquire the lock; raise BlockingIOError if another process holds it."""
        # A service may close its store in another thread than the one that opened it.
        self._lock = FileLock(folder / LOCK, timeout=0, mode=0o600, thread_local=False)
        self._connection: Connection | None = None
        try:
            self._lock.acquire()
            if engine.dialect.name == "postgresql":
                self._connection = engine.connect().execution_options(isolation_level="AUTOCOMMIT")
                if not self._connection.scalar(text("SELECT pg_try_advisory_lock(:n)"), {"n": ADVISORY_LOCK}):
                    raise BlockingIOError
        except Timeout:
            raise BlockingIOError from None
        except BaseException:
            self.release()
            raise

    def release(self) -> None:
        """Release the lock."""
        if self._connection is not None:
            with suppress(SQLAlchemyError):  # the database may be gone, and the lock with it
                self._connection.scalar(text("SELECT pg_advisory_unlock(:n)"), {"n": ADVISORY_LOCK})
            self._connection.close()
            self._connection = None
        self._lock.release()
