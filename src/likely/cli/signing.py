"""likely sign and likely verify: sign a model folder, and verify its signature."""

from __future__ import annotations

from pathlib import Path

import click

from likely.cli.encryption import one_key
from likely.cli.model_argument import KEY_FILE


@click.command()
@click.argument("model", type=click.Path(path_type=Path, exists=True, file_okay=False), required=False)
@click.option("--key", type=KEY_FILE, help="Private key to sign with.")
@click.option(
    "--new-key",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Create a key pair, FILE and FILE.pub, and sign with it.",
)
def sign(model: Path | None, key: Path | None, new_key: Path | None) -> None:
    """Sign every file of MODEL.

    Anyone with FILE.pub can check the signature with `likely verify` or --require-signature. With --new-key alone, only the
    key pair is created.
    """
    from likely.checkpoint import signing

    chosen = one_key(key, new_key)
    if new_key is not None:
        public = signing.new_key(new_key)
        click.echo(f"private key: {new_key}, keep it secret; public key: {public}, publish it", err=True)
    if model is not None:
        signing.sign(model, chosen)
        click.echo(f"signed: {model}", err=True)
    elif key is not None:
        raise click.UsageError("name the model folder to sign")


@click.command()
@click.argument("model", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--key", type=KEY_FILE, required=True, help="The public key, FILE.pub.")
def verify(model: Path, key: Path) -> None:
    """Check that every file of MODEL is signed and unchanged, and that no file was added."""
    from likely.checkpoint import signing

    signed = signing.verify(model, key)
    for name in signed:
        signing.check(model / name, (model / name).read_bytes(), signed)
    click.echo(f"{model}: signature valid, {len(signed)} files", err=True)
