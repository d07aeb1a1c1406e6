"""What was left out of DATA, on stderr: the first few on a terminal, every one where a file or a program reads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from likely.data.sources.base import LoadError

MAX_SHOWN = 10


def print_skipped(errors: Sequence[LoadError], *, all_named_by: str) -> None:
    """A line a problem; where there are too many for a terminal, how many more, and the command that names them all."""
    from rich.text import Text

    from likely.cli.console import console

    shown = errors[:MAX_SHOWN] if console.is_terminal else errors
    lines = [problem.message for problem in shown]
    if len(errors) > len(shown):
        lines.append(f"{len(errors) - len(shown):,} more; `{all_named_by}` names them all")
    for line in lines:
        console.print(Text.assemble(("left out:", "yellow"), " ", line), soft_wrap=True)
