"""Terminal output: `screen` writes results to stdout, `console` writes progress, messages and warnings to stderr."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NoReturn

from rich.console import Console
from rich.text import Text

if TYPE_CHECKING:
    from likely.data.sources.base import LoadError

MAX_SHOWN = 10  # skipped inputs on a terminal; a file or pipe gets all of them


class _Stream(Console):
    """A console that leaves a closed pipe to `errors.error_boundary`."""

    def on_broken_pipe(self) -> NoReturn:
        raise  # the BrokenPipeError that rich is handling; by default rich exits with 1


screen = _Stream(highlight=False)
console = _Stream(stderr=True, highlight=False)


def print_skipped(errors: Sequence[LoadError], *, list_command: str) -> None:
    """Print one line for each skipped input; `list_command` is the command that lists all of them."""
    shown = errors[:MAX_SHOWN] if console.is_terminal else errors
    lines = [error.message for error in shown]
    if len(errors) > len(shown):
        lines.append(f"{len(errors) - len(shown):,} more; `{list_command}` lists all")
    for line in lines:
        console.print(Text.assemble(("skipped:", "yellow"), " ", line), soft_wrap=True)
