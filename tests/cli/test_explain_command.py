"""likely explain: pictures of explanations and of imputed pixels."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from likely import Classifier

FAMILIES = ("vae", "gaussian", "softmax")
IMAGE = "known/boot/03.png"


@pytest.mark.parametrize("family", FAMILIES)
def test_explanation_shows_a_counterfactual_with_a_latent_space(likely, models, photos, family):
    code, _, err = likely("explain", models / family, photos / IMAGE, "--out", "why.png")
    assert code == 0, err
    with Image.open("why.png") as picture:
        assert picture.width > 7 * 96
        assert picture.height > (4 if family == "vae" else 3) * 96


def test_explain_accepts_the_class_to_compare_with(likely, models, photos):
    label = Classifier.load(models / "vae").classify([photos / IMAGE])[0].label
    other = next(name for name in ("bag", "boot", "sandal") if name != label)
    asked = ("explain", models / "vae", photos / IMAGE, "--out")
    assert likely(*asked, "why.jpg", "--against", other).code == 0
    for name in (label, "sandel"):
        assert likely(*asked, "why2.png", "--against", name).code == 2


def test_training_images_are_shown_only_where_they_are_found(likely, models, photos, tmp_path):
    copy = shutil.copytree(models / "vae", tmp_path / "copy")
    document = json.loads((copy / "model.json").read_text())
    document["record"]["source"] = document["run"]["data"] = str(tmp_path / "gone")
    (copy / "model.json").write_text(json.dumps(document))
    code, _, err = likely("explain", copy, photos / IMAGE, "--out", "less.png")
    assert code == 0
    assert "--data" in err
    assert likely("explain", copy, photos / IMAGE, "--out", "more.png", "--data", photos / "known").code == 0
    with Image.open("less.png") as less, Image.open("more.png") as more:
        assert more.height > less.height


def test_unreadable_image_is_named(likely, models):
    code, _, err = likely("explain", models / "vae", "gone.png", "--out", "why.png")
    assert code == 2
    assert "gone.png" in err


def test_model_without_a_record_is_explained_without_training_images(likely, photos, tmp_path):
    digits = load_digits(n_class=3)
    Classifier("gaussian").fit((digits.images * 15.9).astype(np.uint8), digits.target).save(tmp_path / "m")
    assert likely("explain", "m", photos / IMAGE, "--out", "why.png").code == 0
    assert (tmp_path / "why.png").exists()


@pytest.mark.parametrize("family", ["vae", "gaussian"])
def test_hidden_pixels_are_imputed_for_every_class(likely, models, photos, left_half, family):
    code, _, err = likely("explain", models / family, photos / IMAGE, "--mask", left_half, "--out", "behind.png")
    assert code == 0, err
    with Image.open("behind.png") as picture:
        assert picture.height > 2 * 96
    mask = np.arange(8) < 4
    found = Classifier.load(models / family).impute(photos / IMAGE, np.broadcast_to(mask, (8, 8)))
    assert found.images.shape == (3, 1, 8, 8)
    for image in found.images:
        assert (image[..., mask] == found.image[..., mask]).all()
    assert not (found.images[0] == found.images[1]).all()


def test_imputation_has_no_other_class_and_needs_a_family_that_supports_it(likely, models, photos, left_half, tmp_path):
    asked = (photos / IMAGE, "--mask", left_half, "--out", "behind.png")
    assert likely("explain", models / "vae", *asked, "--against", "bag").code == 2
    code, _, err = likely("explain", models / "softmax", *asked)
    assert code == 2
    assert "vae" in err
    assert not (tmp_path / "behind.png").exists()


def test_opaque_image_with_a_transparency_mask_is_explained_as_a_whole(likely, models, photos):
    for mask in ((), ("--mask", "transparent")):
        assert likely("explain", models / "vae", photos / IMAGE, *mask, "--out", f"{len(mask)}.png").code == 0
    with Image.open("0.png") as whole, Image.open("2.png") as masked:
        assert whole.size == masked.size
