"""Errors of the command line: each kind has its exit code, and no traceback is printed."""

import errno
import subprocess
import sys

import click
import numpy as np
import pytest
import torch
from program import run

from likely import experiment
from likely.cli.errors import error_boundary, memory_boundary
from likely.exceptions import DivergenceError, InsufficientMemoryError, InvalidValueError, UnknownModelError


@pytest.fixture(autouse=True)
def log_folder(tmp_path, monkeypatch):
    """The folder of log files, empty."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "state" / "likely"


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
        (UnknownModelError("no model 'a'"), 2),
        (click.UsageError("--out is missing"), 2),
        (FileNotFoundError(2, "No such file", "x.png"), 2),
        (OSError(errno.ENOSPC, "No space left on device"), 2),
        (DivergenceError("the loss diverged"), 1),
    ],
)
def test_user_error_has_no_traceback_and_no_log(error, code, log_folder, capsys):
    assert exit_code(error) == code
    assert "Traceback" not in capsys.readouterr().err
    assert not log_folder.exists()


@pytest.mark.parametrize(
    "error", [ValueError("axis 3 is out of bounds"), KeyError("k"), OSError("unnamed"), MemoryError(), AssertionError()]
)
def test_internal_error_has_its_traceback_in_a_log_file(error, log_folder, capsys):
    assert exit_code(error) == 3
    err = capsys.readouterr().err
    (log,) = log_folder.iterdir()
    assert str(log) in err
    assert "Traceback" not in err
    assert f"{type(error).__name__}" in log.read_text()
    assert "Traceback" in log.read_text()


def test_numpy_error_in_a_command_is_internal(monkeypatch, log_folder, tmp_path):
    monkeypatch.setattr(experiment, "start_run", lambda *args, **kwargs: np.zeros(3).reshape(2, 2))
    assert run("demo", "--out", tmp_path / "demo").code == 3
    assert len(list(log_folder.iterdir())) == 1


def test_operating_system_error_names_the_file(capsys):
    assert exit_code(PermissionError(errno.EACCES, "Permission denied", "photos/cat.png")) == 2
    assert "photos/cat.png" in capsys.readouterr().err


def test_log_is_a_temporary_file_without_a_writable_folder(monkeypatch, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert exit_code(KeyError("k")) == 3
    (log,) = tmp_path.glob("likely-*.log")
    assert "KeyError" in log.read_text()


@pytest.mark.parametrize("allocate", [lambda: np.empty(1 << 50), lambda: torch.empty(1 << 50)])
def test_failed_allocation_is_an_error_with_a_remedy(allocate, capsys):
    with pytest.raises(InsufficientMemoryError, match="--batch-size"), memory_boundary("reduce --batch-size"):
        allocate()


def test_memory_boundary_passes_other_errors():
    with pytest.raises(RuntimeError, match="shape"), memory_boundary("reduce --batch-size"):
        raise RuntimeError("the shape is wrong")


@pytest.mark.parametrize("words", [["models"], ["models", "--json"], ["train", "--help"]])
def test_closed_pipe_is_no_error(words):
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
