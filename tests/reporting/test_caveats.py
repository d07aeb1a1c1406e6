from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from likely.evaluation.metrics import PerClass, Reliability
from likely.prediction import CalibrationScope
from likely.reporting.html.caveats import caveats
from likely.reporting.html.content import Curves, DataSummary, FalseAlarms, ReportContent


def said(content: ReportContent) -> str:
    return " ".join(caveats(content))


def reliability(n: int, confidence: float, accuracy: float) -> Reliability:
    return Reliability(np.array([0, n]), np.array([np.nan, confidence]), np.array([np.nan, accuracy]))


def alarms(counts: list[int], calibration: CalibrationScope, n_calibration: int = 100) -> FalseAlarms:
    return FalseAlarms(0.05, calibration, np.full(3, 100), np.array(counts), np.full(3, n_calibration))


def test_nothing_is_said_of_a_good_model(bare: ReportContent) -> None:
    content = replace(
        bare,
        reliability=reliability(1000, 0.95, 0.96),
        false_alarms=alarms([4, 5, 6], CalibrationScope.PER_CLASS),
        per_class=PerClass(np.full(3, 100), np.full(3, 0.9), np.full(3, 0.9), np.full(3, 0.9)),
        curves=Curves(np.arange(2), {"nll": np.array([2.0, 1.00])}, {"nll": np.array([2.0, 1.05])}),
        data=DataSummary("x", (1, 8, 8), {"train": np.full(3, 100)}),
    )
    assert caveats(content) == ()


def test_notes_of_others_come_last(bare: ReportContent) -> None:
    assert caveats(replace(bare, notes=("Mind the step.",))) == ("Mind the step.",)


@pytest.mark.parametrize(("accuracy", "words"), [(0.7, "too sure of itself"), (0.99, "too modest")])
def test_bad_calibration_and_its_direction(accuracy: float, words: str, bare: ReportContent) -> None:
    assert words in said(replace(bare, reliability=reliability(1000, 0.85, accuracy)))


def test_few_images_prove_no_bad_calibration(bare: ReportContent) -> None:
    assert said(replace(bare, reliability=reliability(20, 0.85, 0.95))) == ""


def test_alarms_above_the_bound_of_a_class(bare: ReportContent) -> None:
    words = said(replace(bare, false_alarms=alarms([4, 5, 40], CalibrationScope.PER_CLASS)))
    assert "bag (40 of 100" in words
    assert "boot" not in words


def test_a_pooled_promise_is_judged_over_all_classes(bare: ReportContent) -> None:
    assert said(replace(bare, false_alarms=alarms([0, 0, 17], CalibrationScope.POOLED))) == ""
    assert "all classes (60 of 300" in said(replace(bare, false_alarms=alarms([20, 20, 20], CalibrationScope.POOLED)))
    assert said(replace(bare, false_alarms=alarms([90, 90, 90], CalibrationScope.NONE))) == ""


def test_too_few_calibration_images_to_reject_anything(bare: ReportContent) -> None:
    assert "fewer than 19 calibration images" in said(
        replace(bare, false_alarms=alarms([0, 0, 0], CalibrationScope.PER_CLASS, 18))
    )
    assert said(replace(bare, false_alarms=alarms([0, 0, 0], CalibrationScope.PER_CLASS, 19))) == ""


def test_tiny_classes(bare: ReportContent) -> None:
    words = said(replace(bare, data=DataSummary("x", (1, 8, 8), {"train": np.array([29, 30, 500])})))
    assert words == "boot has fewer than 30 training images: expect little of them."


def test_classes_hardly_tested_or_never_recognized(bare: ReportContent) -> None:
    table = PerClass(np.array([9, 50, 50]), np.array([1, 0.9, 0.0]), np.ones(3), np.ones(3))
    words = said(replace(bare, per_class=table))
    assert "boot has fewer than 10 images to measure with" in words
    assert "Not one image of bag was recognized." in words


def test_training_far_below_validation(bare: ReportContent) -> None:
    curves = Curves(np.arange(2), {"nll": np.array([2.0, 0.1])}, {"nll": np.array([2.0, 0.9])})
    assert "learned its training images by heart" in said(replace(bare, curves=curves))


def test_files_that_were_left_out(bare: ReportContent) -> None:
    assert "1 file could not be used" in said(replace(bare, data=DataSummary("x", (1,), {}, {"a.png": "broken"})))
