"""likely benchmark: what people type, what is written, and the sentences where it cannot be."""

import json
import signal
import subprocess
import sys

import pytest

from likely.cli import main
from likely.exceptions import DivergenceError

BRIEF = ("--epochs", "1", "--threads", "1", "--option", "softmax.width=4")


@pytest.fixture
def benchmark(capsys, tmp_path, monkeypatch):
    """`likely benchmark …` in an empty folder: the exit code, what is printed and what is said."""
    monkeypatch.chdir(tmp_path)

    def called(*words):
        try:
            main(["benchmark", *map(str, words)])
        except SystemExit as stop:
            said = capsys.readouterr()
            return stop.code or 0, said.out, said.err
        raise AssertionError("the program did not end")

    return called


def test_it_writes_results_table_page_and_picture(benchmark, tmp_path):
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
    ("words", "said"),
    [
        (("--models", "vea", *BRIEF), "did you mean 'vae'"),
        (("--models", ",", *BRIEF), "--models names nothing"),
        (("--models", "vae"), "how long to train"),
        (("--models", "vae", "--epochs", "1", "--minutes", "1"), "give one"),
        (("--models", "vae", "--minutes", "-1"), "--minutes"),
        (("--models", "vae", *BRIEF, "--seeds", "0,x"), "'x' is no seed"),
        (("--models", "vae", *BRIEF, "--samples", "3"), "--samples"),
        (("--models", "vae", *BRIEF, "--samples", "4000"), "445 labeled test images"),
        (("--models", "vae", *BRIEF, "--extractor", "."), "no extractor"),
        (("--models", "vae", *BRIEF, "--option", "vae"), "FAMILY.NAME=VALUE"),
        (("--models", "vae", *BRIEF, "--option", "gan.loss=bce"), "'gan' is not compared here"),
        (("--models", "vae", *BRIEF, "--option", "vae.latentdims=4"), "did you mean 'latent_dims'"),
        (("--models", "vae", *BRIEF, "--option", "vae.latent-dims=none"), "--option vae.latent_dims"),
    ],
)
def test_what_makes_no_sense_is_a_sentence_and_writes_nothing(benchmark, tmp_path, words, said):
    code, _, err = benchmark("digits", *words, "--out", "results")
    assert code == 2
    assert said in err
    assert "Traceback" not in err
    assert not (tmp_path / "results").exists()


def test_data_that_is_not_there_and_folders_of_others_are_named(benchmark, tmp_path):
    code, _, err = benchmark("nowhere", "--models", "gaussian", *BRIEF, "--out", "results")
    assert code == 2
    assert "nowhere" in err
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "precious.txt").write_text("mine")
    code, _, err = benchmark("digits", "--models", "gaussian", *BRIEF, "--out", "mine")
    assert code == 2
    assert "precious.txt" in err


def test_a_family_that_fails_leaves_an_exit_code_of_one(benchmark, monkeypatch):
    from likely.models.gaussian import Gaussian

    def astray(self):
        raise DivergenceError("the loss went astray")

    monkeypatch.setattr(Gaussian, "finalize_statistics", astray)
    code, out, err = benchmark("digits", "--models", "gaussian", *BRIEF, "--out", "results")
    assert code == 1
    assert "gaussian, seed 0 failed: the loss went astray" in err
    assert "gaussian failed with seed 0: the loss went astray" in out


def test_images_that_cannot_be_read_are_said_once_and_leave_an_exit_code_of_one(benchmark, tmp_path):
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


def test_ctrl_c_saves_and_the_same_command_goes_on(tmp_path):
    """Sent to a real process once it has begun to train."""
    words = ["benchmark", "digits", "--models", "gaussian", "--epochs", "100000", "--threads", "1", "--out", "results"]
    command = [sys.executable, "-m", "likely", *words]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        next(line for line in process.stderr if line.startswith("epoch"))
        process.send_signal(signal.SIGINT)
        err = process.stderr.read()
        assert process.wait(60) == 130, err
    assert "Stopped, and saved, in the training of softmax, seed 0." in err
    assert "To go on: likely benchmark digits" in err
    assert (tmp_path / "results" / "models" / "softmax-0" / "training_state.safetensors").exists()
