"""Backup and restore of a prediction store, whatever databases are on either side."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from sqlalchemy import Connection, func, insert, select

from likely.exceptions import StoreError
from likely.server.store.images import BlobStore
from likely.server.store.schema import Base, ImageRow
from likely.server.store.store import Store

BATCH_SIZE = 1000  # rows


def backup(store: Store, out: Path, progress: Callable[[int, int], None] = lambda done, of: None) -> int:
    """Copy a store, as it is at one moment, into a new folder with a SQLite database; return the number of images.

    The service may run meanwhile. Raises StoreError if the folder is not empty.
    """
    return _copy(store, _new(out, None), progress)


def restore(
    source: Path, folder: Path, url: str | None, progress: Callable[[int, int], None] = lambda done, of: None
) -> int:
    """Copy a backup into a new store, in a folder or with its database at `url`; return the number of images.

    Raises StoreError if the target already holds data.
    """
    if not (source / "likely.sqlite").exists():
        raise StoreError(f"{source} is not a backup; a folder with likely.sqlite was expected")
    return _copy(Store.open(source), _new(folder, url), progress)


def _new(folder: Path, url: str | None) -> Store:
    if folder.exists() and any(folder.iterdir()):
        raise StoreError(f"{folder} is not empty; name a new folder")
    store = Store.open(folder, url)
    with store.engine.connect() as connection:
        tables = Base.metadata.sorted_tables
        is_empty = not any(connection.scalar(select(func.count()).select_from(table)) for table in tables)
    if not is_empty:
        store.close()
        raise StoreError("the database of --database is not empty; an empty one was expected")
    return store


def _copy(source: Store, target: Store, progress: Callable[[int, int], None]) -> int:
    with source.engine.connect() as old, target.engine.begin() as new:
        _freeze(old)
        _copy_rows(old, new)
        images = list(new.scalars(select(ImageRow.sha256)))
        for i, key in enumerate(images):
            _copy_file(source.files, target.files, key)
            progress(i + 1, len(images))
    for version in sorted((source.folder / "models").glob("*")):
        shutil.copytree(version, target.folder / "models" / version.name)
    source.close()
    target.close()
    return len(images)


def _freeze(connection: Connection) -> None:
    """Start a transaction in which all reads see the same state."""
    if connection.dialect.name == "postgresql":
        connection.execution_options(isolation_level="REPEATABLE READ")
    else:
        connection.exec_driver_sql("BEGIN")  # the driver would start a transaction only for a write


def _copy_rows(old: Connection, new: Connection) -> None:
    """Copy tables in the order of their foreign keys."""
    for table in Base.metadata.sorted_tables:
        rows = old.execution_options(stream_results=True).execute(select(table))
        for some in rows.partitions(BATCH_SIZE):
            new.execute(insert(table), [row._asdict() for row in some])


def _copy_file(source: BlobStore, target: BlobStore, key: str) -> None:
    place = target.path(key)
    place.parent.mkdir(exist_ok=True)
    place.write_bytes(source.read_raw(key))
