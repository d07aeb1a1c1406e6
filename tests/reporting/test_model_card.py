from __future__ import annotations

from dataclasses import replace

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from report_contents import NASTY

from likely.prediction import CalibrationScope
from likely.reporting.html.content import ReportContent
from likely.reporting.model_card import model_card


def front_matter(text: str) -> str:
    opening, body, _ = text.split("---\n", 2)
    assert opening == ""
    return body


def test_front_matter_is_what_hubs_read(full: ReportContent) -> None:
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
    figures = {row["type"]: row["value"] for row in result["metrics"]}
    assert figures["accuracy"] == pytest.approx(full.metrics.accuracy, abs=1e-6)
    assert {"nll", "ece", "balanced_accuracy", "bits_per_dim", "false_alarm_rate", "auroc"} <= figures.keys()


def test_front_matter_needs_no_figures(bare: ReportContent) -> None:
    assert "model-index" not in front_matter(model_card(bare))


@given(name=st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
def test_any_name_reads_back_from_the_front_matter(name: str, full: ReportContent) -> None:
    content = replace(full, class_names=("boot", name, "bag"), header=replace(full.header, name=name))
    read = yaml.safe_load(front_matter(model_card(content)))
    assert read["classes"] == ["boot", name, "bag"]
    assert read["model-index"][0]["name"] == name


def test_says_what_it_is_how_to_use_it_and_what_it_cannot(full: ReportContent) -> None:
    text = model_card(full)
    for words in (
        "Tells boots from bags.",
        "likely classify fashion image.png",
        "likely evaluate fashion DATA",
        'Classifier.load("fashion")',
        "lower bound on log p(x|c) of the 8-bit pixels",
        "At most 5% of the images of every class",
        "| latent | 64 | Size of the code. |",
        "likely train <fashion>",
        "Training images of a class: from 800",
    ):
        assert words in text


def test_names_do_not_break_the_page(full: ReportContent) -> None:
    body = model_card(full).split("---\n", 2)[2]
    assert NASTY not in body
    assert r"\<b\>" in body


@pytest.mark.parametrize(
    ("calibration", "words"),
    [
        (CalibrationScope.PER_CLASS, "of the images of every class are called unknown"),
        (CalibrationScope.POOLED, "of the images of all classes taken together are called unknown"),
        (CalibrationScope.NONE, "Nothing is promised"),
    ],
)
def test_the_promise_is_the_one_that_was_made(calibration: CalibrationScope, words: str, full: ReportContent) -> None:
    assert full.false_alarms is not None
    assert words in model_card(replace(full, false_alarms=replace(full.false_alarms, calibration=calibration)))


def test_a_bare_card_has_only_what_is_known(bare: ReportContent) -> None:
    text = model_card(bare)
    assert "## Figures" not in text
    assert "## Options" not in text
    assert "Nothing is promised" in text
