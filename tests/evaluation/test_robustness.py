"""Robustness: metrics on corrupted images."""

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
def labeled() -> LabeledImages:
    digits = load_digits()
    pixels = (digits.images[1500:1700] * 255 / 16).round().astype(np.uint8)[:, None]
    labels = digits.target[1500:1700].astype(np.int64)
    return LabeledImages(ArrayDataset(pixels, str), labels, to_hashes(map(fingerprint, pixels)))


@pytest.fixture(scope="module")
def found(gaussian: Predictor, labeled: LabeledImages) -> Robustness:
    return measure_robustness(gaussian, labeled, seed=3, alpha=0.05)


def test_every_corruption_is_measured_at_every_strength(found: Robustness) -> None:
    assert [(row.corruption, row.strength) for row in found.rows] == [(c, s) for c in CORRUPTIONS for s in STRENGTHS]
    assert (found.n, found.seed, found.alpha, found.model) == (200, 3, 0.05, "unsaved")
    assert [row.strength for row in found.of("jpeg")] == list(STRENGTHS)
    assert found.of("snow") == ()


def test_rows_agree_with_evaluate(gaussian: Predictor, labeled: LabeledImages, found: Robustness) -> None:
    for row in (found.of("noise")[2], found.of("shift")[0]):
        damaged = replace(labeled, images=corrupted(labeled.images, row.corruption, row.strength, seed=3))
        metrics = evaluate(gaussian, damaged, alpha=0.05).metrics
        assert (row.accuracy, row.ece) == pytest.approx((metrics.accuracy, metrics.ece))
        assert metrics.rejection is not None
        assert row.unknown_rate == metrics.rejection.n_rejected / metrics.n
    assert found.clean.accuracy == evaluate(gaussian, labeled, alpha=0.05).metrics.accuracy


def test_corruptions_lower_accuracy_and_raise_the_rejection_rate(found: Robustness) -> None:
    assert found.mean_accuracy == pytest.approx(np.mean([row.accuracy for row in found.rows]))
    assert found.mean_accuracy < found.clean.accuracy - 0.1
    assert found.mean_unknown_rate is not None
    assert found.clean.unknown_rate is not None
    assert found.mean_unknown_rate > found.clean.unknown_rate + 0.1


def test_robustness_round_trips_through_json(found: Robustness) -> None:
    assert Robustness.model_validate_json(found.model_dump_json()) == found


def test_rejection_rate_is_none_without_calibration() -> None:
    clean = CleanResult(accuracy=1, ece=0, unknown_rate=None)
    rows = (CorruptionResult(corruption="blur", strength=1, accuracy=0.5, ece=0, unknown_rate=None),)
    table = Robustness(model="m", n=2, seed=0, alpha=0.05, clean=clean, rows=rows)
    assert (table.mean_accuracy, table.mean_unknown_rate) == (0.5, None)


def test_unlabeled_images_are_skipped_and_progress_is_reported(gaussian: Predictor, labeled: LabeledImages) -> None:
    few = replace(labeled.subset(np.arange(4)), labels=np.array([-1, *labeled.labels[1:3], -1]))
    calls: list[tuple[int, int]] = []
    found = measure_robustness(
        gaussian, few, seed=0, alpha=0.05, progress=lambda done, total: calls.append((done, total))
    )
    assert found.n == 2
    assert calls == [(done, 41) for done in range(1, 42)]
    with pytest.raises(ValueError, match="none of 4 images has a label"):
        measure_robustness(gaussian, replace(few, labels=np.full(4, -1)), seed=0, alpha=0.05)
