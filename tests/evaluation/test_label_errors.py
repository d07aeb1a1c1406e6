from __future__ import annotations

import numpy as np
import pytest

from likely.evaluation.label_errors import find_label_issues
from likely.evaluation.metrics import Floats, Ints


def posterior(truth: Ints, k: int, rng: np.random.Generator) -> Floats:
    """A good but not perfect model's probabilities for images of the given true classes."""
    logits = rng.normal(size=(len(truth), k)) + 4 * np.eye(k)[truth]
    return np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)


def test_finds_most_flipped_labels_and_little_else() -> None:
    rng, n, k = np.random.default_rng(0), 4000, 8
    truth = rng.integers(0, k, n)
    flipped = rng.random(n) < 0.05
    labels = np.where(flipped, (truth + rng.integers(1, k, n)) % k, truth)
    found = find_label_issues(posterior(truth, k, rng), labels)
    right = sum(flipped[suspect.index] for suspect in found)
    assert right / flipped.sum() > 0.6
    assert right / len(found) > 0.8
    surest = found[: flipped.sum() // 2]
    assert np.mean([flipped[suspect.index] for suspect in surest]) > 0.97
    assert np.mean([suspect.suggested == truth[suspect.index] for suspect in surest]) > 0.97


def test_issues_have_label_suggestion_and_margin() -> None:
    p = np.array([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.2, 0.8], [0.05, 0.95], [0.02, 0.98]])
    found = find_label_issues(p, np.array([0, 0, 0, 0, 1, 1]))
    assert [suspect.index for suspect in found] == []  # 0.7 and 0.8 are below class 1's usual 0.965
    found = find_label_issues(p, np.array([0, 0, 0, 0, 0, 1]))
    assert found == ()
    found = find_label_issues(np.vstack([p, [[0.01, 0.99]]]), np.array([0, 0, 0, 0, 1, 1, 0]))
    assert [(suspect.index, suspect.label, suspect.suggested) for suspect in found] == [(6, 0, 1)]
    assert found[0].margin == pytest.approx(-0.98)


def test_suggested_class_is_more_probable_than_the_label() -> None:
    rng = np.random.default_rng(1)
    p = rng.dirichlet(np.ones(4), 300)
    labels = rng.integers(0, 4, 300)
    found = find_label_issues(p, labels)
    assert found
    assert [suspect.margin for suspect in found] == sorted(suspect.margin for suspect in found)
    for suspect in found:
        assert suspect.label == labels[suspect.index] != suspect.suggested
        assert p[suspect.index, suspect.suggested] > p[suspect.index, suspect.label]


def test_unlabeled_images_and_empty_classes_are_ignored() -> None:
    p = np.array([[0.1, 0.2, 0.7], [0.6, 0.3, 0.1], [0.2, 0.7, 0.1], [0.0, 0.1, 0.9]])
    labels = np.array([0, 0, 1, -1])
    assert all(suspect.suggested != 2 and suspect.index != 3 for suspect in find_label_issues(p, labels))
    assert find_label_issues(p, np.full(4, -1)) == ()
