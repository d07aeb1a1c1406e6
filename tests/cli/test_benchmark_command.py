"""likely benchmark: files, options and exit codes."""

import json
import shlex
import signal
import subprocess
import sys
from functools import partial

import pytest

from likely.exceptions import DivergenceError

BRIEF = ("--epochs", "1", "--threads", "1", "--option", "softmax.width=4")


@pytest.fixture
def benchmark(likely):
    """Run `likely benchmark …` in an empty folder."""
    return partial(likely, "benchmark")


def test_benchmark_writes_results_table_page_and_image(benchmark, tmp_path):
    words = ("digits", "--models", "gaussian", *BRIEF, "--samples", "60", "--out", "results")
    code, out, err = benchmark(*words)
    assert code == 0, err
    assert {path.name for path in (tmp_path / "results").iterdir()} == {
        *("results.jsonl", "table.md", "index.html", "samples.png", "models"),
    }
    assert out == (tmp_path / "results" / "table.md").read_text()
    lines = [json.loads(line) for line in (tmp_path / "results" / "results.jsonl").read_text().splitlines()]
    assert [line["family"] for line in lines] == ["softmax", "gaussian"]
    assert lines[0]["options"]["width"] == 4
    assert lines[1]["fidelity"]["n_generated"] == 60
    code, again, err = benchmark(*words)
    assert code == 0
    assert again == out
    assert err.count("measured before") == 2


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (("--models", "vea", *BRIEF), "'vae'"),
        (("--models", ",", *BRIEF), "--models"),
        (("--models", "vae"), "--minutes"),
        (("--models", "vae", "--epochs", "1", "--minutes", "1"), "minutes"),
        (("--models", "vae", "--minutes", "-1"), "--minutes"),
        (("--models", "vae", *BRIEF, "--seeds", "0,x"), "'x'"),
        (("--models", "vae", *BRIEF, "--seeds", str(2**32)), "--seeds"),
        (("--models", "vae", *BRIEF, "--samples", "3"), "--samples"),
        (("--models", "vae", *BRIEF, "--samples", "4000"), "445"),
        (("--models", "vae", *BRIEF, "--extractor", "."), "."),
        (("--models", "vae", *BRIEF, "--option", "vae"), "FAMILY.NAME=VALUE"),
        (("--models", "vae", *BRIEF, "--option", "gan.loss=bce"), "'gan'"),
        (("--models", "vae", *BRIEF, "--option", "vae.latentdims=4"), "'latent_dims'"),
        (("--models", "vae", *BRIEF, "--option", "vae.latent-dims=none"), "--option vae.latent_dims"),
    ],
)
def test_invalid_option_is_named_and_nothing_is_written(benchmark, tmp_path, words, named):
    code, _, err = benchmark("digits", *words, "--out", "results")
    assert code == 2
    assert named in err
    assert "Traceback" not in err
    assert not (tmp_path / "results").exists()


def test_missing_data_and_foreign_files_are_named(benchmark, tmp_path):
    code, _, err = benchmark("nowhere", "--models", "gaussian", *BRIEF, "--out", "results")
    assert code == 2
    assert "nowhere" in err
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "precious.txt").write_text("mine")
    code, _, err = benchmark("digits", "--models", "gaussian", *BRIEF, "--out", "mine")
    assert code == 2
    assert "precious.txt" in err


def test_failed_training_exits_with_one(benchmark, monkeypatch):
    from likely.models.gaussian import Gaussian

    def diverge(self):
        raise DivergenceError("the loss diverged")

    monkeypatch.setattr(Gaussian, "finalize_statistics", diverge)
    code, out, err = benchmark("digits", "--models", "gaussian", *BRIEF, "--out", "results")
    assert code == 1
    assert "the loss diverged" in err
    assert "the loss diverged" in out


def test_unreadable_file_is_named_once_and_exits_with_one(benchmark, tmp_path):
    import numpy as np
    from PIL import Image
    from sklearn.datasets import load_digits

    digits = load_digits(n_class=2)
    for i, (image, label) in enumerate(zip(digits.images[:80], digits.target[:80], strict=True)):
        folder = tmp_path / "photos" / str(label)
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray((image * 15).astype(np.uint8)).save(folder / f"{i}.png")
    (tmp_path / "photos" / "0" / "broken.png").write_bytes(b"nothing")
    words = ("photos", "--models", "gaussian", *BRIEF, "--out", "results", "--size", "8")
    code, _, err = benchmark(*words)
    assert code == 1
    assert err.count("broken.png") == 1
    assert benchmark(*words)[0] == 1


def test_ctrl_c_saves_and_the_same_command_continues(tmp_path):
    """Sent to a real process once it has begun to train."""
    words = ["benchmark", "digits", "--models", "gaussian", "--epochs", "100000", "--threads", "1", "--out", "results"]
    command = [sys.executable, "-m", "likely", *words]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        next(line for line in process.stderr if line.startswith("epoch"))
        process.send_signal(signal.SIGINT)
        err = process.stderr.read()
        assert process.wait(60) == 130, err
    assert shlex.join(["likely", *words]) in err
    assert (tmp_path / "results" / "models" / "softmax-0" / "training_state.safetensors").exists()
