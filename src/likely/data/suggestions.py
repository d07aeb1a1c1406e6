"""The nearest valid choice: what a message offers to whoever mistyped a name."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest(word: str, choices: Iterable[str]) -> str | None:
    """The choice most like `word`, capitals ignored, or None if none is close."""
    by_folded = {choice.casefold(): choice for choice in choices}
    close = difflib.get_close_matches(word.casefold(), by_folded, n=1)
    return by_folded[close[0]] if close else None


def did_you_mean(word: str, choices: Iterable[str]) -> str:
    """The end of a sentence about an unknown `word`: "; did you mean 'cat'?", or nothing if no choice is close."""
    choice = nearest(word, choices)
    return "" if choice is None else f"; did you mean {choice!r}?"
