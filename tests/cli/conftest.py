"""Fixtures of the command-line tests: the program in this process, small models, and a few images."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from program import Result, run
from sklearn.datasets import load_digits

FAMILIES = {
    "vae": ["--width", 8, "--latent-dims", 4, "--epochs", 20, "--masked-every", 1],
    "gaussian": [],
    "softmax": ["--width", 4, "--epochs", 2],
}
CLASSES = ("bag", "boot", "sandal", "coat")


@pytest.fixture
def likely(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Run `likely …` in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return run


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes of 60 digits each in `known`, and a fourth in `new`."""
    root, digits = tmp_path_factory.mktemp("photos"), load_digits()
    for c, name in enumerate(CLASSES):
        folder = root / ("new" if name == "coat" else f"known/{name}")
        folder.mkdir(parents=True)
        for i, image in enumerate(digits.images[digits.target == c][:60]):
            Image.fromarray((image * 15.9).astype(np.uint8)).save(folder / f"{i:02d}.png")
    return root


@pytest.fixture(scope="session")
def few(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten images of each known class."""
    root = tmp_path_factory.mktemp("few")
    for path in (photos / "known").glob("*/0?.png"):
        (root / path.parent.name).mkdir(exist_ok=True)
        shutil.copy(path, root / path.parent.name)
    return root


@pytest.fixture(scope="session")
def models(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder of each family, trained on the known classes."""
    root = tmp_path_factory.mktemp("models")
    for family, options in FAMILIES.items():
        words: Sequence[object] = ["--out", root / family, "--model", family, "--label-check-folds", 0, "--threads", 1]
        assert run("train", photos / "known", *words, *options).code == 0
    return root


@pytest.fixture
def left_half(tmp_path: Path) -> Path:
    """A mask image whose left half is white."""
    Image.fromarray(np.repeat([[255, 0]], 4, axis=1).repeat(8, axis=0).astype(np.uint8)).save(tmp_path / "left.png")
    return tmp_path / "left.png"
