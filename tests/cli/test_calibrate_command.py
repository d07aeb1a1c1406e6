"""likely calibrate: p-values of a model folder from images of another place."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from likely.checkpoint import signing
from likely.classifier import load


def document(folder):
    return json.loads((folder / "model.json").read_text())


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Noisy images of the known classes, once in class folders and once in a folder."""
    root, digits, rng = tmp_path_factory.mktemp("site"), load_digits(), np.random.default_rng(0)
    for c, name in enumerate(("bag", "boot", "sandal")):
        for i, image in enumerate(digits.images[digits.target == c][60:100]):
            pixels = np.clip(image * 15.9 + rng.normal(0, 30, image.shape), 0, 255).astype(np.uint8)
            for path in (root / f"labeled/{name}/{i}.png", root / f"unlabeled-images/{name}-{i}.png"):
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).save(path)
    return root


@pytest.fixture
def model(models, tmp_path):
    shutil.copytree(models / "gaussian", tmp_path / "model")
    return tmp_path / "model"


def test_a_folder_of_images_calibrates_the_model_in_place(likely, model, site):
    before, other = load(model), model / "notes.txt"
    other.write_text("mine")
    code, out, err = likely("calibrate", "model", site / "unlabeled-images")
    assert code == 0, err
    after = load(model)
    assert len(after.decision_rule.image_calibrator.scores) == 120
    assert after.decision_rule.temperature == before.decision_rule.temperature
    assert after.id != before.id
    assert after.id.startswith("model@")
    assert other.read_text() == "mine"
    assert [path.name for path in model.parent.iterdir()] == ["model"]
    assert "120" in out


def test_labels_and_a_new_folder(likely, model, site, tmp_path):
    unchanged = document(model)
    code, out, err = likely("calibrate", "model", site / "labeled", "--out", "better")
    assert code == 0, err
    assert document(model) == unchanged
    note = document(tmp_path / "better")["record"]["recalibration"]
    assert (note["n_images"], note["n_labeled"], note["classes"]) == (120, 120, ["bag", "boot", "sandal"])
    assert note["source"] == str(site / "labeled")
    assert "120 images from labeled" in (tmp_path / "better" / "README.md").read_text()
    assert document(tmp_path / "better")["temperature"] != unchanged["temperature"]
    assert "3 of 3" in out
    drift = document(tmp_path / "better")["record"]["reference_p_values"]
    assert drift["n"] == 120
    assert drift["quantiles"][100] == pytest.approx(0.5, abs=0.02)


def test_a_folder_is_replaced_on_request_alone(likely, model, site, tmp_path):
    assert likely("calibrate", "model", site / "labeled", "--out", "better").code == 0
    before = document(tmp_path / "better")
    assert likely("calibrate", "model", site / "unlabeled-images", "--out", "better").code == 2
    assert document(tmp_path / "better") == before
    assert likely("calibrate", "model", site / "unlabeled-images", "--out", "better", "--overwrite").code == 0
    assert document(tmp_path / "better")["record"]["recalibration"]["n_labeled"] == 0


def test_the_signature_is_removed(likely, model, site):
    for name in signing.OWN:
        (model / name).write_text("x")
    code, _, err = likely("calibrate", "model", site / "unlabeled-images")
    assert code == 0
    assert "sign it again" in err
    assert not any((model / name).exists() for name in signing.OWN)


def test_many_small_p_values_are_reported(likely, model, site):
    shifted = site.parent / "inverted"
    shutil.copytree(site / "unlabeled-images", shifted, dirs_exist_ok=True)
    for path in shifted.iterdir():
        Image.fromarray(255 - np.asarray(Image.open(path))).save(path)
    code, _, err = likely("calibrate", "model", shifted)
    assert code == 0
    assert "unknown images are among them" in err
    assert "inverted" in err


@pytest.mark.parametrize(("data", "named"), [("new", "19"), ("other", "'coat'"), ("tests", "test split")])
def test_invalid_data_are_named_and_the_model_stays(likely, model, photos, site, tmp_path, data, named):
    shutil.copytree(photos / "new", tmp_path / "other/coat")
    shutil.copytree(site / "labeled", tmp_path / "tests/test")
    (tmp_path / "new").mkdir()
    shutil.copy(photos / "new/00.png", tmp_path / "new")
    before = document(model)
    code, _, err = likely("calibrate", "model", data)
    assert code == 2
    assert named in err
    assert document(model) == before


def test_a_manifest_needs_no_labels(likely, model, site):
    manifest = site / "images.csv"
    names = sorted(path.name for path in (site / "unlabeled-images").iterdir())
    manifest.write_text("\n".join(["file_name", *(f"unlabeled-images/{name}" for name in names)]))
    assert likely("calibrate", "model", manifest).code == 0
    assert document(model)["record"]["recalibration"]["n_images"] == 120


def test_evaluate_recommends_a_calibration_if_false_alarms_deviate(likely, model, site):
    assert "likely calibrate" not in likely("evaluate", "model", site / "labeled", "--alpha", 0.9).out
    inverted = site.parent / "inverted-labeled"
    shutil.copytree(site / "labeled", inverted, dirs_exist_ok=True)
    for path in inverted.glob("*/*.png"):
        Image.fromarray(255 - np.asarray(Image.open(path))).save(path)
    code, _, err = likely("evaluate", "model", inverted, "--json")
    assert code == 0
    assert "likely calibrate" in err
    assert likely("calibrate", "model", inverted).code == 0
    assert "likely calibrate" not in likely("evaluate", "model", inverted).err
