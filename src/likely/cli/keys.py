"""likely keys: manage the API keys of a service."""

from __future__ import annotations

from pathlib import Path

import click

from likely.cli.flags import FiniteRange
from likely.cli.serve import DATABASE
from likely.cli.store import STORE_FOLDER, open_store

SCOPES = ("read", "classify", "label", "admin")


@click.group(name="keys")
def command() -> None:
    """Create, list and revoke the API keys of a service."""


@command.command()
@click.argument("name")
@click.option(
    "--scope", "scopes", multiple=True, type=click.Choice(SCOPES), required=True, help="Permission; may be repeated."
)
@click.option("--days", type=FiniteRange(0, min_open=True), help="Days until the key expires.  [default: never]")
@STORE_FOLDER
@DATABASE
def add(name: str, scopes: tuple[str, ...], days: float | None, folder: Path, database: str | None) -> None:
    """Create a key called NAME and print its secret, which is shown only once."""
    store = open_store(folder, database)
    from likely.server.store import Scope

    key, secret = store.keys.add(name, map(Scope, scopes), days=days)
    store.audit("key added", f"{key.id} {name}", key=None, address="")
    click.echo(secret)


@command.command(name="list")
@STORE_FOLDER
@DATABASE
def list_(folder: Path, database: str | None) -> None:
    """List all keys, without their secrets."""
    rows = [("id", "scopes", "expires", "name")]
    for key in open_store(folder, database).keys.all():
        expires = f"{key.expires:%Y-%m-%d}" if key.expires else "never"
        if key.invalid_reason is not None:
            expires = "revoked" if key.revoked else f"expired {expires}"
        rows.append((key.id, ",".join(sorted(key.scopes)), expires, key.name))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        click.echo("  ".join(f"{word:<{width}}" for word, width in zip(row, widths, strict=True)).rstrip())


@command.command()
@click.argument("id")
@STORE_FOLDER
@DATABASE
def revoke(id: str, folder: Path, database: str | None) -> None:
    """Revoke the key ID."""
    store = open_store(folder, database)
    if not store.keys.revoke(id):
        raise click.UsageError(f"there is no key {id!r}; `likely keys list` lists all")
    store.audit("key revoked", id, key=None, address="")
    click.echo(f"revoked: {id}", err=True)
