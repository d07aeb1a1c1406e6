"""likely decrypt: decrypt a model folder."""

from __future__ import annotations

from pathlib import Path

import click

from likely.cli.encrypt import KEY_FILE


@click.command()
@click.argument("model", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--key", type=KEY_FILE, required=True, multiple=True, help="Key file that MODEL was encrypted with.")
def command(model: Path, key: tuple[Path, ...]) -> None:
    """Decrypt every file of MODEL."""
    from likely.checkpoint import decrypt, is_encrypted
    from likely.checkpoint.encryption import Keyring

    if not is_encrypted(model):
        raise click.UsageError(f"{model} is not encrypted")
    n = decrypt(model, Keyring.from_files(key))
    click.echo(f"decrypted: {model}, {n} files", err=True)
