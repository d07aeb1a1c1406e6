"""Automatic choice of a family."""

import numpy as np
import pytest
from sklearn.datasets import load_digits

from likely import Classifier
from likely.classifier.auto import BACKBONE, DEFAULT_OPTIONS, choose_model, default_backbone
from likely.data.listing import list_data
from likely.data.preprocessing import to_pil, write_image
from likely.features.feature_extractors import FeatureOptions
from likely.options import AUTO

PIXELS = FeatureOptions()

MIN_IMAGES = DEFAULT_OPTIONS.min_images_per_class


@pytest.mark.parametrize(
    ("shape", "counts", "features", "family", "kind"),
    [
        (
            (1, 28, 28),
            (MIN_IMAGES, MIN_IMAGES, 2 * MIN_IMAGES),
            PIXELS,
            "vaegan",
            "pixels",
        ),
        (
            (1, 28, 28),
            (MIN_IMAGES - 1, MIN_IMAGES - 1, 3 * MIN_IMAGES),
            PIXELS,
            "gaussian",
            "random",
        ),
        ((3, 224, 224), (5, 5), FeatureOptions(backbone="somewhere"), "gaussian", "backbone"),
        ((3, 64, 64), (5000, 5000), FeatureOptions(features="autoencoder"), "gaussian", "autoencoder"),
        ((10,), (20, 20), PIXELS, "gaussian", "pixels"),
    ],
)
def test_a_family_is_chosen_by_what_there_is(shape, counts, features, family, kind):
    found = choose_model(AUTO, features, shape, counts)
    assert (found.family, found.features.kind) == (family, kind)
    if len(shape) == 3:
        assert found.reason.startswith(f"--model auto: {family}")
        assert "--model NAME" in found.reason


def test_who_names_a_family_gets_it():
    assert choose_model("vae", PIXELS, (1, 8, 8), (1, 1)).family == "vae"
    assert choose_model("vae", PIXELS, (1, 8, 8), (1, 1)).reason == ""


@pytest.mark.parametrize(("side", "kind"), [(16, "pixels"), (100, "backbone")])
def test_a_backbone_at_hand_is_for_photographs(tmp_path, monkeypatch, side, kind):
    for name in "ab":
        (tmp_path / name).mkdir()
        write_image(tmp_path / name / "1.png", to_pil(np.zeros((3, side, side), np.uint8)))
    assert default_backbone(AUTO, PIXELS, list_data(tmp_path)).kind == "pixels"
    monkeypatch.setenv(BACKBONE, "somewhere")
    assert default_backbone(AUTO, PIXELS, list_data(tmp_path)).kind == kind
    assert default_backbone("vae", PIXELS, list_data(tmp_path)).kind == "pixels"
    assert default_backbone(AUTO, FeatureOptions(features="random"), list_data(tmp_path)).kind == "random"


def test_a_classifier_says_what_it_chose():
    digits = load_digits()
    classifier = Classifier(AUTO).fit(digits.images[:300] / 16, digits.target[:300])
    assert classifier.model == AUTO
    assert classifier.predictor_.family == "gaussian"
    assert classifier.score(digits.images[300:600] / 16, digits.target[300:600]) > 0.8
