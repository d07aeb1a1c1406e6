from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from sklearn.datasets import load_digits

from likely import Classifier
from likely.data.dataset import LabeledImages, fingerprint, to_hashes
from likely.data.image_dataset import ArrayDataset
from likely.evaluation.evaluate import evaluate
from likely.evaluation.metrics import PerClass, Reliability
from likely.evaluation.training_record import TrainingRecord
from likely.prediction import CalibrationScope
from likely.reporting.build import ReportInputs, build_report
from likely.reporting.html.caveats import caveats
from likely.reporting.html.content import Curves, DataSummary, FalseAlarms, ReportContent


def kinds(content: ReportContent) -> list[str]:
    return [caveat.kind for caveat in caveats(content)]


def reliability(n: int, confidence: float, accuracy: float) -> Reliability:
    return Reliability(np.array([0, n]), np.array([np.nan, confidence]), np.array([np.nan, accuracy]))


def alarms(counts: list[int], scope: CalibrationScope, n_calibration: int = 100) -> FalseAlarms:
    return FalseAlarms(0.05, scope, np.full(3, 100), np.array(counts), np.full(3, n_calibration))


def test_good_model_has_no_caveats(bare: ReportContent) -> None:
    content = replace(
        bare,
        reliability=reliability(1000, 0.95, 0.96),
        false_alarms=alarms([4, 5, 6], CalibrationScope.PER_CLASS),
        per_class=PerClass(np.full(3, 100), np.full(3, 0.9), np.full(3, 0.9), np.full(3, 0.9)),
        curves=Curves(np.arange(2), {"nll": np.array([2.0, 1.00])}, {"nll": np.array([2.0, 1.05])}),
        data=DataSummary("x", (1, 8, 8), {"train": np.full(3, 100)}),
    )
    assert caveats(content) == ()


def test_notes_come_last(bare: ReportContent) -> None:
    content = replace(bare, notes=("Mind the step.",), false_alarms=alarms([90, 90, 90], CalibrationScope.PER_CLASS))
    assert kinds(content) == ["false_alarms", "note"]
    assert caveats(content)[-1].text == "Mind the step."


@pytest.mark.parametrize(("accuracy", "direction"), [(0.7, "overconfident"), (0.99, "underconfident")])
def test_miscalibration_has_a_direction(accuracy: float, direction: str, bare: ReportContent) -> None:
    (caveat,) = caveats(replace(bare, reliability=reliability(1000, 0.85, accuracy)))
    assert caveat.kind == "miscalibrated"
    assert f" {direction}:" in caveat.text


def test_few_images_do_not_prove_miscalibration(bare: ReportContent) -> None:
    assert kinds(replace(bare, reliability=reliability(20, 0.85, 0.95))) == []


def test_false_alarms_above_the_bound_name_their_classes(bare: ReportContent) -> None:
    (caveat,) = caveats(replace(bare, false_alarms=alarms([4, 5, 40], CalibrationScope.PER_CLASS)))
    assert caveat.kind == "false_alarms"
    assert "bag" in caveat.text
    assert "boot" not in caveat.text


@pytest.mark.parametrize(
    ("counts", "scope", "expected"),
    [
        ([0, 0, 17], CalibrationScope.POOLED, []),
        ([20, 20, 20], CalibrationScope.POOLED, ["false_alarms"]),
        ([0, 0, 0], CalibrationScope.PER_CLASS, []),
        ([0, 0, 0], CalibrationScope.NONE, ["rejects_nothing"]),
    ],
)
def test_the_scope_of_the_guarantee_decides(
    counts: list[int], scope: CalibrationScope, expected: list[str], bare: ReportContent
) -> None:
    assert kinds(replace(bare, false_alarms=alarms(counts, scope))) == expected


@pytest.mark.parametrize(("n_overall", "expected"), [(None, []), (20, []), (10_000, ["false_alarms"])])
def test_too_few_rejections_of_the_guarantee_overall_recommend_a_calibration(
    n_overall: int | None, expected: list[str], bare: ReportContent
) -> None:
    found = replace(alarms([0, 1, 0], CalibrationScope.POOLED), n_overall=n_overall)
    content = replace(bare, false_alarms=found)
    assert kinds(content) == expected
    assert all("likely calibrate" in caveat.text for caveat in caveats(content))


@pytest.mark.parametrize(("alpha", "rejects_nothing"), [(0.05, False), (1e-4, True)])
def test_too_few_calibration_images_reject_nothing(alpha: float, rejects_nothing: bool) -> None:
    digits = load_digits(n_class=3)
    images = (digits.images * 255 / 16).round().astype(np.uint8)
    classifier = Classifier("gaussian").fit(images[:400], digits.target[:400]).predictor_
    pixels = images[400:, None]
    test = LabeledImages(
        ArrayDataset(pixels, str), digits.target[400:].astype(np.int64), to_hashes(map(fingerprint, pixels))
    )
    result = evaluate(classifier, test, alpha=alpha)
    record = TrainingRecord(date="2026-03-14", command="fit", source="digits", counts={"train": [133, 134, 133]})
    content = build_report(ReportInputs(classifier, record, evaluation=(result, test)))
    assert ("rejects_nothing" in kinds(content)) == rejects_nothing
    assert result.is_calibrated != rejects_nothing
    if rejects_nothing:
        assert not result.rejected.any()


def test_classes_with_few_training_images(bare: ReportContent) -> None:
    (caveat,) = caveats(replace(bare, data=DataSummary("x", (1, 8, 8), {"train": np.array([29, 30, 500])})))
    assert caveat.kind == "few_training_images"
    assert caveat.text.startswith("boot has ")


def test_classes_with_few_test_images_or_never_recognized(bare: ReportContent) -> None:
    table = PerClass(np.array([9, 50, 50]), np.array([1, 0.9, 0.0]), np.ones(3), np.ones(3))
    few, missed = caveats(replace(bare, per_class=table))
    assert (few.kind, missed.kind) == ("few_test_images", "never_recognized")
    assert "boot" in few.text
    assert "bag" in missed.text


def test_overfitting(bare: ReportContent) -> None:
    curves = Curves(np.arange(2), {"nll": np.array([2.0, 0.1])}, {"nll": np.array([2.0, 0.9])})
    assert kinds(replace(bare, curves=curves)) == ["overfitting"]


def test_skipped_files(bare: ReportContent) -> None:
    assert kinds(replace(bare, data=DataSummary("x", (1,), {}, {"a.png": "broken"}))) == ["skipped_files"]
