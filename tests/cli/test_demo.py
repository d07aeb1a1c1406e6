"""The demo: the files that it removes, the order of its output, and its unknown image."""

import json
import subprocess
import sys

import pytest
from program import run

from likely import experiment
from likely.checkpoint import FORMAT_VERSION
from likely.cli.demo import DIGITS, NO_DIGIT
from likely.exceptions import InvalidValueError
from likely.experiment import TRAINING_STATE

TRAINING_STARTS = "the training starts"


@pytest.fixture
def demo_without_training(monkeypatch):
    """Run `likely demo` in a folder up to the start of its training, which fails."""

    def fail(*args, **kwargs):
        raise InvalidValueError(TRAINING_STARTS)

    monkeypatch.setattr(experiment, "start_run", fail)
    return lambda out: run("demo", "--out", out)


@pytest.fixture
def earlier(tmp_path):
    """The folder of a finished demo."""
    for folder, names in (("model", ("model.json", "report.html")), ("pictures", (*DIGITS, NO_DIGIT))):
        (tmp_path / folder).mkdir()
        for name in names:
            (tmp_path / folder / name).write_text("")
    written_from(tmp_path, "digits")
    return tmp_path


def written_from(out, source, version=FORMAT_VERSION):
    document = {"format_version": version, "record": {"source": source}}
    (out / "model" / "model.json").write_text(json.dumps(document))


def files(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("version", [FORMAT_VERSION - 1, FORMAT_VERSION])
def test_demo_replaces_an_earlier_demo(earlier, version, demo_without_training):
    written_from(earlier, "digits", version)
    assert demo_without_training(earlier).code == 2
    assert files(earlier) == []


def test_demo_replaces_an_interrupted_demo(tmp_path, demo_without_training):
    (tmp_path / "model").mkdir()
    assert TRAINING_STARTS in demo_without_training(tmp_path).err


@pytest.mark.parametrize(
    "place", ["thesis.tex", "model/thesis.tex", "pictures/holiday.jpg", f"model/{TRAINING_STATE}/x"]
)
def test_demo_removes_nothing_beside_foreign_files(earlier, place, demo_without_training):
    (earlier / place).parent.mkdir(exist_ok=True)
    (earlier / place).write_text("mine")
    before = files(earlier)
    code, out, err = demo_without_training(earlier)
    assert (code, out) == (2, "")
    assert "--out" in err
    assert files(earlier) == before


def test_demo_rejects_a_model_of_other_data(earlier, demo_without_training):
    written_from(earlier, "photos")
    before = files(earlier)
    code, out, err = demo_without_training(earlier)
    assert (code, out) == (2, "")
    assert "--out" in err
    assert files(earlier) == before


@pytest.mark.slow
def test_demo_trains_evaluates_and_classifies(tmp_path):
    command = [sys.executable, "-m", "likely", "demo", "--out", str(tmp_path / "demo")]
    printed = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=True).stdout
    words = ["1  Train", "epoch", "2  Evaluate", "False-alarm rate", "3  Classify", "a-3.png", "Report"]
    places = [printed.index(word) for word in words]
    assert places == sorted(places)
    status = {line.split()[0].rpartition("/")[2]: line.split()[1:3] for line in printed.splitlines() if ".png" in line}
    assert {name: status[name] for name in DIGITS} == {name: ["known", str(label)] for name, label in DIGITS.items()}
    assert status[NO_DIGIT][0] == "unknown"
