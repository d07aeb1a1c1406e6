"""The two streams of a terminal: `screen` on stdout, for what was asked; `console` on stderr, for what one sees meanwhile."""

from __future__ import annotations

from typing import NoReturn

from rich.console import Console


class Stream(Console):
    """A console that leaves it to `errors.sentences` what it means that its reader is gone."""

    def on_broken_pipe(self) -> NoReturn:
        raise  # what rich is handling when it calls this; by itself it would exit with 1


screen = Stream(highlight=False)
console = Stream(stderr=True, highlight=False)
