"""Photographs on the command line: backbones, files from cameras, and training on generated images."""

import json
from itertools import count
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from program import run

from likely import Classifier
from likely.training import loop

COLORS = {"fruit/lemon": (230, 200, 30), "fruit/plum": (90, 30, 110), "cup": (240, 240, 240)}


def photograph(color, rng, size=(40, 32)):
    """Return a colored spot on a dark background, with noise."""
    width, height = size
    y, x = np.mgrid[:height, :width]
    spot = np.hypot(x / width - rng.uniform(0.4, 0.6), y / height - rng.uniform(0.4, 0.6)) < rng.uniform(0.2, 0.4)
    pixels = np.where(spot[:, :, None], color, 40) + rng.normal(0, 12, (height, width, 3))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """25 photographs of each of three things, two of them in a group."""
    root, rng = tmp_path_factory.mktemp("shop"), np.random.default_rng(0)
    for name, color in COLORS.items():
        (root / name).mkdir(parents=True)
        for i in range(25):
            photograph(color, rng).save(root / name / f"{i:02d}.jpg", quality=92)
    return root


@pytest.fixture(scope="module")
def model(shop, backbone, tmp_path_factory):
    out = tmp_path_factory.mktemp("models") / "shop"
    words = [
        "train",
        shop,
        "--backbone",
        backbone,
        "--model",
        "auto",
        "--out",
        out,
        "--label-check-folds",
        0,
        "--threads",
        1,
    ]
    assert run(*words).code == 0
    return out


@pytest.fixture(scope="module")
def drawer(tmp_path_factory):
    """A folder of photographs with gray, tiny, huge, rotated and damaged files."""
    root, rng = tmp_path_factory.mktemp("drawer"), np.random.default_rng(1)
    lemon = COLORS["fruit/lemon"]
    photograph(lemon, rng).save(root / "good.jpg")
    photograph(lemon, rng).convert("L").save(root / "gray.png")
    photograph(lemon, rng, (1, 1)).save(root / "pixel.png")
    photograph(lemon, rng, (3000, 4)).save(root / "strip.png")
    photograph(lemon, rng, (4000, 3000)).save(root / "huge.jpg")
    turned, exif = photograph(lemon, rng).rotate(-90, expand=True), Image.Exif()
    exif[0x0112] = 8
    turned.save(root / "turned.jpg", exif=exif)
    (root / "torn.jpg").write_bytes((root / "good.jpg").read_bytes()[:300])
    (root / "empty.jpg").write_bytes(b"")
    (root / "letter.jpg").write_text("Dear Sir")
    return root


def test_family_chosen_by_auto_is_recorded(model, likely):
    document = json.loads((model / "model.json").read_text())
    assert document["family"] == "gaussian"
    code, out, _ = likely("info", model)
    assert code == 0
    assert "gaussian" in out


def test_every_file_of_a_folder_is_classified_or_has_an_error(model, drawer, likely):
    code, out, err = likely("classify", model, drawer, "--format", "jsonl")
    assert code == 1
    found = {answer["input"].rpartition("/")[2]: answer for answer in map(json.loads, out.splitlines())}
    assert set(found) == {path.name for path in drawer.iterdir()}
    bad = {"torn.jpg", "empty.jpg", "letter.jpg"}
    for name, answer in found.items():
        assert (answer["status"] == "error") == (name in bad), name
        assert (answer["error"] is not None) == (name in bad)
    assert all(name in err for name in bad)
    assert "Traceback" not in err
    assert found["good.jpg"]["label"] == "fruit/lemon"


def test_photograph_is_rotated_by_its_exif_orientation(model, drawer, tmp_path, likely):
    upright = tmp_path / "upright.png"
    with Image.open(drawer / "turned.jpg") as turned:
        turned.transpose(Image.Transpose.ROTATE_90).save(upright)
    _, out, _ = likely("classify", model, drawer / "turned.jpg", upright, "--format", "jsonl")
    turned, same = (json.loads(line) for line in out.splitlines())
    assert turned["label"] == same["label"]
    assert turned["probability"] == pytest.approx(same["probability"], abs=1e-6)


def test_prediction_has_groups_of_nested_classes(model, shop, likely):
    _, out, _ = likely("classify", model, shop / "fruit/plum/03.jpg", "--format", "jsonl")
    (answer,) = map(json.loads, out.splitlines())
    (coarse,) = answer["groups"]
    assert coarse["label"] in ("fruit", "cup")


def test_generating_from_features_needs_a_decoder(model, tmp_path, likely):
    code, _, err = likely("generate", model, "--out", tmp_path / "made.png")
    assert code == 2
    assert "--decoder-minutes" in err


def test_decoder_generates_images_from_features(shop, backbone, tmp_path, likely, monkeypatch):
    ticks = count()
    clock = SimpleNamespace(monotonic=lambda: next(ticks) / 30)  # as many steps on a busy machine as on another
    monkeypatch.setattr(loop, "time", clock)
    words = [
        "--backbone",
        backbone,
        "--model",
        "gaussian",
        "--label-check-folds",
        0,
        "--threads",
        1,
        "--out",
        tmp_path / "shop",
    ]
    decoder = ["--decoder-minutes", 0.03, "--decoder-side", 16, "--decoder-thumbnail-side", 8, "--decoder-width", 8]
    assert (ran := likely("train", shop, *words, *decoder))[0] == 0, ran[2]
    classifier = Classifier.load(tmp_path / "shop")
    lemons, cups = (classifier.sample(name, 8, seed=0).mean((0, 2, 3)) for name in ("fruit/lemon", "cup"))
    assert lemons[0] - lemons[2] > cups[0] - cups[2] + 30  # yellow beside gray
    red = [Image.new("RGB", (40, 32), (220, 20, 20)) for _ in range(3)]
    larger = classifier.extend("tomato", red)
    larger.save(tmp_path / "larger")
    tomatoes = Classifier.load(tmp_path / "larger").sample("tomato", 8, seed=0).mean((0, 2, 3))
    assert tomatoes[0] - tomatoes[1] > cups[0] - cups[1] + 30
    assert np.array_equal(larger.sample("cup", 2, seed=1), classifier.sample("cup", 2, seed=1))


def test_effect_of_generated_images_is_recorded(shop, tmp_path, likely):
    words = ["--model", "gaussian", "--size", 16, "--label-check-folds", 0]
    assert likely("train", shop, "--out", tmp_path / "first", *words)[0] == 0
    augmented = [*words, "--augment-with", f"{tmp_path / 'first'}:5"]
    code, _, err = likely("train", shop, "--out", tmp_path / "second", *augmented)
    assert code == 0, err
    document = json.loads((tmp_path / "second/model.json").read_text())
    assert document["record"]["synthetic_augmentation"]["n_generated"] == 15
    assert likely("generate", tmp_path / "first", "--dataset", tmp_path / "made", "-n", 3)[0] == 0
    assert len(list((tmp_path / "made/fruit/plum").iterdir())) == 3
