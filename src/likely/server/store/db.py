"""Database connections and migrations: SQLite in a file by default, PostgreSQL by URL."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sqlalchemy import Engine, create_engine, event, inspect, make_url, text
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from likely.exceptions import StoreError

MIGRATIONS = Path(__file__).parent / "migrations"
POOL_SIZE = 48  # to a file, kept open: as many as threads may ask at a time
SQLITE_ARGS = {
    "timeout": 30,
    "check_same_thread": False,
}  # seconds for which a writer waits until another process has written
# Seconds (the last in milliseconds): a remote database that is gone must not block requests forever.
POSTGRESQL_ARGS = {
    "connect_timeout": 5,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
}


STORE_FAULTS = (SQLAlchemyError, OSError)  # what comes of a full disk or a database that is gone


def connect(url: str) -> Engine:
    """Return an engine for `url`; raise StoreError for an unsupported kind of database."""
    try:
        parsed = make_url(url)
        if parsed.get_backend_name() == "postgresql" and parsed.drivername == "postgresql":
            parsed = parsed.set(drivername="postgresql+psycopg")
        if parsed.get_backend_name() not in ("sqlite", "postgresql"):
            raise StoreError(f"{parsed.drivername!r} is no database for a store; sqlite:///FILE or postgresql://… is")
        if parsed.get_backend_name() == "sqlite":
            # The last one used first: each connection that is used keeps two megabytes of the file.
            pool = {"pool_size": POOL_SIZE, "pool_use_lifo": True}
            engine = create_engine(parsed, hide_parameters=True, connect_args=SQLITE_ARGS, **pool)
            event.listen(engine, "connect", _set_up_sqlite)
            return engine
        return create_engine(parsed, hide_parameters=True, pool_pre_ping=True, connect_args=POSTGRESQL_ARGS)
    except ArgumentError:
        # It may hold a password.
        raise StoreError(
            "what --database names is no address of a database; postgresql://USER@HOST/NAME is one"
        ) from None
    except ImportError:
        raise StoreError("PostgreSQL takes a driver: pip install 'likely[postgresql]'") from None


def is_current(engine: Engine) -> bool:
    """Return True if the tables match this version; raise StoreError if a later version created them."""
    with engine.connect() as connection:
        there = inspect(connection).has_table("alembic_version")
        here = connection.scalar(text("SELECT version_num FROM alembic_version")) if there else None
    known = _revisions()
    if here is not None and here not in known:
        raise StoreError(f"the store is of a later version of Likely ({here}); use that, or a backup of before")
    return here == known[-1]


def _revisions() -> list[str]:
    """List the revisions of the tables, the newest last, from the file names: loading alembic takes long and is rarely
    needed.
    """
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


def _set_up_sqlite(connection: Any, _: object) -> None:
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")  # who reads does not wait for who writes
    cursor.execute("PRAGMA synchronous=FULL")  # what was committed survives a power cut
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.close()
