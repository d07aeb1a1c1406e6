"""likely generate: sheets, files and walks, and sentences where a request makes no sense."""

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from likely import Classifier
from likely.cli import main


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Model folders of three families, each with the classes bag, boot and sandal."""
    root = tmp_path_factory.mktemp("models")
    digits = load_digits(n_class=3)
    images = (digits.images * 255 / 16).astype(np.uint8)
    labels = np.array(["bag", "boot", "sandal"])[digits.target]
    for family, options in (
        ("vae", {"width": 4, "latent_dims": 4}),
        ("gaussian", {}),
        ("softmax", {"width": 4}),
    ):
        training = {"epochs": 1, "batch_size": 64}
        Classifier(family, options=options, training=training).fit(images, labels).save(root / family)
    return root


@pytest.fixture
def generate(folder, tmp_path, capsys, monkeypatch):
    """`likely generate FAMILY …` in an empty folder: the exit code and what is said."""
    monkeypatch.chdir(tmp_path)

    def called(family, *words):
        try:
            main(["generate", str(folder / family), *map(str, words), "--threads", "1"])
        except SystemExit as stop:
            return stop.code or 0, capsys.readouterr().err
        raise AssertionError("the program did not end")

    return called


def size(path):
    with Image.open(path) as picture:
        return picture.size


def names(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*.png"))


def test_all_classes_are_rows_of_one_picture(generate, tmp_path):
    code, err = generate("vae", "-n", 4, "--out", "all.png")
    assert (code, err) == (0, "4 images of each of 3 classes: all.png\n")
    width, height = size("all.png")
    assert width > 4 * 96
    assert height > 3 * 96
    with Image.open("all.png") as picture:
        assert picture.mode == "LA"


def test_one_class_is_a_grid(generate):
    code, err = generate("vae", "--class", "boot", "-n", 16, "--out", "boots.png")
    assert (code, err) == (0, "16 images of boot: boots.png\n")
    width, height = size("boots.png")
    assert width > 8 * 96
    assert height > 2 * 96


@pytest.mark.parametrize("name", ["all.jpg", "all.gif", "all.bmp", "all.webp", "all.tiff", "ALL.PNG"])
def test_every_kind_of_picture_is_written(generate, name):
    assert generate("vae", "-n", 1, "--out", name)[0] == 0
    with Image.open(name) as picture:
        clear = picture.convert("RGBA").getpixel((0, 0))
    assert clear[3] == 0 or min(clear) > 250


def test_files_are_numbered_in_a_folder_for_each_class(generate, tmp_path):
    assert generate("vae", "--class", "boot", "--class", "bag", "-n", 2, "--out", "some")[0] == 0
    assert names(tmp_path / "some") == ["bag/0000.png", "bag/0001.png", "boot/0000.png", "boot/0001.png"]
    assert size("some/boot/0000.png") == (8, 8)


def test_truncated_to_nothing_all_images_of_a_class_are_one(generate):
    assert generate("vae", "--class", "boot", "-n", 3, "--truncation", 0, "--out", "boots")[0] == 0
    first, *others = (np.asarray(Image.open(f"boots/boot/{i:04d}.png")) for i in range(3))
    assert all((first == other).all() for other in others)


def test_a_walk_is_a_strip_or_a_film(generate, tmp_path):
    code, err = generate("vae", "--from", "bag", "--to", "boot", "--to", "bag", "-n", 2, "--out", "walk.png")
    assert (code, err) == (0, "2 walks bag → boot → bag: walk.png\n")
    width, height = size("walk.png")
    assert width > 10 * 96
    assert height > 4 * 96
    walk = ("--from", "bag", "--to", "boot", "--to", "bag", "-n", 2, "--steps", 3)
    assert generate("vae", *walk, "--out", "film")[0] == 0
    assert names(tmp_path / "film") == [f"{i:04d}/{j:04d}.png" for i in range(2) for j in range(5)]


def test_a_walk_starts_with_the_image_that_the_class_would_show(generate):
    assert generate("vae", "--class", "boot", "-n", 1, "--seed", 7, "--out", "images")[0] == 0
    assert generate("vae", "--from", "boot", "-n", 1, "--seed", 7, "--out", "walk")[0] == 0
    image, first = (np.asarray(Image.open(path)).astype(int) for path in ("images/boot/0000.png", "walk/0000/0000.png"))
    assert abs(image - first).max() <= 1


@pytest.mark.parametrize(
    ("family", "words", "said"),
    [
        ("vae", ("--to", "boot"), "--from NAME"),
        ("vae", ("--steps", 4), "--from NAME"),
        ("vae", ("--from", "boot", "--class", "bag"), "one of them was expected"),
        ("vae", ("--from", "boots"), "did you mean 'boot'?"),
        ("vae", ("--from", "bag", "--to", "boots"), "did you mean 'boot'?"),
        ("vae", ("--class", "bag", "--class", "boots"), "did you mean 'boot'?"),
        ("vae", ("--from", "boot", "--steps", 1), "--steps"),
        ("vae", ("--truncation", "nan"), "--truncation nan"),
        ("vae", ("--truncation", -1), "--truncation"),
        ("gaussian", ("--from", "boot"), "vae"),
        ("gaussian", ("--truncation", 0.5), "families with one: vae"),
        ("softmax", (), "families that can: gaussian, vae"),
        ("softmax", ("--from", "boot"), "families that can: gaussian, vae"),
    ],
)
def test_what_makes_no_sense_is_answered_with_a_sentence(generate, tmp_path, family, words, said):
    code, err = generate(family, *words, "--out", "out.png")
    assert code == 2
    assert said in err
    assert not (tmp_path / "out.png").exists()


def test_nothing_is_written_over_unasked(generate):
    assert generate("vae", "-n", 1, "--out", "all.png")[0] == 0
    code, err = generate("vae", "--from", "boot", "--out", "all.png")
    assert code == 2
    assert "--overwrite" in err
    assert generate("vae", "--from", "boot", "-n", 1, "--out", "all.png", "--overwrite")[0] == 0
