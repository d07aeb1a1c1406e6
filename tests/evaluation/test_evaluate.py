"""Evaluation of images in groups: their numbers, and intervals of images of new groups."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from likely import Classifier
from likely.classifier import Predictor
from likely.data.dataset import LabeledImages
from likely.data.image_dataset import ArrayDataset
from likely.evaluation.evaluate import evaluate
from likely.evaluation.metrics import clopper_pearson

N, SIZE = 300, 6
INTERVALS = ("accuracy_interval", "false_alarm_interval", "auroc_interval")


def vectors(seed: int, shift: float = 0.0) -> LabeledImages:
    """N vectors of two classes: almost equal ones in each of N / SIZE groups."""
    rng, groups = np.random.default_rng(seed), np.arange(N) // SIZE
    labels = groups % 2
    x = rng.standard_normal((N // SIZE, 4))[groups] + 0.01 * rng.standard_normal((N, 4)) + labels[:, None] + shift
    return LabeledImages(ArrayDataset(x, str), labels, rng.integers(2**62, size=N), groups)


@pytest.fixture(scope="module")
def classifier() -> Predictor:
    rng = np.random.default_rng(0)
    y = np.arange(400) % 2
    return Classifier("gaussian").fit(rng.standard_normal((400, 4)) + y[:, None], y).predictor_


def test_groups_are_counted_and_widen_the_intervals(classifier: Predictor) -> None:
    known, unknown = vectors(1), vectors(2, shift=2.0)
    found = evaluate(classifier, known, alpha=0.1, unknown=("shifted", unknown)).as_json()
    ungrouped = replace(known, groups=None), replace(unknown, groups=None)
    by_image = evaluate(classifier, ungrouped[0], alpha=0.1, unknown=("shifted", ungrouped[1])).as_json()
    assert (found["n"], found["n_groups"], found["n_unknown"], found["n_unknown_groups"]) == (N, N / SIZE, N, N / SIZE)
    assert by_image["n_groups"] is by_image["n_unknown_groups"] is None
    for name in INTERVALS:
        low, high = found[name]
        assert low < by_image[name][0] < by_image[name][1] < high
    assert found["accuracy"] == by_image["accuracy"]
    assert found["auroc"] == by_image["auroc"]


def test_intervals_of_images_without_groups_are_those_of_independent_images(classifier: Predictor) -> None:
    images = replace(vectors(3), groups=None)
    one_each = evaluate(classifier, replace(images, groups=np.arange(N)), alpha=0.1)
    none = evaluate(classifier, images, alpha=0.1)
    n_rejected = none.metrics.rejection.n_rejected
    for found in (none.as_json(), one_each.as_json()):
        assert found["accuracy_interval"] == clopper_pearson(round(found["accuracy"] * N), N)
        assert found["false_alarm_interval"] == clopper_pearson(n_rejected, N)
