"""likely explain, likely extend and likely classify --mask: what only a generative classifier can do."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from likely import Classifier
from likely.cli import main
from likely.evaluation import attacks

FAMILIES = {
    "vae": ["--width", 8, "--latent-dims", 4, "--epochs", 20, "--masked-every", 1],
    "gaussian": [],
    "softmax": ["--width", 4, "--epochs", 2],
}


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Three classes of 60 digits each in `known`, a fourth in `new`."""
    root, digits = tmp_path_factory.mktemp("photos"), load_digits()
    for c, name in enumerate(("bag", "boot", "sandal", "coat")):
        folder = root / ("new" if name == "coat" else f"known/{name}")
        folder.mkdir(parents=True)
        for i, image in enumerate(digits.images[digits.target == c][:60]):
            Image.fromarray((image * 15.9).astype(np.uint8)).save(folder / f"{i:02d}.png")
    return root


@pytest.fixture(scope="module")
def few(photos, tmp_path_factory):
    """Ten images of each known class."""
    root = tmp_path_factory.mktemp("few")
    for path in (photos / "known").glob("*/0?.png"):
        (root / path.parent.name).mkdir(exist_ok=True)
        shutil.copy(path, root / path.parent.name)
    return root


@pytest.fixture(scope="module")
def models(photos, tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    for family, options in FAMILIES.items():
        words = [
            "train",
            photos / "known",
            "--out",
            root / family,
            "--model",
            family,
            "--label-check-folds",
            0,
            "--threads",
            1,
        ]
        with pytest.raises(SystemExit) as stop:
            main(list(map(str, [*words, *options])))
        assert not stop.value.code
    return root


@pytest.fixture
def likely(tmp_path, capsys, monkeypatch):
    """The program in an empty folder: exit code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)

    def called(*words):
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            main([*map(str, words), "--threads", "1"])
        return stop.value.code or 0, *capsys.readouterr()

    return called


@pytest.mark.parametrize("family", FAMILIES)
def test_an_explanation_is_a_picture_and_a_few_words(likely, models, photos, family):
    code, _, err = likely("explain", models / family, photos / "known/boot/03.png", "--out", "why.png")
    assert code == 0, err
    assert err.endswith("picture: why.png\n")
    assert ("no latent space" in err) == (family != "vae")
    with Image.open("why.png") as picture:
        assert picture.width > 7 * 96
        assert picture.height > (4 if family == "vae" else 3) * 96


def test_the_other_class_can_be_named_and_must_be_another(likely, models, photos):
    image = photos / "known/boot/03.png"
    answer = Classifier.load(models / "vae").classify([image])[0].label
    other = next(name for name in ("bag", "boot", "sandal") if name != answer)
    code, _, err = likely("explain", models / "vae", image, "--against", other, "--out", "why.jpg")
    assert code == 0
    assert f"{other} 0." in err
    code, _, err = likely("explain", models / "vae", image, "--against", answer, "--out", "why2.png")
    assert code == 2
    assert "is the answer itself" in err
    code, _, err = likely("explain", models / "vae", image, "--against", "sandel", "--out", "why2.png")
    assert code == 2
    assert "'sandal'" in err


def test_without_the_training_images_the_rest_is_shown(likely, models, photos, tmp_path):
    copy = shutil.copytree(models / "vae", tmp_path / "copy")
    document = json.loads((copy / "model.json").read_text())
    document["record"]["source"] = document["run"]["data"] = str(tmp_path / "gone")
    (copy / "model.json").write_text(json.dumps(document))
    image = photos / "known/bag/01.png"
    code, _, err = likely("explain", copy, image, "--out", "why.png")
    assert code == 0
    assert "without training images" in err
    assert "--data" in err
    code, _, err = likely("explain", copy, image, "--out", "more.png", "--data", photos / "known")
    assert code == 0
    assert "without" not in err
    with Image.open("why.png") as less, Image.open("more.png") as more:
        assert more.height > less.height


def test_an_image_that_cannot_be_read_is_named(likely, models):
    code, _, err = likely("explain", models / "vae", "gone.png", "--out", "why.png")
    assert code == 2
    assert "gone.png" in err


@pytest.mark.parametrize("family", ["vae", "gaussian"])
def test_a_model_learns_a_class_and_its_folder_is_one_like_any_other(likely, models, photos, family):
    before = (models / family / "model.safetensors").read_bytes()
    code, _, err = likely("extend", models / family, f"coat={photos / 'new'}", "--out", "larger")
    assert code == 0, err
    assert "coat: learned from 60 images" in err
    assert "model larger: 4 classes" in err
    assert (models / family / "model.safetensors").read_bytes() == before
    code, out, _ = likely("classify", "larger", photos / "new", "--format", "jsonl")
    labels = [json.loads(line)["label"] for line in out.splitlines()]
    assert code == 0
    assert labels.count("coat") > 30
    _, out, _ = likely_info(likely)
    assert "coat" in out


def likely_info(likely):
    import contextlib
    import io

    text = io.StringIO()
    with contextlib.redirect_stdout(text), pytest.raises(SystemExit):
        main(["info", "larger"])
    return 0, text.getvalue(), ""


def test_few_images_are_learned_from_and_what_they_cannot_support_is_said(likely, models, photos, tmp_path):
    few = tmp_path / "few"
    few.mkdir()
    for i in range(5):
        shutil.copy(photos / "new" / f"{i:02d}.png", few)
    (few / "broken.png").write_bytes(b"no image")
    code, _, err = likely("extend", models / "vae", f"coat={few}", "--out", "larger")
    assert code == 1
    assert "broken.png" in err
    assert "coat: learned from 5 images" in err
    assert "takes 15 more" in err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["coat"], "NAME=DIR was expected"),
        (["coat=nowhere"], "nowhere does not exist"),
        (["boot=."], "there is a class 'boot' already"),
        (["coat=.", "coat=."], "given twice"),
    ],
)
def test_what_cannot_be_learned_is_said(likely, models, photos, words, said, tmp_path):
    shutil.copy(photos / "new/00.png", tmp_path)
    code, _, err = likely("extend", models / "gaussian", *words, "--out", "larger")
    assert code == 2
    assert said in err
    assert not (tmp_path / "larger").exists()


def test_a_family_that_cannot_learn_a_class_apart_says_so(likely, models, photos):
    code, _, err = likely("extend", models / "softmax", f"coat={photos / 'new'}", "--out", "larger")
    assert code == 2
    assert "train it anew" in err


@pytest.fixture
def left_half(tmp_path):
    """A mask that is white on its left."""
    Image.fromarray(np.repeat([[255, 0]], 4, axis=1).repeat(8, axis=0).astype(np.uint8)).save(tmp_path / "left.png")
    return tmp_path / "left.png"


def answers(likely, *words):
    code, out, err = likely("classify", *words, "--format", "jsonl")
    return code, [json.loads(line) for line in out.splitlines()], err


@pytest.mark.parametrize("family", ["vae", "gaussian"])
def test_half_an_image_is_classified_with_p_values_from_others_behind_the_same_mask(
    likely, models, photos, left_half, family
):
    code, found, err = answers(likely, models / family, photos / "known/boot", "--mask", left_half)
    assert code == 0, err
    assert all(answer["p_value"] is not None for answer in found)
    assert sum(answer["label"] == "boot" for answer in found) > 30
    whole = answers(likely, models / family, photos / "known/boot")[1]
    assert [a["probability"] for a in found] != [a["probability"] for a in whole]


def test_a_mask_that_hides_nothing_changes_nothing(likely, models, photos, tmp_path):
    Image.new("L", (8, 8), 255).save(tmp_path / "all.png")
    asked = (models / "vae", photos / "known/boot")
    assert answers(likely, *asked, "--mask", "all.png")[1] == answers(likely, *asked)[1]


def test_where_everything_is_hidden_the_answer_is_the_prior(likely, models, photos, tmp_path):
    Image.new("L", (8, 8), 0).save(tmp_path / "none.png")
    prior = Classifier.load(models / "vae").predictor_.log_prior.exp().sort(descending=True).values.tolist()
    for answer in answers(likely, models / "vae", photos / "known/boot", "--mask", "none.png")[1]:
        np.testing.assert_allclose([c["probability"] for c in answer["classes"]], prior, atol=1e-6)


def test_transparent_pixels_are_not_looked_at(likely, models, photos, tmp_path):
    picture = Image.open(photos / "known/boot/03.png")
    for name, hidden in (("black", 0), ("white", 255)):
        pixels = np.asarray(picture).copy()
        pixels[:, 4:] = hidden
        alpha = np.where(np.arange(8) < 4, 255, 0).astype(np.uint8)[None].repeat(8, 0)
        Image.fromarray(np.stack([pixels, alpha], 2), "LA").save(tmp_path / f"{name}.png")
    code, found, err = answers(likely, models / "vae", "black.png", "white.png", "--mask", "transparent")
    assert code == 0, err
    black, white = (answer["classes"] for answer in found)
    assert black == white
    assert found[0]["status"] == "uncalibrated"
    assert found[0]["p_value"] is None


def test_an_opaque_image_is_answered_as_ever_whoever_stands_beside_it(likely, models, photos, tmp_path):
    opaque = photos / "known/bag/05.png"
    picture = np.asarray(Image.open(photos / "known/boot/03.png"))
    alpha = np.where(np.arange(8) < 4, 255, 0).astype(np.uint8)[None].repeat(8, 0)
    Image.fromarray(np.stack([picture, alpha], 2), "LA").save(tmp_path / "part.png")
    _, (alone,), _ = answers(likely, models / "vae", opaque)
    _, (_, beside), _ = answers(likely, models / "vae", "part.png", opaque, "--mask", "transparent")
    assert beside == alone


def test_a_part_has_no_bits_of_the_whole(likely, models, photos, left_half):
    _, found, _ = answers(likely, models / "vae", photos / "known/boot/03.png", "--mask", left_half)
    assert found[0]["bits_per_dim"] is None


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--prior", "adapt", "--mask", "transparent"], "whole images"),
        (["--data", "known"], "--mask"),
    ],
)
def test_what_does_not_go_together_is_said(likely, models, photos, words, said):
    code, _, err = likely("classify", models / "vae", photos / "known/boot/03.png", *words)
    assert code == 2
    assert said in err


def test_a_model_saved_from_python_says_what_it_does_not_know(likely, photos, left_half, tmp_path):
    digits = load_digits(n_class=3)
    images = (digits.images * 15.9).astype(np.uint8)
    Classifier("gaussian").fit(images, digits.target).save(tmp_path / "m")
    image = photos / "known/boot/03.png"
    code, _, err = likely("explain", "m", image, "--out", "why.png")
    assert code == 0
    assert "saved from Python" in err
    code, out, err = likely("classify", "m", image, "--mask", left_half, "--format", "jsonl")
    assert code == 0
    assert "saved from Python" in err
    assert json.loads(out)["p_value"] is None
    (tmp_path / "old").mkdir()
    shutil.copytree(tmp_path / "m", tmp_path / "old", dirs_exist_ok=True)
    code, _, err = likely("extend", "m", f"coat={photos / 'new'}", "--out", "old", "--overwrite")
    assert code == 2
    assert "saved from Python" in err
    assert (tmp_path / "old/model.json").exists()


def test_another_model_is_no_twin(likely, models, photos):
    code, _, err = likely("evaluate", models / "vae", photos / "known", "--attack", "--baseline", models / "gaussian")
    assert code == 2
    assert "is no twin" in err


def test_what_learned_more_has_no_twin(likely, models, photos):
    assert likely("extend", models / "gaussian", f"coat={photos / 'new'}", "--out", "larger")[0] == 0
    code, _, err = likely("evaluate", "larger", photos / "known", "--attack", "--baseline", "twin")
    assert code == 2
    assert "learned 'coat' since" in err


def test_a_family_that_needs_the_whole_image_says_who_does_not(likely, models, photos, left_half):
    code, _, err = answers(likely, models / "softmax", photos / "known/boot", "--mask", left_half)
    assert code == 2
    assert "vae" in err


@pytest.mark.parametrize("family", ["vae", "gaussian"])
def test_what_the_classes_have_behind_a_mask_is_drawn(likely, models, photos, left_half, family):
    image = photos / "known/boot/03.png"
    code, _, err = likely("explain", models / family, image, "--mask", left_half, "--out", "behind.png")
    assert code == 0, err
    assert "by 50 % of its pixels" in err
    with Image.open("behind.png") as picture:
        assert picture.height > 2 * 96
    mask = np.arange(8) < 4
    found = Classifier.load(models / family).impute(image, np.broadcast_to(mask, (8, 8)))
    assert found.images.shape == (3, 1, 8, 8)
    for made in found.images:
        assert (made[..., mask] == found.image[..., mask]).all()
    assert not (found.images[0] == found.images[1]).all()


def test_an_explanation_of_a_part_shows_all_classes_or_none(likely, models, photos, left_half):
    image = photos / "known/boot/03.png"
    asked = ("explain", models / "vae", image, "--mask", left_half, "--out", "behind.png")
    code, _, err = likely(*asked, "--against", "bag")
    assert code == 2
    assert "--against" in err
    code, _, err = likely("explain", models / "softmax", *asked[2:])
    assert code == 2
    assert "vae" in err
    code, _, err = likely("explain", models / "vae", image, "--mask", "transparent", "--out", "whole.png")
    assert code == 0
    assert "of its pixels" not in err


def test_a_mask_that_is_no_picture_is_named(likely, models, photos):
    code, _, err = answers(likely, models / "vae", photos / "known/boot", "--mask", "transparant")
    assert code == 2
    assert "transparant" in err
    assert "transparent" in err


def test_damage_and_deceit_are_measured_beside_a_twin_that_is_trained_once(likely, models, few, tmp_path, monkeypatch):
    monkeypatch.setattr(attacks, "N_STEPS", 5)
    asked = (
        "evaluate",
        models / "vae",
        few,
        "--baseline",
        "twin",
        "--corruptions",
        "--attack",
        "--attack-samples",
        2,
    )
    code, out, err = likely(*asked, "--json")
    assert code == 0, err
    found = json.loads(out)
    assert [each["n"] for each in found["corruptions"]] == [found["n"]] * 2
    assert len(found["corruptions"][1]["rows"]) == 40
    assert {name.partition("@")[0] for name in found["attacks"]} == {"vae", "twin"}
    written = (tmp_path / "twin/model.safetensors").read_bytes()
    code, out, err = likely(*asked, "--report", "report.html")
    assert code == 0, err
    assert (tmp_path / "twin/model.safetensors").read_bytes() == written
    assert "gradient" in out
    assert "jpeg" in out
    assert "What does it take to mislead it?" in (tmp_path / "report.html").read_text()


def test_damage_without_a_twin_is_refused(likely, models, photos):
    code, _, err = likely("evaluate", models / "vae", photos / "known", "--corruptions")
    assert code == 2
    assert "--baseline" in err


def test_what_few_calibration_images_can_promise_is_said(likely, models, photos):
    image = photos / "known/boot/03.png"
    assert "p-values" not in likely("classify", models / "vae", image, "--alpha", 0.2)[2]
    assert "pooled over classes" in likely("classify", models / "vae", image, "--alpha", 0.05)[2]
    err = likely("classify", models / "vae", image, "--alpha", 0.001)[2]
    assert "without p-values" in err
    assert "boot 9" in err  # of the thousand that it takes
