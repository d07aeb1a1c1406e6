"""likely verify: whether a model is what was signed."""

from __future__ import annotations

from pathlib import Path

import click

from likely.cli.model_argument import PUBLIC_KEY


@click.command()
@click.argument("model", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--key", type=PUBLIC_KEY, required=True, help="The public key, FILE.pub.")
def command(model: Path, key: Path) -> None:
    """Say whether every file of MODEL is what the holder of the private key signed, and whether none was added."""
    from likely.checkpoint import signing

    listed = signing.verify(model, key)
    for name in listed:
        signing.check(model / name, (model / name).read_bytes(), listed)
    click.echo(f"{model} is what was signed: {len(listed)} files", err=True)
