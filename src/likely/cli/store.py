"""likely store: keep, copy and thin out what a service has answered."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from likely.cli.encrypt import KEY_FILE
from likely.cli.serve import DATABASE, STORE, image_keys, require_packages

if TYPE_CHECKING:
    from likely.checkpoint.encryption import Keyring
    from likely.server.store import Store

FOLDER = click.Path(path_type=Path, file_okay=False)
WHICH = click.option("--store", "folder", type=FOLDER, default=STORE, show_default=True, help="The store's folder.")


@click.group(name="store")
def command() -> None:
    """Copy, bring back and thin out what a service has answered."""


@command.command()
@click.argument("out", type=FOLDER)
@WHICH
@DATABASE
def backup(out: Path, folder: Path, database: str | None) -> None:
    """Copy everything to the new folder OUT, as it is at one moment. The service may go on meanwhile."""
    from likely.cli.progress import progress_bar

    opened = open_store(folder, database)
    from likely.server.store.backup import backup as copied

    with progress_bar("copying images") as progress:
        n = copied(opened, out, progress)
    click.echo(f"backup: {out}, {n:,} images", err=True)


@command.command()
@click.argument("backup", type=FOLDER)
@WHICH
@DATABASE
def restore(backup: Path, folder: Path, database: str | None) -> None:
    """Make a store of the folder BACKUP, in a new folder or an empty database."""
    from likely.cli.progress import progress_bar

    with require_packages():
        from likely.server.store.backup import restore as copied
    with progress_bar("copying images") as progress:
        n = copied(backup, folder, database, progress)
    click.echo(f"store: {folder}, {n:,} images", err=True)


@command.command()
@click.option(
    "--older-than",
    type=click.FloatRange(0, min_open=True),
    required=True,
    metavar="DAYS",
    help="Age in days from which predictions are removed.",
)
@WHICH
@DATABASE
def prune(older_than: float, folder: Path, database: str | None) -> None:
    """Forget what was answered more than DAYS ago and that nobody labeled, with images that nothing is left of.

    No service must run meanwhile; `likely serve --retention-days` does the same by itself.
    """
    opened = open_store(folder, database, exclusive=True)
    n = opened.prune(older_than)
    opened.audit("retention", f"{n} predictions older than {older_than:g} days", key=None, address="")
    click.echo(f"{n:,} predictions forgotten", err=True)


@command.command(name="encrypt")
@click.option(
    "--image-key",
    type=KEY_FILE,
    multiple=True,
    help="The first encrypts, all open; without it those of LIKELY_IMAGE_KEY.",
)
@WHICH
@DATABASE
def encrypt_(image_key: tuple[Path, ...], folder: Path, database: str | None) -> None:
    """Encrypt all images on the disk, those that are already with a new key; the service must not run meanwhile."""
    keys = image_keys(image_key)
    if not keys:
        raise click.UsageError("a key is needed: --image-key FILE, or LIKELY_IMAGE_KEY")
    opened = open_store(folder, database, keys, exclusive=True)
    n = opened.files.encrypt_all()
    opened.audit("images encrypted", f"{n}", key=None, address="")
    click.echo(f"{n:,} images encrypted", err=True)


def open_store(folder: Path, database: str | None, keys: Keyring | None = None, *, exclusive: bool = False) -> Store:
    """The store in a folder, open as long as the command runs; a UsageError if there is none."""
    with require_packages():
        from likely.server.store import Store
    if database is None and not (folder / "likely.sqlite").exists():
        raise click.UsageError(f"{folder} holds no store; `likely serve MODEL --store {folder}` begins one")
    opened = Store.open(folder, database, keys, exclusive=exclusive)
    click.get_current_context().call_on_close(opened.close)
    return opened
