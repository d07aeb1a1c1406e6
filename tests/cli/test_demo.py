"""The demo: whose files it removes, what it says in which order, and that its house is no digit."""

import json
import subprocess
import sys

import click
import pytest

from likely.checkpoint import FORMAT_VERSION
from likely.cli.demo import DIGITS, NO_DIGIT, _make_way
from likely.experiment import TRAINING_STATE


@pytest.fixture
def earlier(tmp_path):
    """A folder as a demo leaves it."""
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
def test_an_earlier_demo_makes_way(earlier, version):
    written_from(earlier, "digits", version)
    _make_way(earlier)
    assert files(earlier) == []


def test_a_demo_that_was_cut_short_makes_way(tmp_path):
    (tmp_path / "model").mkdir()
    _make_way(tmp_path)


@pytest.mark.parametrize(
    "place", ["thesis.tex", "model/thesis.tex", "pictures/holiday.jpg", f"model/{TRAINING_STATE}/x"]
)
def test_nothing_is_removed_beside_anything_else(earlier, place):
    (earlier / place).parent.mkdir(exist_ok=True)
    (earlier / place).write_text("mine")
    before = files(earlier)
    with pytest.raises(click.UsageError, match="--out"):
        _make_way(earlier)
    assert files(earlier) == before


def test_a_model_of_other_data_is_kept(earlier):
    written_from(earlier, "photos")
    before = files(earlier)
    with pytest.raises(click.UsageError, match="earlier demo"):
        _make_way(earlier)
    assert files(earlier) == before


@pytest.mark.slow
def test_the_demo_tells_its_story_in_order(tmp_path):
    command = [sys.executable, "-m", "likely", "demo", "--out", str(tmp_path / "demo")]
    told = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=True).stdout
    words = ["1  Train", "epoch", "2  Evaluate", "False alarms", "3  Classify", "a-3.png", "Look at"]
    places = [told.index(word) for word in words]
    assert places == sorted(places)
    status = {line.split()[0].rpartition("/")[2]: line.split()[1:3] for line in told.splitlines() if ".png" in line}
    assert {name: status[name] for name in DIGITS} == {name: ["known", str(label)] for name, label in DIGITS.items()}
    assert status[NO_DIGIT][0] == "unknown"
