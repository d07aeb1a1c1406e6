"""likely with photographs: a backbone on the command line, files as cameras leave them, generated images as lessons."""

import json
from itertools import count
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from likely import Classifier
from likely.cli import main
from likely.training import loop

COLORS = {"fruit/lemon": (230, 200, 30), "fruit/plum": (90, 30, 110), "cup": (240, 240, 240)}


def photograph(color, rng, size=(40, 32)):
    """A spot of a color on a dark ground, with grain."""
    width, height = size
    y, x = np.mgrid[:height, :width]
    spot = np.hypot(x / width - rng.uniform(0.4, 0.6), y / height - rng.uniform(0.4, 0.6)) < rng.uniform(0.2, 0.4)
    pixels = np.where(spot[:, :, None], color, 40) + rng.normal(0, 12, (height, width, 3))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def likely(capsys, *words):
    """Exit code, stdout, stderr."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        main(list(map(str, words)))
    return stop.value.code or 0, *capsys.readouterr()


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
    with pytest.raises(SystemExit) as stop:
        main(list(map(str, words)))
    assert not stop.value.code
    return out


@pytest.fixture(scope="module")
def drawer(tmp_path_factory):
    """What a folder of anybody's photographs holds besides good ones."""
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


def test_what_auto_chose_stands_in_the_model_folder(model, capsys):
    document = json.loads((model / "model.json").read_text())
    assert document["family"] == "gaussian"
    code, out, _ = likely(capsys, "info", model)
    assert code == 0
    assert "gaussian" in out


def test_every_file_of_a_folder_is_answered_or_named(model, drawer, capsys):
    code, out, err = likely(capsys, "classify", model, drawer, "--format", "jsonl")
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


def test_a_photograph_that_lies_on_its_side_is_turned(model, drawer, tmp_path, capsys):
    upright = tmp_path / "upright.png"
    with Image.open(drawer / "turned.jpg") as turned:
        turned.transpose(Image.Transpose.ROTATE_90).save(upright)
    _, out, _ = likely(capsys, "classify", model, drawer / "turned.jpg", upright, "--format", "jsonl")
    turned, same = (json.loads(line) for line in out.splitlines())
    assert turned["label"] == same["label"]
    assert turned["probability"] == pytest.approx(same["probability"], abs=1e-6)


def test_a_group_is_answered_with_its_classes_together(model, shop, capsys):
    _, out, _ = likely(capsys, "classify", model, shop / "fruit/plum/03.jpg", "--format", "jsonl")
    (answer,) = map(json.loads, out.splitlines())
    (coarse,) = answer["groups"]
    assert coarse["label"] in ("fruit", "cup")


def test_a_model_of_features_that_cannot_draw_says_how_it_learns_to(model, tmp_path, capsys):
    code, _, err = likely(capsys, "generate", model, "--out", tmp_path / "made.png")
    assert code == 2
    assert "--decoder-minutes" in err


def test_a_model_of_features_learns_to_draw(shop, backbone, tmp_path, capsys, monkeypatch):
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
    lessons = ["--decoder-minutes", 0.03, "--decoder-side", 16, "--decoder-thumbnail-side", 8, "--decoder-width", 8]
    assert (ran := likely(capsys, "train", shop, *words, *lessons))[0] == 0, ran[2]
    classifier = Classifier.load(tmp_path / "shop")
    lemons, cups = (classifier.sample(name, 8, seed=0).mean((0, 2, 3)) for name in ("fruit/lemon", "cup"))
    assert lemons[0] - lemons[2] > cups[0] - cups[2] + 30  # yellow beside gray
    red = [Image.new("RGB", (40, 32), (220, 20, 20)) for _ in range(3)]
    larger = classifier.extend("tomato", red)
    larger.save(tmp_path / "larger")
    tomatoes = Classifier.load(tmp_path / "larger").sample("tomato", 8, seed=0).mean((0, 2, 3))
    assert tomatoes[0] - tomatoes[1] > cups[0] - cups[1] + 30
    assert np.array_equal(larger.sample("cup", 2, seed=1), classifier.sample("cup", 2, seed=1))


def test_generated_images_are_tried_and_what_came_of_it_is_said(shop, tmp_path, capsys):
    words = ["--model", "gaussian", "--size", 16, "--label-check-folds", 0]
    assert likely(capsys, "train", shop, "--out", tmp_path / "first", *words)[0] == 0
    augmented = [*words, "--augment-with", f"{tmp_path / 'first'}:5"]
    code, _, err = likely(capsys, "train", shop, "--out", tmp_path / "second", *augmented)
    assert code == 0, err
    document = json.loads((tmp_path / "second/model.json").read_text())
    assert document["record"]["synthetic_augmentation"]["n_generated"] == 15
    assert likely(capsys, "generate", tmp_path / "first", "--dataset", tmp_path / "made", "-n", 3)[0] == 0
    assert len(list((tmp_path / "made/fruit/plum").iterdir())) == 3
