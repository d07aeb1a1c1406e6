"""The program, run in this process."""

from __future__ import annotations

import io
from contextlib import redirect_stderr, redirect_stdout
from typing import NamedTuple

import pytest

from likely.cli import main


class Result(NamedTuple):
    """The end of a command: exit code, stdout, stderr."""

    code: int
    out: str
    err: str


def run(*words: object) -> Result:
    """Run `likely …` in this process."""
    out, err = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err), pytest.raises(SystemExit) as stop:
        main([str(word) for word in words])
    return Result(int(stop.value.code or 0), out.buffer.getvalue().decode(), err.getvalue())  # type: ignore[attr-defined]
