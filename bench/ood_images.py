"""Out-of-distribution images: transformed known images, noise, letters, and other data sets."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from likely.data.loading import load_dataset
from likely.data.preprocessing import ImageFormat
from likely.reporting.images.image_layout import FONTS

Pixels = NDArray[np.uint8]  # (N, C, H, W)
MAX_IMAGES = 5000  # of each kind
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
LIKE_DIGITS = "OoQDIliZzSsbGBgq"  # letters that resemble 0 0 0 0 1 1 1 2 2 5 5 6 6 8 9 9


def constant(known: Pixels, rng: np.random.Generator) -> Pixels:
    """Images of one random color each."""
    colors = rng.integers(256, size=(1000, known.shape[1], 1, 1), dtype=np.uint8)
    return np.broadcast_to(colors, (1000, *known.shape[1:])).copy()


def noise(known: Pixels, rng: np.random.Generator) -> Pixels:
    """Uniform noise."""
    return rng.integers(256, size=(1000, *known.shape[1:]), dtype=np.uint8)


def inverted(known: Pixels, rng: np.random.Generator) -> Pixels:
    return 255 - known


def half_shuffled(known: Pixels, rng: np.random.Generator) -> Pixels:
    """Permute the pixels of the right half, with another permutation for each image."""
    made, middle = known.copy(), known.shape[3] // 2
    right = made[:, :, :, middle:]
    for i, half in enumerate(right):
        order = rng.permutation(half[0].size)
        right[i] = half.reshape(len(half), -1)[:, order].reshape(half.shape)
    return made


def upside_down(known: Pixels, rng: np.random.Generator) -> Pixels:
    return known[:, :, ::-1].copy()


def quarter_rotation(known: Pixels, rng: np.random.Generator) -> Pixels:
    return np.rot90(known, axes=(2, 3)).copy()


MADE: Mapping[str, Callable[[Pixels, np.random.Generator], Pixels]] = {
    "constant": constant,
    "noise": noise,
    "inverted": inverted,
    "half shuffled": half_shuffled,
    "upside down": upside_down,
}


def letters(height: int, width: int, but: str = "") -> Pixels:
    """Render letters in every available font, thin and bold, white on black: (N, 1, height, width)."""
    rendered, large = [], 8
    for face in ("", *FONTS):
        for letter in LETTERS:
            if letter in but:
                continue
            for weight in (0, 2):
                try:
                    font = ImageFont.truetype(face, large * height) if face else ImageFont.load_default(large * height)
                except OSError:
                    break
                paper = Image.new("L", (2 * large * width, 2 * large * height), 0)
                ImageDraw.Draw(paper).text(
                    (large * width, large * height), letter, 255, font, anchor="mm", stroke_width=weight
                )
                box = paper.getbbox()
                assert box is not None
                tall = paper.crop(box)
                scale = large * height / tall.height
                tall = tall.resize((max(1, min(large * width, round(tall.width * scale))), large * height))
                whole = Image.new("L", (large * width, large * height), 0)
                whole.paste(tall, ((whole.width - tall.width) // 2, 0))
                rendered.append(np.asarray(whole.resize((width, height), Image.Resampling.BOX))[None])
    return np.stack(rendered)


def of(data: Path, known: Pixels, format: ImageFormat, seed: int) -> dict[str, Pixels]:
    """Return each kind of OOD image for data with the test images `known`; other data sets are looked for next to it."""
    rng = np.random.default_rng(seed)
    found = {name: make(known, rng) for name, make in MADE.items()}
    if data.name == "digits":
        size = format.height, format.width
        return found | {"letters": letters(*size), "letters unlike digits": letters(*size, but=LIKE_DIGITS)}
    if data.name.startswith("fashion"):
        return found | {"MNIST": _other(data.parent / "mnist", format, rng)}
    others = {"Fashion-MNIST": data.parent / "fashion-mnist", "grocery": data.parent / "grocery"}
    return (
        found
        | {name: _other(path, format, rng) for name, path in others.items()}
        | {"quarter turn": quarter_rotation(known, rng)}
    )


def _other(path: Path, format: ImageFormat, rng: np.random.Generator) -> Pixels:
    """Return test images of other data in the format of the model, or training images if there is no test split."""
    for split in ("test", "train"):
        dataset = load_dataset(str(path), format, splits=(split,), fewest_classes=0)
        if dataset.splits:
            break
    images = dataset.splits[split].images
    chosen = rng.permutation(len(images))[:MAX_IMAGES]
    return images.batch(np.sort(chosen)).numpy()
