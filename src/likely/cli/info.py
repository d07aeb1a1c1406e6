"""likely info: a model's card."""

from __future__ import annotations

import sys
from pathlib import Path

import click


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print model.json instead.")
def command(model: Path, as_json: bool) -> None:
    """Show what a MODEL folder holds: family, classes, figures, data, limits, options."""
    import json

    from likely.checkpoint import read_document

    document = read_document(model)
    if as_json:
        click.echo(json.dumps(document, indent=2, ensure_ascii=False))
        return
    from rich.markdown import Markdown

    from likely.cli.console import screen

    path = model / "README.md"
    if not path.exists():
        raise click.UsageError(f"{path} is missing; `likely info {model} --json` shows what the model itself says")
    text = path.read_text(encoding="utf-8")
    body = text.split("\n---\n", 1)[-1] if text.startswith("---\n") else text
    if sys.stdout.isatty():
        screen.print(Markdown(body))
    else:
        click.echo(body.strip())
