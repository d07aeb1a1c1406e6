"""Automatic choice of a family."""

import numpy as np
import pytest
from sklearn.datasets import load_digits

from likely import Classifier
from likely.classifier.auto import BACKBONE, DEFAULT_OPTIONS, choose_model, default_backbone
from likely.data.listing import list_data
from likely.data.preprocessing import to_pil, write_image
from likely.features.efficientnet_lite import VARIANTS
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
        ((3, 64, 64), (5, 5), FeatureOptions(backbone="none"), "vaegan", "pixels"),
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


def images(folder, side, n_color, n_gray):
    """A folder of two classes with images of the given height, and wider, in color and gray."""
    pixels = np.random.default_rng(0).integers(0, 256, (3, side, side + 9), dtype=np.uint8)
    for name in "ab":
        (folder / name).mkdir()
        for i in range(n_color + n_gray):
            write_image(folder / name / f"{i}.png", to_pil(pixels if i < n_color else pixels[:1].repeat(3, 0)))
    return list_data(folder)


@pytest.mark.parametrize(
    ("side", "n_color", "n_gray", "backbone"),
    [(64, 2, 1, "lite0"), (63, 2, 1, None), (64, 1, 1, None), (64, 0, 2, None)],
)
def test_default_backbone_is_for_photographs(tmp_path, monkeypatch, side, n_color, n_gray, backbone):
    monkeypatch.delenv(BACKBONE, raising=False)
    listed = images(tmp_path, side, n_color, n_gray)
    found, advice = default_backbone(AUTO, PIXELS, listed)
    assert (found.backbone, advice) == (backbone, "")
    assert default_backbone("vae", PIXELS, listed) == (PIXELS, "")
    monkeypatch.setenv(BACKBONE, "somewhere")
    assert default_backbone(AUTO, PIXELS, listed)[0].backbone == (backbone and "somewhere")
    monkeypatch.setenv(BACKBONE, "none")
    assert default_backbone(AUTO, PIXELS, listed)[0].kind == "pixels"


def test_named_features_replace_the_default_backbone(tmp_path, monkeypatch):
    monkeypatch.delenv(BACKBONE, raising=False)
    listed = images(tmp_path, 64, 1, 0)
    for named in ({"features": "random"}, {"backbone": "none"}, {"backbone": "lite2"}):
        assert default_backbone(AUTO, FeatureOptions(**named), listed)[0] == FeatureOptions(**named)
    assert default_backbone(AUTO, FeatureOptions(backbone_stages=2), listed)[0].backbone == "lite0"


def test_missing_weights_of_the_default_backbone_are_advised(tmp_path, monkeypatch):
    monkeypatch.delenv(BACKBONE, raising=False)
    missing = VARIANTS["lite0"]._replace(package="no_such_package")
    monkeypatch.setitem(VARIANTS, "lite0", missing)
    found, advice = default_backbone(AUTO, PIXELS, images(tmp_path, 64, 1, 0))
    assert found.kind == "pixels"
    assert "pip install 'likely[photos]'" in advice


def test_arrays_are_not_photographs(tmp_path):
    np.savez(tmp_path / "a.npz", x_train=np.zeros((4, 64, 64, 3), np.uint8), y_train=np.arange(4) % 2)
    assert not list_data(tmp_path / "a.npz").are_photographs(8)


def test_a_classifier_says_what_it_chose():
    digits = load_digits()
    classifier = Classifier(AUTO).fit(digits.images[:300] / 16, digits.target[:300])
    assert classifier.model == AUTO
    assert classifier.predictor_.family == "gaussian"
    assert classifier.score(digits.images[300:600] / 16, digits.target[300:600]) > 0.8
