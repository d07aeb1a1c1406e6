"""Robustness: the table of a classifier's answers to damaged images."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from sklearn.datasets import load_digits

from likely import Classifier
from likely.classifier import Predictor
from likely.data.dataset import LabeledImages, fingerprint, to_hashes
from likely.data.image_dataset import ArrayDataset
from likely.evaluation.corruptions import CORRUPTIONS, STRENGTHS, corrupted
from likely.evaluation.evaluate import evaluate
from likely.evaluation.robustness import CleanResult, CorruptionResult, Robustness, measure_robustness


@pytest.fixture(scope="module")
def gaussian() -> Predictor:
    digits = load_digits()
    return (
        Classifier("gaussian")
        .fit((digits.images * 255 / 16).round().astype(np.uint8)[:1500], digits.target[:1500])
        .predictor_
    )


@pytest.fixture(scope="module")
def part() -> LabeledImages:
    digits = load_digits()
    pixels = (digits.images[1500:1700] * 255 / 16).round().astype(np.uint8)[:, None]
    labels = digits.target[1500:1700].astype(np.int64)
    return LabeledImages(ArrayDataset(pixels, str), labels, to_hashes(map(fingerprint, pixels)))


@pytest.fixture(scope="module")
def found(gaussian: Predictor, part: LabeledImages) -> Robustness:
    return measure_robustness(gaussian, part, seed=3, alpha=0.05)


def test_the_table_has_every_corruption_at_every_strength(found: Robustness) -> None:
    assert [(row.corruption, row.strength) for row in found.rows] == [(c, s) for c in CORRUPTIONS for s in STRENGTHS]
    assert (found.n, found.seed, found.alpha, found.model) == (200, 3, 0.05, "unsaved")
    assert [row.strength for row in found.of("jpeg")] == list(STRENGTHS)
    assert found.of("snow") == ()


def test_each_row_is_what_an_assessment_of_the_damaged_images_says(
    gaussian: Predictor, part: LabeledImages, found: Robustness
) -> None:
    for row in (found.of("noise")[2], found.of("shift")[0]):
        damaged = replace(part, images=corrupted(part.images, row.corruption, row.strength, seed=3))
        figures = evaluate(gaussian, damaged, alpha=0.05).metrics
        assert (row.accuracy, row.ece) == pytest.approx((figures.accuracy, figures.ece))
        assert figures.rejection is not None
        assert row.unknown_rate == figures.rejection.n_rejected / figures.n
    assert found.clean.accuracy == evaluate(gaussian, part, alpha=0.05).metrics.accuracy


def test_damage_costs_accuracy_and_looks_strange(found: Robustness) -> None:
    assert found.mean_accuracy == pytest.approx(np.mean([row.accuracy for row in found.rows]))
    assert found.mean_accuracy < found.clean.accuracy - 0.1
    assert found.mean_unknown_rate is not None
    assert found.clean.unknown_rate is not None
    assert found.mean_unknown_rate > found.clean.unknown_rate + 0.1


def test_the_table_survives_json(found: Robustness) -> None:
    assert Robustness.model_validate_json(found.model_dump_json()) == found


def test_without_calibration_nothing_is_called_unknown() -> None:
    clean = CleanResult(accuracy=1, ece=0, unknown_rate=None)
    rows = (CorruptionResult(corruption="blur", strength=1, accuracy=0.5, ece=0, unknown_rate=None),)
    table = Robustness(model="m", n=2, seed=0, alpha=0.05, clean=clean, rows=rows)
    assert (table.mean_accuracy, table.mean_unknown_rate) == (0.5, None)


def test_unlabeled_images_are_left_out_and_progress_is_told(gaussian: Predictor, part: LabeledImages) -> None:
    few = replace(part.subset(np.arange(4)), labels=np.array([-1, *part.labels[1:3], -1]))
    calls: list[tuple[int, int]] = []
    found = measure_robustness(
        gaussian, few, seed=0, alpha=0.05, progress=lambda done, total: calls.append((done, total))
    )
    assert found.n == 2
    assert calls == [(done, 41) for done in range(1, 42)]
    with pytest.raises(ValueError, match="none of 4 images has a label"):
        measure_robustness(gaussian, replace(few, labels=np.full(4, -1)), seed=0, alpha=0.05)
