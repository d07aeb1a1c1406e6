"""Suggestions of the nearest valid choice for a mistyped name."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def _nearest(word: str, choices: Iterable[str]) -> str | None:
    """Return the choice most similar to `word`, ignoring case, or None if none is close."""
    by_folded = {choice.casefold(): choice for choice in choices}
    close = difflib.get_close_matches(word.casefold(), by_folded, n=1)
    return by_folded[close[0]] if close else None


def did_you_mean(word: str, choices: Iterable[str]) -> str:
    """Return "; did you mean 'cat'?" for the choice nearest to an unknown `word`, or "" if none is close."""
    choice = _nearest(word, choices)
    return "" if choice is None else f"; did you mean {choice!r}?"
