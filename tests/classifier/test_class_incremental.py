"""A class that comes later: learned from its own images, told from the others, and calibrated as far as they go."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from likely import Classifier
from likely.data import arrays
from likely.prediction import CalibrationScope

NEW = 7
FAMILIES = {
    "gaussian": ({}, {}),
    "vae": ({"latent_dims": 8, "width": 8}, {"epochs": 8}),
    "flow": ({"width": 16, "n_couplings": 2}, {"epochs": 12}),
}


@pytest.fixture(scope="module")
def digits():
    data = load_digits()
    return (data.images * 255 / 16).round().astype(np.uint8), data.target


@pytest.fixture(scope="module", params=FAMILIES.items(), ids=FAMILIES)
def nine(request, digits):
    """A classifier that has never seen a seven."""
    family, (options, training) = request.param
    images, labels = (array[:900][digits[1][:900] != NEW] for array in digits)
    return Classifier(family, options=options, training=training).fit(images, labels)


def of_the_new(digits, n):
    images, labels = digits
    return images[:1300][labels[:1300] == NEW][:n]


@pytest.fixture(scope="module")
def held_out(digits):
    return digits[0][1300:], digits[1][1300:]


def test_a_class_is_learned_from_its_images_and_the_others_are_not_forgotten(nine, digits, held_out):
    images, labels = held_out
    ten = nine.extend(NEW, of_the_new(digits, 60))
    new = labels == NEW
    assert (ten.predict(images[new]) == NEW).mean() > 0.6
    assert (ten.predict(images[~new]) == labels[~new]).mean() > nine.score(images[~new], labels[~new]) - 0.1


def test_what_is_known_of_the_others_stays_as_it_is(nine, digits, held_out):
    ten, x = nine.extend(NEW, of_the_new(digits, 5)), held_out[0][:50]
    before, after = (
        c.predictor_.conformal_output(arrays.images(x, c.predictor_.format), alpha=0.05) for c in (nine, ten)
    )
    torch.testing.assert_close(after.log_likelihood[:, :9], before.log_likelihood, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(after.p_values[:, :9], before.p_values, rtol=0, atol=1e-3)
    state = ten.predictor_.model.state_dict()
    assert all(
        torch.equal(state[k][: len(t)] if t.ndim else state[k], t)
        for k, t in nine.predictor_.model.state_dict().items()
    )
    assert len(nine.classes_) == 9


@pytest.mark.parametrize(("n", "expected"), [(60, CalibrationScope.PER_CLASS), (5, CalibrationScope.NONE)])
def test_an_answer_says_what_a_few_images_can_support(nine, digits, n, expected):
    ten = nine.extend(NEW, of_the_new(digits, n))
    assert ten.predictor_.decision_rule.typicality.scope(0.05)[-1] is expected
    assert set(ten.predictor_.decision_rule.typicality.scope(0.05)[:-1]) == set(
        nine.predictor_.decision_rule.typicality.scope(0.05)
    )


def test_few_of_the_new_images_are_turned_away(nine, digits, held_out):
    """At most alpha of them, up to what so many calibration images and so many test images leave to chance."""
    images, labels = held_out
    ten = nine.extend(NEW, of_the_new(digits, 120))
    own = ten.predictor_.conformal_output(
        arrays.images(images[labels == NEW], ten.predictor_.format), alpha=0.1
    ).p_values[:, -1]
    n = len(own)
    assert (own <= 0.1).double().mean() < 0.1 + 3 * (0.09 / n + 0.09 / 120) ** 0.5


def test_classes_can_be_added_repeatedly(nine, digits, tmp_path):
    ten = nine.extend(NEW, of_the_new(digits, 20))
    eleven = ten.extend("blank", np.zeros((3, 8, 8), np.uint8))
    eleven.save(tmp_path / "m")
    loaded = Classifier.load(tmp_path / "m")
    assert loaded.predictor_.labels == (*ten.predictor_.labels, "blank")
    x = of_the_new(digits, 30)[20:]
    np.testing.assert_allclose(loaded.predict_proba(x), eleven.predict_proba(x), atol=1e-6)
    assert np.exp(eleven.predictor_.log_prior.numpy()).sum() == pytest.approx(1)
    assert len(loaded.predictor_.hashes) == len(nine.predictor_.hashes) + 23


def test_a_saved_model_learns_a_class_as_the_same_model_would_unsaved(nine, digits, tmp_path):
    nine.save(tmp_path / "nine")
    ten, again = (each.extend(NEW, of_the_new(digits, 20)) for each in (nine, Classifier.load(tmp_path / "nine")))
    for a, b in zip(
        ten.predictor_.model.state_dict().values(), again.predictor_.model.state_dict().values(), strict=True
    ):
        torch.testing.assert_close(a, b)


def test_a_single_image_is_enough_to_be_answered_for(nine, digits):
    ten = nine.extend(NEW, of_the_new(digits, 1))
    assert ten.classify(of_the_new(digits, 2))[1].classes[-1].probability >= 0


def test_what_cannot_be_is_refused(nine, digits):
    with pytest.raises(ValueError, match="already"):
        nine.extend(3, of_the_new(digits, 2))
    images, labels = digits[0][:200], digits[1][:200]
    baseline = Classifier("softmax", options={"width": 4}, training={"epochs": 1}).fit(images, labels)
    with pytest.raises(ValueError, match="train it anew"):
        baseline.extend("new", of_the_new(digits, 2))
