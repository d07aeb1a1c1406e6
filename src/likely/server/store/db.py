"""Database connections, migrations and the lock of a store: SQLite in a file by default, PostgreSQL by URL."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from sqlalchemy import Connection, Engine, create_engine, event, inspect, make_url, text
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from likely.exceptions import StoreError

MIGRATIONS = Path(__file__).parent / "migrations"
POOL_SIZE = 48  # open connections to a SQLite file: one for each thread
SQLITE_ARGS = {"timeout": 30, "check_same_thread": False}  # a writer waits 30 seconds for another process
# Seconds, the last in milliseconds: an unreachable database must not block requests forever.
POSTGRESQL_ARGS = {
    "connect_timeout": 5,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
}
STORE_FAULTS = (SQLAlchemyError, OSError)  # raised for a full disk or an unreachable database
LOCK = "lock"
ADVISORY_LOCK = 0x6C696B656C79  # number of the lock in a PostgreSQL database


def connect(url: str) -> Engine:
    """Return an engine for `url`; raise StoreError for an unsupported kind of database."""
    try:
        parsed = make_url(url)
        if parsed.get_backend_name() == "postgresql" and parsed.drivername == "postgresql":
            parsed = parsed.set(drivername="postgresql+psycopg")
        if parsed.get_backend_name() not in ("sqlite", "postgresql"):
            raise StoreError(
                f"the database {parsed.drivername!r} is not supported; sqlite:///FILE or postgresql://… was expected"
            )
        if parsed.get_backend_name() == "sqlite":
            # Last in, first out: each connection that is used caches two megabytes of the file.
            pool = {"pool_size": POOL_SIZE, "pool_use_lifo": True}
            engine = create_engine(parsed, hide_parameters=True, connect_args=SQLITE_ARGS, **pool)
            event.listen(engine, "connect", _set_up_sqlite)
            return engine
        return create_engine(parsed, hide_parameters=True, pool_pre_ping=True, connect_args=POSTGRESQL_ARGS)
    except ArgumentError:
        # The message does not repeat the URL, which may contain a password.
        raise StoreError("--database is not a database URL; postgresql://USER@HOST/NAME was expected") from None
    except ImportError:
        raise StoreError("PostgreSQL needs a driver: pip install 'likely[postgresql]'") from None


def is_current(engine: Engine) -> bool:
    """Return True if the tables match this version; raise StoreError if a later version created them."""
    with engine.connect() as connection:
        there = inspect(connection).has_table("alembic_version")
        here = connection.scalar(text("SELECT version_num FROM alembic_version")) if there else None
    known = _revisions()
    if here is not None and here not in known:
        raise StoreError(
            f"a later version of Likely created the store (revision {here}); use that version, or restore an earlier backup"
        )
    return here == known[-1]


def _revisions() -> list[str]:
    """List the revisions of the tables, the newest last, from the file names, because importing alembic is slow."""
    return sorted(path.stem.removeprefix("v") for path in (MIGRATIONS / "versions").glob("v*.py"))


def migrate(engine: Engine) -> None:
    """Migrate the tables to this version; raise StoreError if a later version created them."""
    if not is_current(engine):
        from alembic import command
        from alembic.config import Config

        config = Config()
        config.set_main_option("script_location", str(MIGRATIONS))
        with engine.begin() as connection:
            config.attributes["connection"] = connection
            command.upgrade(config, "head")


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


def _set_up_sqlite(connection: Any, _: object) -> None:
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")  # readers do not wait for writers
    cursor.execute("PRAGMA synchronous=FULL")  # commits survive a power failure
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.close()
