"""likely generate: pictures, files, walks and invalid requests."""

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from likely import Classifier


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
def generate(likely, folder):
    """Run `likely generate FAMILY …` in an empty folder."""
    return lambda family, *words: likely("generate", folder / family, *words, "--threads", 1)


def size(path):
    with Image.open(path) as picture:
        return picture.size


def names(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*.png"))


def test_all_classes_are_rows_of_one_picture(generate, tmp_path):
    code, _, err = generate("vae", "-n", 4, "--out", "all.png")
    assert code == 0, err
    width, height = size("all.png")
    assert width > 4 * 96
    assert height > 3 * 96
    with Image.open("all.png") as picture:
        assert picture.mode == "LA"


def test_one_class_is_a_grid(generate):
    code, _, err = generate("vae", "--class", "boot", "-n", 16, "--out", "boots.png")
    assert code == 0, err
    width, height = size("boots.png")
    assert width > 8 * 96
    assert height > 2 * 96


@pytest.mark.parametrize("name", ["all.jpg", "all.gif", "all.bmp", "all.webp", "all.tiff", "ALL.PNG"])
def test_every_image_format_is_written(generate, name):
    assert generate("vae", "-n", 1, "--out", name)[0] == 0
    with Image.open(name) as picture:
        clear = picture.convert("RGBA").getpixel((0, 0))
    assert clear[3] == 0 or min(clear) > 250


def test_files_are_numbered_in_a_folder_for_each_class(generate, tmp_path):
    assert generate("vae", "--class", "boot", "--class", "bag", "-n", 2, "--out", "some")[0] == 0
    assert names(tmp_path / "some") == ["bag/0000.png", "bag/0001.png", "boot/0000.png", "boot/0001.png"]
    assert size("some/boot/0000.png") == (8, 8)


def test_zero_truncation_makes_all_images_of_a_class_equal(generate):
    assert generate("vae", "--class", "boot", "-n", 3, "--truncation", 0, "--out", "boots")[0] == 0
    first, *others = (np.asarray(Image.open(f"boots/boot/{i:04d}.png")) for i in range(3))
    assert all((first == other).all() for other in others)


def test_walk_is_one_picture_or_a_folder_of_frames(generate, tmp_path):
    code, _, err = generate("vae", "--from", "bag", "--to", "boot", "--to", "bag", "-n", 2, "--out", "walk.png")
    assert code == 0, err
    width, height = size("walk.png")
    assert width > 10 * 96
    assert height > 4 * 96
    walk = ("--from", "bag", "--to", "boot", "--to", "bag", "-n", 2, "--steps", 3)
    assert generate("vae", *walk, "--out", "film")[0] == 0
    assert names(tmp_path / "film") == [f"{i:04d}/{j:04d}.png" for i in range(2) for j in range(5)]


def test_walk_starts_at_a_sample_of_the_class(generate):
    assert generate("vae", "--class", "boot", "-n", 1, "--seed", 7, "--out", "images")[0] == 0
    assert generate("vae", "--from", "boot", "-n", 1, "--seed", 7, "--out", "walk")[0] == 0
    image, first = (np.asarray(Image.open(path)).astype(int) for path in ("images/boot/0000.png", "walk/0000/0000.png"))
    assert abs(image - first).max() <= 1


@pytest.mark.parametrize(
    ("family", "words", "named"),
    [
        ("vae", ("--to", "boot"), "--from"),
        ("vae", ("--steps", 4), "--from"),
        ("vae", ("--from", "boot", "--class", "bag"), "--class"),
        ("vae", ("--from", "boots"), "'boot'"),
        ("vae", ("--from", "bag", "--to", "boots"), "'boot'"),
        ("vae", ("--class", "bag", "--class", "boots"), "'boot'"),
        ("vae", ("--from", "boot", "--steps", 1), "--steps"),
        ("vae", ("--truncation", "nan"), "--truncation"),
        ("vae", ("--truncation", -1), "--truncation"),
        ("gaussian", ("--from", "boot"), "vae"),
        ("gaussian", ("--truncation", 0.5), "vae"),
        ("softmax", (), "gaussian, vae"),
        ("softmax", ("--from", "boot"), "gaussian, vae"),
    ],
)
def test_invalid_request_is_rejected(generate, tmp_path, family, words, named):
    code, _, err = generate(family, *words, "--out", "out.png")
    assert code == 2
    assert named in err
    assert not (tmp_path / "out.png").exists()


def test_out_is_overwritten_only_on_request(generate):
    assert generate("vae", "-n", 1, "--out", "all.png")[0] == 0
    code, _, err = generate("vae", "--from", "boot", "--out", "all.png")
    assert code == 2
    assert "--overwrite" in err
    assert generate("vae", "--from", "boot", "-n", 1, "--out", "all.png", "--overwrite")[0] == 0
