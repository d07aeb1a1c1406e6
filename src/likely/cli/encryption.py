"""likely encrypt and likely decrypt: encrypt and decrypt a model folder."""

from __future__ import annotations

from pathlib import Path

import click

from likely.cli.model_argument import KEY_FILE


@click.command()
@click.argument("model", type=click.Path(path_type=Path, exists=True, file_okay=False), required=False)
@click.option("--key", type=KEY_FILE, help="Key file to encrypt with.")
@click.option("--old-key", type=KEY_FILE, multiple=True, help="Key file of a MODEL that is already encrypted.")
@click.option(
    "--new-key", type=click.Path(path_type=Path, dir_okay=False), help="Create this key file and encrypt with it."
)
def encrypt(model: Path | None, key: Path | None, old_key: tuple[Path, ...], new_key: Path | None) -> None:
    """Encrypt every file of MODEL with AES-256-GCM.

    Set LIKELY_MODEL_KEY=FILE to use an encrypted model in any command. With --new-key alone, only the key is created.
    """
    from likely import checkpoint
    from likely.checkpoint.encryption import Keyring
    from likely.checkpoint.encryption import new_key as create

    chosen = one_key(key, new_key)
    if new_key is not None:
        create(new_key)
        click.echo(f"key: {new_key}; models encrypted with it cannot be read without it", err=True)
    if model is not None:
        n = checkpoint.encrypt(model, Keyring.from_files([chosen, *old_key]))
        click.echo(f"encrypted: {model}, {n} files; sign it again if it was signed", err=True)
    elif key is not None:
        raise click.UsageError("name the model folder to encrypt")


@click.command()
@click.argument("model", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--key", type=KEY_FILE, required=True, multiple=True, help="Key file that MODEL was encrypted with.")
def decrypt(model: Path, key: tuple[Path, ...]) -> None:
    """Decrypt every file of MODEL."""
    from likely import checkpoint
    from likely.checkpoint.encryption import Keyring

    if not checkpoint.is_encrypted(model):
        raise click.UsageError(f"{model} is not encrypted")
    n = checkpoint.decrypt(model, Keyring.from_files(key))
    click.echo(f"decrypted: {model}, {n} files", err=True)


def one_key(key: Path | None, new_key: Path | None) -> Path:
    """Return --key or --new-key; a UsageError unless exactly one is there."""
    chosen = [path for path in (key, new_key) if path is not None]
    if len(chosen) != 1:
        raise click.UsageError("give either --key FILE or --new-key FILE")
    return chosen[0]
