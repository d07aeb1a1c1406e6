"""likely models: list the families and their options."""

from __future__ import annotations

import json

import click


@click.command()
@click.argument("family", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print the JSON schema of the options.")
def command(family: str | None, as_json: bool) -> None:
    """List the model families and their options, or those of one FAMILY."""
    from likely import models

    kinds = {family: models.family(family)} if family else models.FAMILIES
    if as_json:
        click.echo(json.dumps({name: kind.options_type.model_json_schema() for name, kind in kinds.items()}, indent=2))
        return
    from rich.table import Table

    from likely.cli.console import screen
    from likely.cli.flags import flag_name

    for name, kind in kinds.items():
        screen.print(f"[bold]{name}[/]  {models.summary(kind)}", soft_wrap=True)
        table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2))
        for option, field in kind.options_type.model_fields.items():
            table.add_row(f"  {flag_name(option)}", str(field.default), field.description or "")
        screen.print(table, "")
    screen.print("[dim]`likely train DATA --model FAMILY --help` lists the options that all families share.")
