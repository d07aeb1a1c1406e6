"""Errors whose message is written for a user, each with the exit code and the HTTP status that it leads to.

A message names the value, says what was expected and, where there is one, the nearest valid choice. Every other exception is
an internal error: exit code 3 or HTTP 500, with its traceback in the log. Subclasses also derive from the built-in exception
that callers of a Python library expect.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import ClassVar


class LikelyError(Exception):
    """Base class of all errors that a user can act on."""

    exit_code: ClassVar[int] = 2
    http_status: ClassVar[int] = 422


class InvalidValueError(LikelyError, ValueError):
    """An argument, option or input that cannot be used as given."""


class UnsupportedError(LikelyError, AttributeError):
    """A capability that the model lacks; an AttributeError, so that scikit-learn's `available_if` hides the method."""


class DataError(InvalidValueError):
    """DATA that is not understood as a whole."""


class ImageError(InvalidValueError):
    """One image that cannot be read or written."""


class CheckpointError(InvalidValueError):
    """A model folder that is missing, damaged, of another version, or not trusted."""


class BackboneError(InvalidValueError):
    """A pretrained backbone that cannot be found or used."""


class ExtractorError(InvalidValueError):
    """A feature extractor for evaluation that cannot be found or used."""


class TrainConfigError(InvalidValueError):
    """A training that cannot start as configured."""


class BenchmarkError(InvalidValueError):
    """A benchmark that cannot run as configured."""


class StoreError(InvalidValueError):
    """A prediction store that cannot be opened or used."""


class UnknownModelError(LikelyError, LookupError):
    """A model that is not served."""

    http_status = 404


class InsufficientMemoryError(LikelyError, MemoryError):
    """A computation that does not fit into memory."""

    http_status = 503


class DivergenceError(LikelyError, ArithmeticError):
    """A loss that became NaN or exploded repeatedly, at ever lower learning rates."""

    exit_code = 1


def did_you_mean(word: str, choices: Iterable[str]) -> str:
    """Return "; did you mean 'cat'?" for the choice most similar to an unknown `word`, ignoring case, or "" if none is."""
    by_folded = {choice.casefold(): choice for choice in choices}
    close = difflib.get_close_matches(word.casefold(), by_folded, n=1)
    return f"; did you mean {by_folded[close[0]]!r}?" if close else ""
