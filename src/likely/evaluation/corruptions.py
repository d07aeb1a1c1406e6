"""Corruptions: what sensors, lenses, light, hands and files do to an image, eight kinds in five strengths each.

Noise, blur, brightness, contrast and JPEG are kinds of ImageNet-C (Hendrycks & Dietterich 2019, Benchmarking Neural Network
Robustness to Common Corruptions and Perturbations, section 4). The strengths are our own, so that figures are not those of
ImageNet-C: 1 is barely seen, 5 is hard and leaves most images recognizable to a person. They go by the image's side and by the
8-bit range, so that small and large images fare alike.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from io import BytesIO
from typing import Any, TypeAlias, final

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageFilter
from torch import Tensor
from torch.nn import functional as F

from likely.data.image_dataset import ImageDataset
from likely.data.preprocessing import to_pil
from likely.data.suggestions import did_you_mean
from likely.exceptions import InvalidValueError

Pixels: TypeAlias = NDArray[np.uint8]
Rng: TypeAlias = np.random.Generator
Matrix: TypeAlias = tuple[tuple[float, float, float], tuple[float, float, float]]

STRENGTHS = (1, 2, 3, 4, 5)
GRAY = 128  # what an occlusion shows: the middle, which is seldom an image's own background


@dataclass(frozen=True)
class Corruption:
    """One kind of damage: images (N, C, H, W) uint8, gray or color, and a strength from 1 to 5 -> damaged copies.

    `damage` takes one image (C, H, W) and one of the `amounts`. It draws the same numbers whatever the amount: a higher
    strength is more of the same damage.
    """

    apply: Callable[[Pixels, float, Rng], Pixels]
    amounts: tuple[float, float, float, float, float]

    def __call__(self, images: Pixels, strength: int, rng: Rng) -> Pixels:
        amount = self.amount(strength)
        damaged = np.empty(images.shape, np.uint8)
        for place, image in enumerate(images):
            damaged[place] = self.apply(image, amount, rng)
        return damaged

    def amount(self, strength: int) -> float:
        """What a strength stands for; a ValueError if there is no such strength."""
        if strength not in STRENGTHS:
            raise InvalidValueError(f"strength {strength!r} is not offered; a whole number from 1 to 5 was expected")
        return self.amounts[STRENGTHS.index(strength)]


def corrupted(images: ImageDataset, name: str, strength: int, seed: int) -> ImageDataset:
    """The images of a collection as one corruption leaves them, damaged whenever a batch asks for them.

    An image's damage depends on the seed and its place in the collection alone. A ValueError if the corruption or the strength
    is not known, or if these are vectors.
    """
    if name not in CORRUPTIONS:
        expected = f"one of {', '.join(CORRUPTIONS)} was expected"
        raise InvalidValueError(f"{name!r} is no corruption; {expected}{did_you_mean(name, tuple(CORRUPTIONS))}")
    CORRUPTIONS[name].amount(strength)  # refuses now what the first batch would refuse
    if len(images.shape) != 3:
        raise InvalidValueError(f"{name} is done to images; these are vectors of {images.shape[0]} numbers")
    return _Corrupted(images, name, strength, seed)


@final
class _Corrupted(ImageDataset):
    """Another collection's images, damaged."""

    def __init__(self, images: ImageDataset, name: str, strength: int, seed: int) -> None:
        self._images = images
        self._kind = name
        self._strength = strength
        self._seed = seed

    @property
    def shape(self) -> tuple[int, ...]:
        return self._images.shape

    def __len__(self) -> int:
        return len(self._images)

    def batch(self, indices: ArrayLike) -> Tensor:
        wanted = np.asarray(indices, np.int64)
        pixels = self._images.batch(wanted).numpy()
        damaged = np.empty_like(pixels)
        for place, i in enumerate(wanted.tolist()):
            rng = np.random.default_rng((self._seed, i))
            damaged[place] = CORRUPTIONS[self._kind](pixels[place, None], self._strength, rng)[0]
        return torch.from_numpy(damaged)

    def name(self, i: int) -> str:
        return f"{self._images.name(i)} ({self._kind} {self._strength})"


# --- one image (C, H, W), an amount, and where there is chance, random numbers ----------------------------------------


def noise(image: Pixels, deviation: float, rng: Rng) -> Pixels:
    """x + N(0, (255 deviation)²), for every value anew: a sensor in the dark."""
    return _eight_bit(image + np.float32(255 * deviation) * rng.standard_normal(image.shape, np.float32))


def blur(image: Pixels, spread: float, rng: Rng) -> Pixels:
    """The mean under a Gaussian of deviation spread · √side about each pixel, the shorter side: a lens out of focus.

    A share of the side itself would do nothing to an image of 8 pixels, and leave nothing of the finer detail of one of 224.
    """
    deviation = spread * math.sqrt(min(image.shape[1:]))
    return _channels_first(to_pil(image).filter(ImageFilter.GaussianBlur(deviation)), image)


def brightness(image: Pixels, fraction: float, rng: Rng) -> Pixels:
    """(1 − share) x + share · 255, or + share · 0, at even chances: stray light, or too little of it."""
    return _toward(image, 255 if rng.random() < 0.5 else 0, fraction)


def contrast(image: Pixels, fraction: float, rng: Rng) -> Pixels:
    """(1 − share) x + share · mean(x): fog."""
    return _toward(image, image.mean(), fraction)


def occlusion(image: Pixels, fraction: float, rng: Rng) -> Pixels:
    """Gray where a window of this share of the height and of the width lies, anywhere inside: something stands in front."""
    _, H, W = image.shape
    h, w = math.ceil(fraction * H), math.ceil(fraction * W)
    top, left = (round(u * space) for u, space in zip(rng.random(2), (H - h, W - w), strict=True))
    hidden = image.copy()
    hidden[:, top : top + h, left : left + w] = GRAY
    return hidden


def shift(image: Pixels, fraction: float, rng: Rng) -> Pixels:
    """x moved in a random direction by this share of its sides, on its border's color: a camera that points elsewhere."""
    angle = 2 * math.pi * rng.random()
    return _warped(image, ((1, 0, 2 * fraction * math.cos(angle)), (0, 1, 2 * fraction * math.sin(angle))))


def rotation(image: Pixels, degrees: float, rng: Rng) -> Pixels:
    """x turned about its middle, left or right at even chances, on its border's color: a camera held askew."""
    angle = math.radians(degrees if rng.random() < 0.5 else -degrees)
    aspect = image.shape[2] / image.shape[1]
    cos, sin = math.cos(angle), math.sin(angle)
    return _warped(image, ((cos, -sin / aspect, 0), (sin * aspect, cos, 0)))


def jpeg(image: Pixels, quality: float, rng: Rng) -> Pixels:
    """x as a JPEG file of this quality, 1 to 95, gives it back: a cheap camera, or a picture sent on too often."""
    file = BytesIO()
    to_pil(image).save(file, "JPEG", quality=round(quality))
    return _channels_first(Image.open(file), image)


CORRUPTIONS: Mapping[str, Corruption] = {
    "noise": Corruption(noise, (0.03, 0.07, 0.12, 0.2, 0.3)),
    "blur": Corruption(blur, (0.06, 0.11, 0.17, 0.24, 0.33)),
    "brightness": Corruption(brightness, (0.08, 0.2, 0.35, 0.5, 0.65)),
    "contrast": Corruption(contrast, (0.15, 0.35, 0.55, 0.7, 0.8)),
    "occlusion": Corruption(occlusion, (0.1, 0.22, 0.32, 0.42, 0.55)),
    "shift": Corruption(shift, (0.03, 0.07, 0.12, 0.18, 0.25)),
    "rotation": Corruption(rotation, (4, 9, 16, 26, 40)),
    "jpeg": Corruption(jpeg, (60, 30, 16, 10, 6)),
}


# --- steps of the above -----------------------------------------------------------------------------------------------


def _toward(image: Pixels, value: float, share: float) -> Pixels:
    return _eight_bit((1 - share) * image + share * value)


def _warped(image: Pixels, theta: Matrix) -> Pixels:
    """The image where an affine map of the output's coordinates, both from -1 to 1, finds it; beyond, its border's color."""
    ground = _border_color(image)
    x = torch.from_numpy(image - ground)[None]
    grid = F.affine_grid(torch.tensor([theta]), list(x.shape), align_corners=False)
    return _eight_bit(F.grid_sample(x, grid, mode="bicubic", align_corners=False)[0].numpy() + ground)


def _border_color(image: Pixels) -> NDArray[np.float32]:
    """The median of the outermost pixels, channel by channel: (C, 1, 1)."""
    edges = np.concatenate([image[:, 0], image[:, -1], image[:, :, 0], image[:, :, -1]], axis=1)
    color: NDArray[np.float32] = np.median(edges, axis=1).astype(np.float32)[:, None, None]
    return color


def _eight_bit(values: NDArray[Any]) -> Pixels:
    stored: Pixels = np.rint(values).clip(0, 255).astype(np.uint8)
    return stored


def _channels_first(picture: Image.Image, like: Pixels) -> Pixels:
    C, H, W = like.shape
    return np.asarray(picture).reshape(H, W, C).transpose(2, 0, 1)
