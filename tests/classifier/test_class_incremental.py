"""A class that comes later: learned from its own images, told from the others, and calibrated as far as they go."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from likely import Classifier
from likely.base import Task
from likely.data import arrays
from likely.data.decoding import ImageWarning
from likely.exceptions import InvalidValueError, UnsupportedError
from likely.models.gaussian import Gaussian, GaussianOptions
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


COVARIANCES = ("tied", "per_class", "diagonal")
SHIFTED = 3  # a class whose later images are brighter at the top


def shifted(images):
    return (images.astype(int) + np.linspace(80, 0, 8)[:, None]).clip(0, 255).astype(np.uint8)


@pytest.fixture(scope="module", params=COVARIANCES)
def before_and_after(request, digits):
    """A Gaussian, and the same after further, shifted images of one class."""
    images, labels = digits
    before = Classifier("gaussian", options={"covariance": request.param}).fit(images[:900], labels[:900])
    return before, before.extend(SHIFTED, shifted(images[900:1300][labels[900:1300] == SHIFTED]))


def test_more_images_of_a_class_leave_the_others_unchanged(before_and_after, held_out):
    before, after = (
        c.predictor_.conformal_output(arrays.images(held_out[0][:50], c.predictor_.format), alpha=0.05)
        for c in before_and_after
    )
    others = np.flatnonzero(before_and_after[0].classes_ != SHIFTED)
    torch.testing.assert_close(after.log_likelihood[:, others], before.log_likelihood[:, others], rtol=1e-6, atol=1e-4)
    torch.testing.assert_close(after.nonconformity[:, others], before.nonconformity[:, others], rtol=1e-4, atol=1e-4)
    assert torch.equal(before_and_after[0].predictor_.log_prior, before_and_after[1].predictor_.log_prior)


def test_more_images_improve_their_class(before_and_after, held_out):
    images, labels = held_out
    x = shifted(images[labels == SHIFTED])
    before, after = before_and_after
    assert (after.predict(x) == SHIFTED).sum() >= (before.predict(x) == SHIFTED).sum()
    own = [
        c.predictor_.conformal_output(arrays.images(x, c.predictor_.format), alpha=0.05).log_likelihood[:, SHIFTED]
        for c in before_and_after
    ]
    assert (own[1] > own[0]).double().mean() > 0.9


def test_more_images_calibrate_their_class(before_and_after, digits):
    before, after = (c.predictor_ for c in before_and_after)
    n = int((digits[1][900:1300] == SHIFTED).sum())
    assert len(after.hashes) == len(before.hashes) + n
    counts = (torch.bincount(each.decision_rule.typicality.labels, minlength=10) for each in (after, before))
    assert (next(counts) - next(counts)).tolist() == [n if c == SHIFTED else 0 for c in range(10)]


@pytest.mark.parametrize("covariance", COVARIANCES)
def test_more_images_are_merged_like_images_of_the_training(covariance):
    """Without shrinkage and with classes of equal scatter, two portions give the mean and covariance of the whole."""
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(4000, 3, generator=rng, dtype=torch.float64) * torch.tensor([1.0, 2.0, 0.5]) + 1
    y = torch.arange(4000) % 2
    options = GaussianOptions(covariance=covariance, shrinkage=0.0)

    def fitted(rows):
        model = Gaussian(Task((3,), tuple(torch.bincount(y[rows]).tolist())), options)
        model.update_statistics(x[rows], y[rows])
        model.finalize_statistics()
        return model

    first = (y == 1) | (torch.arange(4000) < 2000)
    merged, whole = fitted(first).with_more_images(x[~first], 0), fitted(torch.ones(4000, dtype=torch.bool))
    assert merged.task.class_counts == whole.task.class_counts
    torch.testing.assert_close(merged.mean, whole.mean)
    torch.testing.assert_close(merged.whitening, whole.whitening, rtol=0.03, atol=0.03)


def test_images_of_the_training_are_skipped(nine, digits):
    images, labels = digits[0][:900], digits[1][:900]
    if nine.predictor_.family == "gaussian":
        known = images[labels == 3][:4]
        with pytest.warns(ImageWarning) as caught:
            more = nine.extend(3, np.concatenate([known, shifted(known)]))
        assert len(caught) == 4
        assert len(more.predictor_.hashes) == len(nine.predictor_.hashes) + 4
        with pytest.raises(InvalidValueError):
            nine.extend(3, known)
    else:
        with pytest.raises(UnsupportedError):
            nine.extend(3, of_the_new(digits, 2))


def test_what_cannot_be_is_refused(nine, digits):
    images, labels = digits[0][:200], digits[1][:200]
    baseline = Classifier("softmax", options={"width": 4}, training={"epochs": 1}).fit(images, labels)
    with pytest.raises(ValueError, match="train it anew"):
        baseline.extend("new", of_the_new(digits, 2))
