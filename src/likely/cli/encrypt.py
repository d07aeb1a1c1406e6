"""likely encrypt: a model folder that nobody without the key can read."""

from __future__ import annotations

from pathlib import Path

import click

KEY_FILE = click.Path(path_type=Path, exists=True, dir_okay=False)


@click.command()
@click.argument("model", type=click.Path(path_type=Path, exists=True, file_okay=False), required=False)
@click.option("--key", type=KEY_FILE, help="The file of the key to encrypt with.")
@click.option(
    "--old-key", type=KEY_FILE, multiple=True, help="Keys that open what is encrypted already, to encrypt it anew."
)
@click.option("--new-key", type=click.Path(path_type=Path, dir_okay=False), help="Make a key in a new file first.")
def command(model: Path | None, key: Path | None, old_key: tuple[Path, ...], new_key: Path | None) -> None:
    """Encrypt every file of MODEL (AES-256-GCM). LIKELY_MODEL_KEY=FILE opens it wherever a model is used."""
    from likely.checkpoint import encrypt
    from likely.checkpoint.encryption import Keyring
    from likely.checkpoint.encryption import new_key as make

    if (key is None) == (new_key is None):
        raise click.UsageError("name the key's file with --key, or make one with --new-key")
    if new_key is not None:
        make(new_key)
        click.echo(f"key: {new_key}; without it what it encrypts is lost", err=True)
    if model is None:
        if key is not None:
            raise click.UsageError("name the model folder to encrypt")
        return
    chosen = key or new_key
    assert chosen is not None
    n = encrypt(model, Keyring.from_files([chosen, *old_key]))
    click.echo(f"encrypted: {model}, {n} files; a signature, if there was one, has to be made anew", err=True)
