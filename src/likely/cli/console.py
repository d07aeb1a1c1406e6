"""Terminal output: `screen` writes results to stdout, `console` writes progress and messages to stderr."""

from __future__ import annotations

from typing import NoReturn

from rich.console import Console


class _Stream(Console):
    """A console that leaves a closed pipe to `errors.error_boundary`."""

    def on_broken_pipe(self) -> NoReturn:
        raise  # the BrokenPipeError that rich is handling; by default rich exits with 1


screen = _Stream(highlight=False)
console = _Stream(stderr=True, highlight=False)
