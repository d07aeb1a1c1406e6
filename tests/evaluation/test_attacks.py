"""Attacks: bounded by epsilon, and at least as successful as no attack."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from likely import Classifier
from likely.base import to_unit
from likely.data.dataset import LabeledImages
from likely.data.image_dataset import ArrayDataset
from likely.evaluation import attacks
from likely.evaluation.attacks import ATTACKS, Target, attack
from likely.prediction import Guarantee

ALPHA = 0.1


@pytest.fixture(autouse=True)
def brief(monkeypatch):
    """Reduce the steps of the attacks."""
    monkeypatch.setattr(attacks, "N_STEPS", 10)


@pytest.fixture(scope="module")
def digits():
    data = load_digits(n_class=4)
    images = (data.images * 255 / 16).round().astype(np.uint8)
    return images, data.target


@pytest.fixture(scope="module", params=["gaussian", "vae", "softmax"])
def classifier(request, digits):
    images, labels = digits
    options = {"vae": {"width": 4, "latent_dims": 4}, "softmax": {"width": 4}}.get(request.param, {})
    return Classifier(request.param, options=options, training={"epochs": 5}).fit(images[:500], labels[:500]).predictor_


@pytest.fixture(scope="module")
def labeled(digits):
    images, labels = digits
    pixels = images[500:512, None]
    return LabeledImages(ArrayDataset(pixels, str), labels[500:512].astype(np.int64), np.arange(12))


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
def test_pixels_change_by_at_most_epsilon(classifier, labeled, attack):
    x, y = to_unit(labeled.images.batch(range(12))), torch.from_numpy(labeled.labels)
    found = attack(Target(classifier, ALPHA), x, y, 16 / 255, torch.Generator().manual_seed(0))
    assert (found - x).abs().max() <= 16 / 255 + 1e-6
    assert 0 <= found.min() <= found.max() <= 1


def test_gradient_attack_lowers_accuracy(classifier, labeled):
    found = {row.attack: row for row in attack(Target(classifier, ALPHA), labeled, epsilon=64, seed=0)}
    clean, gradient = found["none"], found["gradient"]
    output = classifier.conformal_output(labeled.images, alpha=ALPHA)
    assert clean.accuracy == pytest.approx(float((output.predicted.numpy() == labeled.labels).mean()))
    assert clean.epsilon == 0
    assert gradient.attack_success_rate >= clean.attack_success_rate
    assert gradient.attack_success_rate <= 1 - gradient.accuracy
    assert gradient.n == 12
    assert gradient.accuracy < clean.accuracy - 0.3


@pytest.mark.parametrize("guarantee", Guarantee)
@pytest.mark.parametrize("classifier", ["gaussian", "softmax"], indirect=True)  # all of whose statistics have gradients
def test_gradient_attack_lowers_the_score_that_rejects(classifier, labeled, guarantee):
    target = Target(classifier, ALPHA, guarantee)
    x, y = to_unit(labeled.images.batch(range(12))).requires_grad_(), torch.from_numpy(labeled.labels)
    outputs = target.outputs(x)
    output = target.decide(outputs)
    (gradient,) = torch.autograd.grad(target.score(outputs, output, y).sum(), x)
    down, up = (
        target.decide(target.outputs(torch.clamp(x + step / 255 * gradient.sign(), 0, 1).detach())) for step in (-1, 1)
    )

    def score(output):
        by_class = output.nonconformity[range(12), y]
        return (output.score if guarantee is Guarantee.OVERALL else by_class).mean()

    assert score(down) < score(up)


def test_attack_requires_labeled_images(classifier, labeled):
    nothing = LabeledImages(labeled.images, np.full(12, -1), labeled.hashes)
    with pytest.raises(ValueError, match="label"):
        attack(Target(classifier, ALPHA), nothing, epsilon=8, seed=0)


def test_attack_rejects_models_of_vectors(labeled):
    vectors = np.random.default_rng(0).normal(size=(40, 3))
    classifier = Classifier("gaussian").fit(vectors, np.arange(40) % 2).predictor_
    with pytest.raises(ValueError, match="model of images"):
        attack(Target(classifier, ALPHA), labeled, epsilon=8, seed=0)
