"""The demo keeps its word: what `make demo` shows on a fresh machine."""

import json
import re
import subprocess
import sys

import pytest

from likely.classifier import Classifier


@pytest.mark.slow
def test_the_demo_learns_the_digits_and_turns_away_what_is_none(tmp_path):
    out = tmp_path / "demo"
    printed = subprocess.run([sys.executable, "-m", "likely", "demo", "--out", out], capture_output=True, text=True, check=True)
    words = printed.stdout + printed.stderr
    assert float(re.search(r"Accuracy\s+([\d.]+)%", words)[1]) >= 98.5
    assert "report.html" in words
    answers = Classifier.load(out / "model").answer(sorted((out / "pictures").iterdir()))
    assert [answer.status.value for answer in answers] == ["known", "known", "unknown"]
    assert [answer.label for answer in answers[:2]] == ["3", "8"]
    assert json.loads((out / "model" / "model.json").read_text())["record"]["source"] == "digits"
