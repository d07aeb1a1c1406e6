"""What a model is measured on."""

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


@pytest.mark.parametrize("part", ["test", "train", "val"])
def test_any_part_will_do(classifier, tmp_path, part):
    for i, name in enumerate(("cat", "dog")):
        draw(tmp_path / part / name, seed=i + 1)
    assert len(eval_split(classifier, str(tmp_path)).images) == 6


def test_the_test_part_comes_first(classifier, tmp_path):
    for i, (part, n) in enumerate({"test": 2, "train": 5, "val": 3}.items()):
        draw(tmp_path / part / "cat", n, seed=2 * i + 1)
        draw(tmp_path / part / "dog", n, seed=2 * i + 2)
    assert len(eval_split(classifier, str(tmp_path)).images) == 4


def test_strangers_come_with_what_was_left_out_of_them(classifier, tmp_path):
    draw(tmp_path / "birds")
    (tmp_path / "birds" / "broken.png").write_bytes(b"nothing")
    found = ood_images(classifier, str(tmp_path / "birds"))
    assert (found.source, len(found.images)) == (str(tmp_path / "birds"), 3)
    assert ["broken.png" in problem.message for problem in found.errors] == [True]


def test_images_of_other_classes_are_said(classifier, tmp_path):
    draw(tmp_path / "cat", seed=1)
    draw(tmp_path / "bird", seed=2)
    found = eval_split(classifier, str(tmp_path))
    assert len(found.images) == 3
    assert "'bird'" in found.errors[0].message


def test_an_empty_folder_is_refused(classifier, tmp_path):
    with pytest.raises(DataError, match=tmp_path.name):
        eval_split(classifier, str(tmp_path))
