"""Errors as sentences: what was given, what was expected, what to do. A traceback never reaches a user."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

USAGE, FAILED, INTERRUPTED = 2, 1, 130


@contextmanager
def sentences() -> Iterator[None]:
    """Turn whatever goes wrong inside into a sentence on stderr and an exit code."""
    try:
        yield
    except (click.exceptions.Exit, SystemExit):
        raise
    except (KeyboardInterrupt, click.Abort):
        leave("Stopped.", INTERRUPTED)
    except BrokenPipeError:  # the reader of our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except (
        ValueError,
        ArithmeticError,
    ) as error:  # our own, which speak in sentences; a validation's, which can be made to
        leave(_sentence(error), USAGE)
    except OSError as error:
        leave(f"{error.filename or 'a file'}: {(error.strerror or str(error)).lower()}", USAGE)
    except Exception as error:
        leave(_apology(error), FAILED)


def leave(sentence: str, code: int) -> None:
    """Say a sentence on stderr and exit."""
    click.secho("Error: ", fg="red", bold=True, nl=False, err=True)
    click.echo(sentence, err=True)
    sys.exit(code)


def _sentence(error: Exception) -> str:
    """The message, or for options that did not validate one sentence each, by the names that people type."""
    from pydantic import ValidationError

    if isinstance(error, ValidationError):
        return "; ".join(_fault(fault["loc"], fault["msg"], fault["input"]) for fault in error.errors())
    if _is_ours(error):
        return str(error)
    return _apology(error)


def _fault(place: tuple[int | str, ...], message: str, given: object) -> str:
    message = message.removeprefix("Value error, ").replace("Input should be", "should be")
    if not place or not isinstance(given, str | int | float | bool):
        return message
    option = "--" + "-".join(str(part) for part in place).replace("_", "-")
    return f"{option} {message}" if str(given) in message else f"{option} {message}, and {given!r} is not"


def _is_ours(error: Exception) -> bool:
    """Whether the project itself raised it: then its message was written for a user."""
    frames = traceback.extract_tb(error.__traceback__)
    return bool(frames) and f"{os.sep}likely{os.sep}" in frames[-1].filename


def _apology(error: Exception) -> str:
    where = traceback.extract_tb(error.__traceback__)[-1]
    return (
        f"Likely stumbled over a fault of its own: {type(error).__name__}: {error} "
        f"(at {Path(where.filename).name}:{where.lineno}). Please report it with the command that you typed."
    )
