"""likely store: back up, restore, prune and encrypt the store of a service."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from likely.cli.flags import FiniteRange
from likely.cli.model_argument import KEY_FILE
from likely.cli.serve import DATABASE, STORE, image_keys, require_packages

if TYPE_CHECKING:
    from likely.checkpoint.encryption import Keyring
    from likely.server.store import Store

FOLDER = click.Path(path_type=Path, file_okay=False)
STORE_FOLDER = click.option(
    "--store", "folder", type=FOLDER, default=STORE, show_default=True, help="Folder of the store."
)


@click.group(name="store")
def command() -> None:
    """Back up, restore and prune stored predictions."""


@command.command()
@click.argument("out", type=FOLDER)
@STORE_FOLDER
@DATABASE
def backup(out: Path, folder: Path, database: str | None) -> None:
    """Copy the store to the new folder OUT, as of one moment. The service may keep running."""
    from likely.cli.progress import progress_bar

    opened = open_store(folder, database)
    from likely.server.store.backup import backup as copy

    with progress_bar("copying images") as progress:
        n = copy(opened, out, progress)
    click.echo(f"backup: {out}, {n:,} images", err=True)


@command.command()
@click.argument("backup", type=FOLDER)
@STORE_FOLDER
@DATABASE
def restore(backup: Path, folder: Path, database: str | None) -> None:
    """Restore the folder BACKUP to a new folder or an empty database."""
    from likely.cli.progress import progress_bar

    with require_packages():
        from likely.server.store.backup import restore as copy
    with progress_bar("copying images") as progress:
        n = copy(backup, folder, database, progress)
    click.echo(f"store: {folder}, {n:,} images", err=True)


@command.command()
@click.option(
    "--older-than", type=FiniteRange(0, min_open=True), required=True, metavar="DAYS", help="Minimum age in days."
)
@STORE_FOLDER
@DATABASE
def prune(older_than: float, folder: Path, database: str | None) -> None:
    """Delete predictions without a true label that are older than DAYS, and images that no prediction refers to.

    Stop the service first, or let it prune by itself: `likely serve --retention-days`.
    """
    opened = open_store(folder, database, exclusive=True)
    n = opened.prune(older_than)
    opened.audit("retention", f"{n} predictions older than {older_than:g} days", key=None, address="")
    click.echo(f"{n:,} predictions deleted", err=True)


@command.command(name="encrypt")
@click.option(
    "--image-key",
    type=KEY_FILE,
    multiple=True,
    help="Key file; the first one encrypts, the others decrypt older images.  [default: LIKELY_IMAGE_KEY]",
)
@STORE_FOLDER
@DATABASE
def encrypt_(image_key: tuple[Path, ...], folder: Path, database: str | None) -> None:
    """Encrypt all images on disk, also those that are encrypted with an older key. Stop the service first."""
    keys = image_keys(image_key)
    if not keys:
        raise click.UsageError("a key is needed: --image-key FILE, or LIKELY_IMAGE_KEY")
    opened = open_store(folder, database, keys, exclusive=True)
    n = opened.files.encrypt_all()
    opened.audit("images encrypted", f"{n}", key=None, address="")
    click.echo(f"{n:,} images encrypted", err=True)


def open_store(folder: Path, database: str | None, keys: Keyring | None = None, *, exclusive: bool = False) -> Store:
    """Open the store in a folder until the command ends; a UsageError if there is none."""
    with require_packages():
        from likely.server.store import Store
    if database is None and not (folder / "likely.sqlite").exists():
        raise click.UsageError(f"{folder} contains no store; `likely serve MODEL --store {folder}` creates one")
    opened = Store.open(folder, database, keys, exclusive=exclusive)
    click.get_current_context().call_on_close(opened.close)
    return opened
