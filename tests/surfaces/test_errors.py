"""How a program ends: its exit code, and one sentence."""

import subprocess
import sys
from types import SimpleNamespace

import click
import pytest

import likely
from likely.cli.errors import error_boundary
from likely.exceptions import DivergenceError, is_internal


def ended(raised, where=likely.__file__):
    """The exit code after an error that was raised in a file."""
    source = compile("raise raised", where, "exec")
    with pytest.raises(SystemExit) as stop, error_boundary():
        exec(source, {"raised": raised})
    return stop.value.code


@pytest.mark.parametrize(
    ("raised", "code", "said"),
    [
        (KeyboardInterrupt(), 130, "Stopped."),
        (click.Abort(), 130, "Stopped."),
        (ValueError("photos: is empty"), 2, "Error: photos: is empty"),
        (click.UsageError("--out is missing"), 2, "Error: --out is missing"),
        (FileNotFoundError(2, "No such file", "x.png"), 2, "Error: x.png: no such file"),
        (DivergenceError("the loss went astray"), 1, "Error: the loss went astray"),
        (KeyError("k"), 1, "report"),
    ],
)
def test_every_error_has_its_code_and_its_sentence(raised, code, said, capsys):
    assert ended(raised) == code
    assert said in capsys.readouterr().err


def test_only_the_packages_own_words_pass_as_they_are(capsys):
    """Not those of a library that lies in an environment inside a clone that is called likely."""
    assert ended(ValueError("axis 3 is out of bounds"), "/home/me/likely/.venv/lib/numpy/core.py") == 1
    assert "report" in capsys.readouterr().err
    assert not is_internal(SimpleNamespace(__traceback__=None))


@pytest.mark.parametrize("words", [["models"], ["models", "--json"], ["train", "--help"]])
def test_a_reader_that_leaves_early_is_no_fault(words):
    process = subprocess.Popen(
        [sys.executable, "-m", "likely", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    process.stdout.close()
    assert process.stderr.read() == ""
    process.stderr.close()
    assert process.wait(60) == 0


def test_ctrl_c_says_so_and_leaves_with_130(tmp_path):
    """While something is read, from a pipe that nobody writes to."""
    script = "import os, signal, likely.cli as c, likely.cli.info as i\n"
    script += (
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # who runs tests in the background ignores it
    )
    script += "i.command.callback = lambda **_: os.kill(os.getpid(), signal.SIGINT)\nc.main(['info', '.'])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 130
    assert done.stderr.split() == ["Stopped."]
