from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from report_contents import NASTY
from sklearn.datasets import load_digits

from likely import Classifier
from likely.prediction import CalibrationScope
from likely.reporting.html.content import ReportContent
from likely.reporting.model_card import model_card


def front_matter(text: str) -> str:
    opening, body, _ = text.split("---\n", 2)
    assert opening == ""
    return body


def test_front_matter_has_hub_metadata(full: ReportContent) -> None:
    read = yaml.safe_load(front_matter(model_card(full)))
    assert read["license"] == "other"
    assert read["library_name"] == "likely"
    assert read["pipeline_tag"] == "image-classification"
    assert "vae" in read["tags"]
    assert read["classes"] == list(full.class_names)
    (result,) = read["model-index"][0]["results"]
    assert result["task"]["type"] == "image-classification"
    assert result["dataset"] == {"type": "fashion", "name": "fashion/"}
    assert full.metrics is not None
    metrics = {row["type"]: row["value"] for row in result["metrics"]}
    assert metrics["accuracy"] == pytest.approx(full.metrics.accuracy, abs=1e-6)
    assert {"nll", "ece", "balanced_accuracy", "bits_per_dim", "false_alarm_rate", "auroc"} <= metrics.keys()


def test_front_matter_needs_no_metrics(bare: ReportContent) -> None:
    assert "model-index" not in front_matter(model_card(bare))


@given(name=st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
def test_names_round_trip_through_front_matter(name: str, full: ReportContent) -> None:
    content = replace(full, class_names=("boot", name, "bag"), header=replace(full.header, name=name))
    read = yaml.safe_load(front_matter(model_card(content)))
    assert read["classes"] == ["boot", name, "bag"]
    assert read["model-index"][0]["name"] == name


def sections(card: str) -> dict[str, str]:
    """The text below each heading."""
    pieces = re.split(r"(?m)^## (.*)$", card)
    return dict(zip(pieces[1::2], pieces[2::2], strict=True))


def code_blocks(card: str, language: str) -> list[str]:
    return re.findall(rf"(?ms)^```{language}\n(.*?)^```$", card)


def test_card_has_all_sections(full: ReportContent) -> None:
    card = model_card(full)
    assert list(sections(card)) == [
        "Usage",
        "Classes",
        "Metrics",
        "Training data",
        "Limitations",
        "Options",
        "Provenance",
    ]
    assert full.provenance is not None
    assert full.provenance.command in sections(card)["Provenance"]
    assert "| latent | 64 | Size of the code. |" in sections(card)["Options"]
    assert code_blocks(card, "sh")[0].splitlines()[0] == "likely classify fashion image.png"


def test_card_without_data_has_basic_sections(bare: ReportContent) -> None:
    assert list(sections(model_card(bare))) == ["Usage", "Classes", "Limitations"]


@pytest.mark.parametrize("kind", ["images", "vectors"])
def test_python_example_runs(
    kind: str, full: ReportContent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    digits = load_digits(n_class=3)
    images = (digits.images * 255 / 16).round().astype(np.uint8)
    inputs = images if kind == "images" else digits.data
    Classifier("gaussian").fit(inputs, digits.target).save(Path("fashion"))
    Image.fromarray(images[0]).save("image.png")
    np.save("vectors.npy", digits.data[:2])
    assert full.data is not None
    shape = (1, 8, 8) if kind == "images" else (64,)
    (example,) = code_blocks(model_card(replace(full, data=replace(full.data, shape=shape))), "python")
    exec(example, {})
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == (1 if kind == "images" else 2)
    assert lines[0].split()[1] == "0"


def test_names_are_escaped(full: ReportContent) -> None:
    body = model_card(full).split("---\n", 2)[2]
    assert NASTY not in body
    assert r"\<b\>" in body


def test_limitations_depend_on_the_calibration_scope(full: ReportContent) -> None:
    assert full.false_alarms is not None
    cards = [
        model_card(replace(full, false_alarms=replace(full.false_alarms, scope=scope))) for scope in CalibrationScope
    ]
    assert len({sections(card)["Limitations"] for card in cards}) == len(CalibrationScope)
    assert [
        scope for scope, card in zip(CalibrationScope, cards, strict=True) if "5%" not in sections(card)["Limitations"]
    ] == [CalibrationScope.NONE]
