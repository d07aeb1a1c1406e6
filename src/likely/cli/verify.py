"""likely verify: verify the signature of a model folder."""

from __future__ import annotations

from pathlib import Path

import click

from likely.cli.model_argument import PUBLIC_KEY


@click.command()
@click.argument("model", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--key", type=PUBLIC_KEY, required=True, help="The public key, FILE.pub.")
def command(model: Path, key: Path) -> None:
    """Check that every file of MODEL is signed and unchanged, and that no file was added."""
    from likely.checkpoint import signing

    signed = signing.verify(model, key)
    for name in signed:
        signing.check(model / name, (model / name).read_bytes(), signed)
    click.echo(f"{model}: signature valid, {len(signed)} files", err=True)
