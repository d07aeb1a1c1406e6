"""Errors of the command line: one sentence on stderr and an exit code. Tracebacks go to a log file, never to the user."""

from __future__ import annotations

import errno
import os
import shlex
import sys
import tempfile
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import NoReturn

import click

from likely.exceptions import InsufficientMemoryError, LikelyError
from likely.version import __version__

INVALID, INTERNAL, INTERRUPTED = 2, 3, 130
NO_SPACE = {errno.ENOSPC, errno.EDQUOT}  # Python's file objects raise these without a file name


@contextmanager
def error_boundary() -> Iterator[None]:
    """Exit with one sentence and the error's exit code: 2 for an invalid request, 3 for an internal error."""
    try:
        try:
            yield
        finally:
            sys.stdout.flush()  # here, because Python's own flush at exit reports a closed pipe as an error
    except (KeyboardInterrupt, click.Abort):
        click.echo("Stopped.", err=True)
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        silence_stdout()
        sys.exit(0)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except LikelyError as error:
        _exit(str(error), error.exit_code)
    except OSError as error:
        if error.filename is None and error.errno not in NO_SPACE:
            _exit(_internal(error), INTERNAL)
        _exit(f"{error.filename or 'output'}: {_reason(error)}", INVALID)
    except Exception as error:
        _exit(_internal(error), INTERNAL)


@contextmanager
def memory_boundary(remedy: str) -> Iterator[None]:
    """Convert a failed allocation to an InsufficientMemoryError whose sentence ends in a remedy."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not _is_out_of_memory(error):
            raise
        raise InsufficientMemoryError(f"out of memory; {remedy}") from error


def silence_stdout() -> None:
    """Discard all further output, because the reader has closed the pipe."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _exit(sentence: str, code: int) -> NoReturn:
    click.secho("Error: ", fg="red", bold=True, nl=False, err=True)
    click.echo(sentence, err=True)
    sys.exit(code)


def _reason(error: OSError) -> str:
    return (error.strerror or str(error)).lower()


def _is_out_of_memory(error: MemoryError | RuntimeError) -> bool:
    """torch raises an OutOfMemoryError on accelerators and a plain RuntimeError on the CPU."""
    return isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError" or "alloc_cpu" in str(error)


def _internal(error: Exception) -> str:
    return (
        f"Internal error: {type(error).__name__}. The traceback is in {_log(error)}; please report it together with the "
        "command."
    )


def _log(error: Exception) -> Path:
    """Write the traceback to a new file in the user's state folder, or in the temporary folder if that is read-only."""
    now = datetime.now(UTC)
    command = shlex.join(["likely", *sys.argv[1:]])
    text = f"{now:%Y-%m-%d %H:%M:%S} UTC, likely {__version__}, Python {sys.version}\n{command}\n\n"
    text += "".join(traceback.format_exception(error))
    for folder in (_state_folder(), Path(tempfile.gettempdir())):
        path = folder / f"likely-{now:%Y%m%d-%H%M%S-%f}.log"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        except OSError:
            continue
        return path
    return Path(os.devnull)


def _state_folder() -> Path:
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "likely"
