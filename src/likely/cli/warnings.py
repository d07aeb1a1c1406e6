"""Warnings about skipped inputs: the first few on a terminal, all of them in a file or pipe."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from likely.data.sources.base import LoadError

MAX_SHOWN = 10


def print_skipped(errors: Sequence[LoadError], *, list_command: str) -> None:
    """Print one line for each skipped input; `list_command` is the command that lists all of them."""
    from rich.text import Text

    from likely.cli.console import console

    shown = errors[:MAX_SHOWN] if console.is_terminal else errors
    lines = [error.message for error in shown]
    if len(errors) > len(shown):
        lines.append(f"{len(errors) - len(shown):,} more; `{list_command}` lists all")
    for line in lines:
        console.print(Text.assemble(("skipped:", "yellow"), " ", line), soft_wrap=True)
