"""Evaluation images: splits, skipped training images, out-of-distribution images."""

import numpy as np
import pytest
from PIL import Image

from likely import Classifier
from likely.evaluation.eval_split import eval_split, ood_images
from likely.exceptions import DataError


@pytest.fixture(scope="module")
def classifier():
    rng = np.random.default_rng(0)
    X = rng.integers(0, 256, (40, 4, 4), np.uint8)
    return Classifier("gaussian", random_state=0).fit(X, np.array(["cat", "dog"] * 20)).predictor_


def draw(folder, n=3, seed=1):
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    for i in range(n):
        Image.fromarray(rng.integers(0, 256, (4, 4), np.uint8)).save(folder / f"{i}.png")


@pytest.mark.parametrize("split", ["test", "train", "val"])
def test_any_split_is_evaluated(classifier, tmp_path, split):
    for i, name in enumerate(("cat", "dog")):
        draw(tmp_path / split / name, seed=i + 1)
    assert len(eval_split(classifier, str(tmp_path)).images) == 6


def test_test_split_is_preferred(classifier, tmp_path):
    for i, (split, n) in enumerate({"test": 2, "train": 5, "val": 3}.items()):
        draw(tmp_path / split / "cat", n, seed=2 * i + 1)
        draw(tmp_path / split / "dog", n, seed=2 * i + 2)
    assert len(eval_split(classifier, str(tmp_path)).images) == 4


def test_ood_images_report_unreadable_files(classifier, tmp_path):
    draw(tmp_path / "birds")
    (tmp_path / "birds" / "broken.png").write_bytes(b"nothing")
    found = ood_images(classifier, str(tmp_path / "birds"))
    assert (found.source, len(found.images)) == (str(tmp_path / "birds"), 3)
    assert ["broken.png" in problem.message for problem in found.errors] == [True]


def test_images_of_other_classes_are_reported(classifier, tmp_path):
    draw(tmp_path / "cat", seed=1)
    draw(tmp_path / "bird", seed=2)
    found = eval_split(classifier, str(tmp_path))
    assert len(found.images) == 3
    assert "'bird'" in found.errors[0].message


def test_empty_folder_is_rejected(classifier, tmp_path):
    with pytest.raises(DataError, match=tmp_path.name):
        eval_split(classifier, str(tmp_path))
