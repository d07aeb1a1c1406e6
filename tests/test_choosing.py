"""What is learned where no family is named."""

import numpy as np
import pytest
from sklearn.datasets import load_digits

from likely import AUTO, Classifier
from likely.classifier.choosing import BACKBONE, MANY, at_hand, choice_of
from likely.data.images import to_pil, write
from likely.nets.features import FeatureOptions

PIXELS = FeatureOptions()


@pytest.mark.parametrize(
    ("shape", "counts", "features", "family", "kind"),
    [
        ((1, 28, 28), (MANY, MANY, 2 * MANY), PIXELS, "vaegan", "pixels"),
        ((1, 28, 28), (MANY - 1, MANY - 1, 3 * MANY), PIXELS, "gaussian", "random"),
        ((3, 224, 224), (5, 5), FeatureOptions(backbone="somewhere"), "gaussian", "backbone"),
        ((3, 64, 64), (5000, 5000), FeatureOptions(features="autoencoder"), "gaussian", "autoencoder"),
        ((10,), (20, 20), PIXELS, "gaussian", "pixels"),
    ],
)
def test_a_family_is_chosen_by_what_there_is(shape, counts, features, family, kind):
    found = choice_of(AUTO, features, shape, counts)
    assert (found.family, found.features.kind) == (family, kind)
    if len(shape) == 3:
        assert found.why.startswith(f"--model auto: {family}")
        assert "--model NAME" in found.why


def test_who_names_a_family_gets_it():
    assert choice_of("vae", PIXELS, (1, 8, 8), (1, 1)).family == "vae"
    assert choice_of("vae", PIXELS, (1, 8, 8), (1, 1)).why == ""


@pytest.mark.parametrize(("side", "kind"), [(16, "pixels"), (100, "backbone")])
def test_a_backbone_at_hand_is_for_photographs(tmp_path, monkeypatch, side, kind):
    for name in "ab":
        (tmp_path / name).mkdir()
        write(tmp_path / name / "1.png", to_pil(np.zeros((3, side, side), np.uint8)))
    assert at_hand(AUTO, PIXELS, str(tmp_path)).kind == "pixels"
    monkeypatch.setenv(BACKBONE, "somewhere")
    assert at_hand(AUTO, PIXELS, str(tmp_path)).kind == kind
    assert at_hand("vae", PIXELS, str(tmp_path)).kind == "pixels"
    assert at_hand(AUTO, FeatureOptions(features="random"), str(tmp_path)).kind == "random"


def test_a_classifier_says_what_it_chose():
    digits = load_digits()
    classifier = Classifier(AUTO).fit(digits.images[:300] / 16, digits.target[:300])
    assert classifier.model == AUTO
    assert classifier.family == "gaussian"
    assert classifier.score(digits.images[300:600] / 16, digits.target[300:600]) > 0.8
