"""likely keys: who may ask a service."""

from __future__ import annotations

from pathlib import Path

import click

from likely.cli.serve import DATABASE
from likely.cli.store import WHICH, open_store

SCOPES = ("read", "classify", "label", "admin")


@click.group(name="keys")
def command() -> None:
    """Make, list and revoke the API keys of a service."""


@command.command()
@click.argument("name")
@click.option(
    "--scope", "scopes", multiple=True, type=click.Choice(SCOPES), required=True, help="What it may do; several."
)
@click.option("--days", type=click.FloatRange(0, min_open=True), help="Until it expires; never, when left out.")
@WHICH
@DATABASE
def add(name: str, scopes: tuple[str, ...], days: float | None, folder: Path, database: str | None) -> None:
    """Make a key for NAME and show its secret, this once."""
    store = open_store(folder, database)
    from likely.server.store import Scope

    key, secret = store.keys.add(name, map(Scope, scopes), days=days)
    store.audit("key added", f"{key.id} {name}", key=None, address="")
    click.echo(secret)


@command.command(name="list")
@WHICH
@DATABASE
def list_(folder: Path, database: str | None) -> None:
    """All keys, without their secrets."""
    lines = [("id", "may", "until", "name")]
    for key in open_store(folder, database).keys.all():
        until = f"{key.expires:%Y-%m-%d}" if key.expires else "for good"
        if key.invalid_reason is not None:
            until = "revoked" if key.revoked else f"expired {until}"
        lines.append((key.id, ",".join(sorted(key.scopes)), until, key.name))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        click.echo("  ".join(f"{word:<{width}}" for word, width in zip(line, widths, strict=True)).rstrip())


@command.command()
@click.argument("id")
@WHICH
@DATABASE
def revoke(id: str, folder: Path, database: str | None) -> None:
    """From now on the key ID opens nothing."""
    store = open_store(folder, database)
    if not store.keys.revoke(id):
        raise click.UsageError(f"there is no key {id!r}; `likely keys list` shows all")
    store.audit("key revoked", id, key=None, address="")
    click.echo(f"revoked: {id}", err=True)
