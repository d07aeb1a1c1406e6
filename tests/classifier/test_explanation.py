"""Classifier.explain: evidence that adds up to the lead, and a way that ends in the other class, of images and of vectors."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from likely import Classifier
from likely.base import HasLikelihoodMap
from likely.classifier.explanation import baseline_image

FAMILIES = {
    "gaussian": ({}, {}),
    "vae": ({"latent_dims": 4, "width": 4}, {"epochs": 5}),
    "flow": ({"width": 8, "n_couplings": 1}, {"epochs": 5}),
    "softmax": ({"width": 4}, {"epochs": 2}),
    "autoregressive": ({"channels": 8, "tokens": "pixels", "levels": 4}, {"epochs": 2}),
}


@pytest.fixture(scope="module", params=["images", "vectors"])
def data(request):
    if request.param == "vectors":
        rng, labels = np.random.default_rng(0), np.arange(300) % 3
        return rng.normal(size=(300, 5)) + 2 * rng.normal(size=(3, 5))[labels], labels
    digits = load_digits(n_class=3)
    return (digits.images * 255 / 16).round().astype(np.uint8), digits.target


@pytest.fixture(scope="module", params=FAMILIES.items(), ids=FAMILIES)
def classifier(request, data):
    family, (options, training) = request.param
    return Classifier(family, options=options, training=training).fit(*data)


def test_attribution_sums_to_the_log_odds_above_the_baseline(classifier, data):
    found = classifier.explain(data[0][0])
    assert found.label == classifier.predict(data[0][:1])[0]
    model = classifier.predictor_.model
    with torch.no_grad():
        scores = (
            model.log_scores(baseline_image(model, found.image[None])[None])[0]
            / classifier.predictor_.decision_rule.temperature
        )
    above = 0.0 if isinstance(model, HasLikelihoodMap) else float(scores[found.label] - scores[found.against])
    expected = found.log_odds - above
    assert float(found.attribution.sum()) == pytest.approx(expected, rel=0.05, abs=0.05 * max(1, abs(found.log_odds)))
    assert found.attribution.shape == found.image.shape


def test_counterfactual_path_starts_at_the_image_and_ends_in_the_other_class(classifier, data):
    path = classifier.explain(data[0][0]).counterfactual_path
    assert (path is None) == (classifier.model in {"gaussian", "softmax", "autoregressive"})
    if path is not None:
        torch.testing.assert_close(path.images[0], classifier.explain(data[0][0]).image, atol=1e-4, rtol=1e-4)
        assert path.flip is None or path.probability[-1] > 1 / 3


def test_one_class_alone_has_no_other():
    images = np.random.default_rng(0).integers(0, 256, (12, 8, 8), dtype=np.uint8)
    classifier = Classifier("gaussian", options={"covariance": "diagonal"}).fit(images, np.zeros(12))
    with pytest.raises(ValueError, match="only class"):
        classifier.explain(images[0])
