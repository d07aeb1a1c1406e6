"""likely classify --mask: predictions from some of the pixels."""

import json

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from likely import Classifier


def classify(likely, *words):
    code, out, err = likely("classify", *words, "--format", "jsonl")
    return code, [json.loads(line) for line in out.splitlines()], err


@pytest.mark.parametrize("family", ["vae", "gaussian"])
def test_masked_image_has_p_values_calibrated_for_the_mask(likely, models, photos, left_half, family):
    code, found, err = classify(likely, models / family, photos / "known/boot", "--mask", left_half)
    assert code == 0, err
    assert all(prediction["p_value"] is not None for prediction in found)
    assert sum(prediction["label"] == "boot" for prediction in found) > 30
    whole = classify(likely, models / family, photos / "known/boot")[1]
    assert [a["probability"] for a in found] != [a["probability"] for a in whole]


def test_mask_of_all_pixels_changes_nothing(likely, models, photos, tmp_path):
    Image.new("L", (8, 8), 255).save(tmp_path / "all.png")
    asked = (models / "vae", photos / "known/boot")
    assert classify(likely, *asked, "--mask", "all.png")[1] == classify(likely, *asked)[1]


def test_posterior_is_the_prior_with_all_pixels_hidden(likely, models, photos, tmp_path):
    Image.new("L", (8, 8), 0).save(tmp_path / "none.png")
    found = classify(likely, models / "vae", photos / "known/boot", "--mask", "none.png")[1]
    uniform = classify(likely, models / "vae", photos / "known/boot", "--mask", "none.png", "--prior", "uniform")[1]
    for prediction in uniform:
        np.testing.assert_allclose([c["probability"] for c in prediction["classes"]], 1 / 3, atol=1e-6)
    assert len({tuple(c["probability"] for c in prediction["classes"]) for prediction in found}) == 1


def test_transparent_pixels_have_no_influence(likely, models, photos, tmp_path):
    picture = Image.open(photos / "known/boot/03.png")
    for name, hidden in (("black", 0), ("white", 255)):
        pixels = np.asarray(picture).copy()
        pixels[:, 4:] = hidden
        alpha = np.where(np.arange(8) < 4, 255, 0).astype(np.uint8)[None].repeat(8, 0)
        Image.fromarray(np.stack([pixels, alpha], 2), "LA").save(tmp_path / f"{name}.png")
    code, found, err = classify(likely, models / "vae", "black.png", "white.png", "--mask", "transparent")
    assert code == 0, err
    black, white = (prediction["classes"] for prediction in found)
    assert black == white
    assert found[0]["status"] == "uncalibrated"
    assert found[0]["p_value"] is None


def test_opaque_image_is_classified_identically_beside_a_transparent_one(likely, models, photos, tmp_path):
    opaque = photos / "known/bag/05.png"
    picture = np.asarray(Image.open(photos / "known/boot/03.png"))
    alpha = np.where(np.arange(8) < 4, 255, 0).astype(np.uint8)[None].repeat(8, 0)
    Image.fromarray(np.stack([picture, alpha], 2), "LA").save(tmp_path / "half.png")
    _, (alone,), _ = classify(likely, models / "vae", opaque)
    _, (_, beside), _ = classify(likely, models / "vae", "half.png", opaque, "--mask", "transparent")
    assert beside == alone


def test_masked_image_has_no_bits_per_dim(likely, models, photos, left_half):
    _, found, _ = classify(likely, models / "vae", photos / "known/boot/03.png", "--mask", left_half)
    assert found[0]["bits_per_dim"] is None


@pytest.mark.parametrize("words", [("--prior", "adapt", "--mask", "transparent"), ("--data", "known")])
def test_options_that_exclude_each_other_are_rejected(likely, models, photos, words):
    code, out, err = likely("classify", models / "vae", photos / "known/boot/03.png", *words)
    assert (code, out) == (2, "")
    assert "--mask" in err


def test_masked_image_has_no_p_value_without_the_training_images(likely, photos, left_half, tmp_path):
    digits = load_digits(n_class=3)
    Classifier("gaussian").fit((digits.images * 15.9).astype(np.uint8), digits.target).save(tmp_path / "m")
    code, (found,), _ = classify(likely, "m", photos / "known/boot/03.png", "--mask", left_half)
    assert code == 0
    assert found["p_value"] is None


def test_family_that_needs_all_pixels_is_rejected_with_alternatives(likely, models, photos, left_half):
    code, _, err = classify(likely, models / "softmax", photos / "known/boot", "--mask", left_half)
    assert code == 2
    assert "vae" in err


def test_invalid_mask_is_named_with_the_alternative(likely, models, photos):
    code, _, err = classify(likely, models / "vae", photos / "known/boot", "--mask", "transparant")
    assert code == 2
    assert "transparant" in err
    assert "'transparent'" in err


@pytest.mark.parametrize(
    ("guarantee", "expected"),
    [("class", ["split", "split-pooled", None]), ("overall", ["split", "split", None])],
)
def test_predictions_and_warnings_report_the_calibration(likely, models, photos, guarantee, expected):
    image = photos / "known/boot/03.png"
    found = [classify(likely, models / "vae", image, "--guarantee", guarantee, "--alpha", a) for a in (0.2, 0.05, 1e-3)]
    assert [predictions[0]["calibration"] for _, predictions, _ in found] == expected
    assert [bool(warning) for _, _, warning in found] == [calibration != "split" for calibration in expected]
