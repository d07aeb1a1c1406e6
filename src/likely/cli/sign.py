"""likely sign: a signature over all files of a model folder."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("model", type=click.Path(path_type=Path, exists=True, file_okay=False), required=False)
@click.option(
    "--key", type=click.Path(path_type=Path, exists=True, dir_okay=False), help="The private key to sign with."
)
@click.option("--new-key", type=click.Path(path_type=Path, dir_okay=False), help="Make a key first, FILE and FILE.pub.")
def command(model: Path | None, key: Path | None, new_key: Path | None) -> None:
    """Sign every file of MODEL. Whoever has FILE.pub can check it: `likely verify`, or --require-signature where it is used."""
    from likely.checkpoint import signing

    if (key is None) == (new_key is None):
        raise click.UsageError("name the private key with --key, or make one with --new-key")
    if new_key is not None:
        public = signing.new_key(new_key)
        click.echo(f"private key: {new_key}, for you alone; public key: {public}, for those who check", err=True)
    if model is None:
        if key is not None:
            raise click.UsageError("name the model folder to sign")
        return
    chosen = key or new_key
    assert chosen is not None
    signing.sign(model, chosen)
    click.echo(f"signed: {model}", err=True)
