"""Errors as sentences: what was given, what was expected, what to do. A traceback never reaches a user."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from likely.exceptions import LikelyError

USAGE, INTERNAL, INTERRUPTED = 2, 3, 130


@contextmanager
def error_boundary() -> Iterator[None]:
    """Turn whatever goes wrong inside into a sentence on stderr and an exit code."""
    try:
        try:
            yield
        finally:
            sys.stdout.flush()  # now: at the interpreter's end it is too late to hear that the reader is gone
    except (KeyboardInterrupt, click.Abort):
        click.echo("Stopped.", err=True)
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        silence_stdout()
        sys.exit(0)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except Exception as error:
        _leave(*_explained(error))


def silence_stdout() -> None:
    """Write to nowhere from now on: the reader of our output has seen enough."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _leave(sentence: str, code: int) -> None:
    click.secho("Error: ", fg="red", bold=True, nl=False, err=True)
    click.echo(sentence, err=True)
    sys.exit(code)


def _explained(error: Exception) -> tuple[str, int]:
    """The sentence and the exit code."""
    from pydantic import ValidationError

    match error:
        case ValidationError():  # for each option one sentence, by the name that people type
            return "; ".join(_fault(fault["loc"], fault["msg"], fault["input"]) for fault in error.errors()), USAGE
        case OSError():
            return f"{error.filename or 'a file'}: {(error.strerror or str(error)).lower()}", USAGE
        case LikelyError():
            return str(error), error.exit_code
        case _:
            return _apology(error), INTERNAL


def _fault(place: tuple[int | str, ...], message: str, given: object) -> str:
    message = message.removeprefix("Value error, ").replace("Input should be", "should be")
    if not place or not isinstance(given, str | int | float | bool):
        return message
    option = "--" + "-".join(str(part) for part in place).replace("_", "-")
    return f"{option} {message}" if str(given) in message else f"{option} {message}, and {given!r} is not"


def _apology(error: Exception) -> str:
    where = traceback.extract_tb(error.__traceback__)[-1]
    return (
        f"Internal error: {type(error).__name__}: {error} "
        f"(at {Path(where.filename).name}:{where.lineno}). Please report it with the command that you typed."
    )
