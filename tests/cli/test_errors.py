"""Errors of the command line: each kind has its exit code, and nobody sees a traceback."""

import subprocess
import sys

import click
import pytest

from likely.cli.errors import error_boundary
from likely.exceptions import DivergenceError, InvalidValueError


def exit_code(error):
    with pytest.raises(SystemExit) as stop, error_boundary():
        raise error
    return stop.value.code


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (KeyboardInterrupt(), 130),
        (click.Abort(), 130),
        (InvalidValueError("photos: is empty"), 2),
        (click.UsageError("--out is missing"), 2),
        (FileNotFoundError(2, "No such file", "x.png"), 2),
        (DivergenceError("the loss diverged"), 1),
        (ValueError("axis 3 is out of bounds"), 3),
        (KeyError("k"), 3),
    ],
)
def test_every_kind_of_error_has_its_exit_code(error, code, capsys):
    assert exit_code(error) == code
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize("words", [["models"], ["models", "--json"], ["train", "--help"]])
def test_a_closed_pipe_is_no_error(words):
    process = subprocess.Popen(
        [sys.executable, "-m", "likely", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    process.stdout.close()
    assert process.stderr.read() == ""
    process.stderr.close()
    assert process.wait(60) == 0


def test_ctrl_c_exits_with_130():
    """Sent while a command runs."""
    script = "import os, signal, likely.cli as c, likely.cli.info as i\n"
    script += "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a test run in the background ignores it
    script += "i.command.callback = lambda **_: os.kill(os.getpid(), signal.SIGINT)\nc.main(['info', '.'])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 130
    assert done.stderr.split() == ["Stopped."]
