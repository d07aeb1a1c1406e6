"""likely extend: new classes in a new model folder."""

import json
import shutil

import numpy as np
import pytest
from sklearn.datasets import load_digits

from likely import Classifier
from likely.classifier import load


def record(folder):
    return json.loads((folder / "model.json").read_text())["record"]


@pytest.mark.parametrize("family", ["vae", "gaussian"])
def test_extend_adds_a_class_in_a_new_model_folder(likely, models, photos, tmp_path, family):
    before = (models / family / "model.safetensors").read_bytes()
    code, _, err = likely("extend", models / family, f"coat={photos / 'new'}", "--out", "larger")
    assert code == 0, err
    assert record(tmp_path / "larger")["added_classes"] == {"coat": 60}
    assert (models / family / "model.safetensors").read_bytes() == before
    code, out, _ = likely("classify", "larger", photos / "new", "--format", "jsonl")
    labels = [json.loads(line)["label"] for line in out.splitlines()]
    assert code == 0
    assert labels.count("coat") > 30
    assert likely("info", "larger").code == 0


def test_extend_skips_and_names_an_unreadable_image(likely, models, photos, tmp_path):
    few = tmp_path / "few"
    few.mkdir()
    for i in range(5):
        shutil.copy(photos / "new" / f"{i:02d}.png", few)
    (few / "broken.png").write_bytes(b"no image")
    code, _, err = likely("extend", models / "vae", f"coat={few}", "--out", "larger")
    assert code == 1
    assert "broken.png" in err
    assert record(tmp_path / "larger")["added_classes"] == {"coat": 5}
    assert load(tmp_path / "larger").decision_rule.typicality.n_missing(0.05)[-1] == 15


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["coat"], "NAME=DIR"),
        (["coat=nowhere"], "nowhere"),
        (["coat=.", "coat=."], "'coat'"),
    ],
)
def test_extend_names_an_invalid_class_and_writes_nothing(likely, models, photos, words, named, tmp_path):
    shutil.copy(photos / "new/00.png", tmp_path)
    code, _, err = likely("extend", models / "gaussian", *words, "--out", "larger")
    assert code == 2
    assert named in err
    assert not (tmp_path / "larger").exists()


def test_extend_improves_a_class_of_the_model(likely, models, photos, tmp_path):
    code, _, err = likely("extend", models / "gaussian", f"boot={photos / 'new'}", "--out", "larger")
    assert code == 0, err
    before, after = load(models / "gaussian"), load(tmp_path / "larger")
    assert after.labels == before.labels
    assert record(tmp_path / "larger")["added_images"] == {"boot": 60}
    assert record(tmp_path / "larger")["added_classes"] == {}
    assert len(after.hashes) == len(before.hashes) + 60


def test_family_of_a_joint_network_learns_no_more_images_of_a_class(likely, models, photos, tmp_path):
    assert likely("extend", models / "vae", f"boot={photos / 'new'}", "--out", "larger").code == 2
    assert not (tmp_path / "larger").exists()


def test_family_without_class_components_cannot_be_extended(likely, models, photos, tmp_path):
    assert likely("extend", models / "softmax", f"coat={photos / 'new'}", "--out", "larger").code == 2
    assert not (tmp_path / "larger").exists()


def test_extend_of_a_model_without_a_record_replaces_nothing(likely, photos, tmp_path):
    digits = load_digits(n_class=3)
    Classifier("gaussian").fit((digits.images * 15.9).astype(np.uint8), digits.target).save(tmp_path / "m")
    old = shutil.copytree(tmp_path / "m", tmp_path / "old")
    assert likely("extend", "m", f"coat={photos / 'new'}", "--out", "old", "--overwrite").code == 2
    assert (old / "model.json").exists()
