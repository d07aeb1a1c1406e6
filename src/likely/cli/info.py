"""likely info: show a model's card."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print model.json instead.")
def command(model: Path, as_json: bool) -> None:
    """Show the card of MODEL: family, classes, metrics, data, limitations, options."""
    from likely.checkpoint import read_document

    document = read_document(model)
    if as_json:
        click.echo(json.dumps(document, indent=2, ensure_ascii=False))
    else:
        _print_card(_card(model))


def _card(model: Path) -> str:
    """Return README.md without its YAML header."""
    path = model / "README.md"
    if not path.exists():
        raise click.UsageError(f"{path} is missing; `likely info {model} --json` prints model.json instead")
    text = path.read_text(encoding="utf-8", errors="replace")
    return text.split("\n---\n", 1)[-1] if text.startswith("---\n") else text


def _print_card(text: str) -> None:
    from rich.markdown import Markdown

    from likely.cli.console import screen

    if sys.stdout.isatty():
        screen.print(Markdown(text))
    else:
        click.echo(text.strip())
