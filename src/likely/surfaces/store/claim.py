"""A claim: one process at a time puts a store in order, and one service at a time answers for it."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path

from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import SQLAlchemyError

LOCK = "lock"
ADVISORY = 0x6C696B656C79  # the number of our lock in a PostgreSQL database


class Claim:
    """On a store's folder, and on its database where that may be elsewhere. The system ends it with the process."""

    def __init__(self, folder: Path, engine: Engine) -> None:
        """A BlockingIOError if another process has it."""
        self._file = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        self._connection: Connection | None = None
        try:
            _lock(self._file)
            if engine.dialect.name == "postgresql":
                self._connection = engine.connect().execution_options(isolation_level="AUTOCOMMIT")
                if not self._connection.scalar(text("SELECT pg_try_advisory_lock(:n)"), {"n": ADVISORY}):
                    raise BlockingIOError
        except BaseException:
            self.end()
            raise

    def end(self) -> None:
        """Let others have it."""
        if self._connection is not None:
            with suppress(SQLAlchemyError):  # the database may be gone, and the lock with it
                self._connection.scalar(text("SELECT pg_advisory_unlock(:n)"), {"n": ADVISORY})
            self._connection.close()
            self._connection = None
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


def _lock(file: int) -> None:
    if sys.platform == "win32":
        import msvcrt

        try:
            msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
        except OSError:
            raise BlockingIOError from None
    else:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
