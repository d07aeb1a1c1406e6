"""Common image corruptions: eight kinds in five strengths each.

Noise, blur, brightness, contrast and JPEG are kinds of ImageNet-C (Hendrycks & Dietterich 2019, Benchmarking Neural Network
Robustness to Common Corruptions and Perturbations, section 4), with other strengths: 1 is barely visible, 5 is hard but
leaves most images recognizable to a person. Strengths scale with the image size and the 8-bit range.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from io import BytesIO
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageFilter
from torch import Tensor
from torch.nn import functional as F

from likely.data.image_dataset import ImageDataset, TransformedImages
from likely.data.preprocessing import to_pil
from likely.exceptions import InvalidValueError, did_you_mean

Pixels: TypeAlias = NDArray[np.uint8]
Rng: TypeAlias = np.random.Generator
Matrix: TypeAlias = tuple[tuple[float, float, float], tuple[float, float, float]]

STRENGTHS = (1, 2, 3, 4, 5)
GRAY = 128  # of an occlusion: seldom the background of an image


@dataclass(frozen=True)
class _Corruption:
    """One kind of corruption: images (N, C, H, W) uint8, grayscale or color, and a strength from 1 to 5 -> corrupted copies.

    `apply` takes one image (C, H, W) and one of the `amounts`. It uses the same random numbers for every amount, so that a
    higher strength is more of the same corruption.
    """

    apply: Callable[[Pixels, float, Rng], Pixels]
    amounts: tuple[float, float, float, float, float]

    def __call__(self, images: Pixels, strength: int, rng: Rng) -> Pixels:
        amount = self.amount(strength)
        result = np.empty(images.shape, np.uint8)
        for i, image in enumerate(images):
            result[i] = self.apply(image, amount, rng)
        return result

    def amount(self, strength: int) -> float:
        """Return the amount for a strength; raise InvalidValueError if there is no such strength."""
        if strength not in STRENGTHS:
            raise InvalidValueError(f"strength {strength!r}; expected an integer from 1 to 5")
        return self.amounts[STRENGTHS.index(strength)]


def corrupted(images: ImageDataset, name: str, strength: int, seed: int) -> ImageDataset:
    """Return a dataset that corrupts images when a batch is read.

    The corruption of an image depends only on the seed and its index. Raise InvalidValueError for an unknown corruption or
    strength, and for vectors.
    """
    if name not in CORRUPTIONS:
        expected = f"expected one of {', '.join(CORRUPTIONS)}"
        raise InvalidValueError(f"unknown corruption {name!r}; {expected}{did_you_mean(name, tuple(CORRUPTIONS))}")
    CORRUPTIONS[name].amount(strength)  # raises now, not at the first batch
    if len(images.shape) != 3:
        raise InvalidValueError(f"{name} applies to images; these are vectors of {images.shape[0]} numbers")

    def damaged(pixels: Tensor, indices: NDArray[np.int64]) -> Tensor:
        found = pixels.numpy().copy()
        for row, i in enumerate(indices.tolist()):
            found[row] = CORRUPTIONS[name](found[row, None], strength, np.random.default_rng((seed, i)))[0]
        return torch.from_numpy(found)

    return TransformedImages(images, damaged, lambda i: f"{images.name(i)} ({name} {strength})")


# --- one image (C, H, W), an amount, and where there is chance, random numbers ----------------------------------------


def _noise(image: Pixels, deviation: float, rng: Rng) -> Pixels:
    """Gaussian noise: x + N(0, (255 deviation)²), independent for each value."""
    return _eight_bit(image + np.float32(255 * deviation) * rng.standard_normal(image.shape, np.float32))


def _blur(image: Pixels, spread: float, rng: Rng) -> Pixels:
    """Gaussian blur with standard deviation spread · √side, the shorter side.

    A standard deviation proportional to the side would not change images of 8 pixels and would remove all detail from
    images of 224 pixels.
    """
    deviation = spread * math.sqrt(min(image.shape[1:]))
    return _channels_first(to_pil(image).filter(ImageFilter.GaussianBlur(deviation)), image)


def _brightness(image: Pixels, fraction: float, rng: Rng) -> Pixels:
    """Brightness: (1 − fraction) x + fraction · 255 or + 0, with equal probability."""
    return _toward(image, 255 if rng.random() < 0.5 else 0, fraction)


def _contrast(image: Pixels, fraction: float, rng: Rng) -> Pixels:
    """Reduced contrast: (1 − fraction) x + fraction · mean(x)."""
    return _toward(image, image.mean(), fraction)


def _occlusion(image: Pixels, fraction: float, rng: Rng) -> Pixels:
    """A gray rectangle of this fraction of height and width, at a random position."""
    _, H, W = image.shape
    h, w = math.ceil(fraction * H), math.ceil(fraction * W)
    top, left = (round(u * space) for u, space in zip(rng.random(2), (H - h, W - w), strict=True))
    hidden = image.copy()
    hidden[:, top : top + h, left : left + w] = GRAY
    return hidden


def _shift(image: Pixels, fraction: float, rng: Rng) -> Pixels:
    """Translation in a random direction by this fraction of the sides, filled with the border color."""
    angle = 2 * math.pi * rng.random()
    return _warped(image, ((1, 0, 2 * fraction * math.cos(angle)), (0, 1, 2 * fraction * math.sin(angle))))


def _rotation(image: Pixels, degrees: float, rng: Rng) -> Pixels:
    """Rotation about the center, left or right with equal probability, filled with the border color."""
    angle = math.radians(degrees if rng.random() < 0.5 else -degrees)
    aspect = image.shape[2] / image.shape[1]
    cos, sin = math.cos(angle), math.sin(angle)
    return _warped(image, ((cos, -sin / aspect, 0), (sin * aspect, cos, 0)))


def _jpeg(image: Pixels, quality: float, rng: Rng) -> Pixels:
    """JPEG compression with this quality, 1 to 95."""
    file = BytesIO()
    to_pil(image).save(file, "JPEG", quality=round(quality))
    return _channels_first(Image.open(file), image)


CORRUPTIONS: Mapping[str, _Corruption] = {
    "noise": _Corruption(_noise, (0.03, 0.07, 0.12, 0.2, 0.3)),
    "blur": _Corruption(_blur, (0.06, 0.11, 0.17, 0.24, 0.33)),
    "brightness": _Corruption(_brightness, (0.08, 0.2, 0.35, 0.5, 0.65)),
    "contrast": _Corruption(_contrast, (0.15, 0.35, 0.55, 0.7, 0.8)),
    "occlusion": _Corruption(_occlusion, (0.1, 0.22, 0.32, 0.42, 0.55)),
    "shift": _Corruption(_shift, (0.03, 0.07, 0.12, 0.18, 0.25)),
    "rotation": _Corruption(_rotation, (4, 9, 16, 26, 40)),
    "jpeg": _Corruption(_jpeg, (60, 30, 16, 10, 6)),
}


# --- helpers ----------------------------------------------------------------------------------------------------------


def _toward(image: Pixels, value: float, fraction: float) -> Pixels:
    return _eight_bit((1 - fraction) * image + fraction * value)


def _warped(image: Pixels, theta: Matrix) -> Pixels:
    """Apply an affine map of the output coordinates, from -1 to 1, and fill with the border color."""
    ground = _border_color(image)
    x = torch.from_numpy(image - ground)[None]
    grid = F.affine_grid(torch.tensor([theta]), list(x.shape), align_corners=False)
    return _eight_bit(F.grid_sample(x, grid, mode="bicubic", align_corners=False)[0].numpy() + ground)


def _border_color(image: Pixels) -> NDArray[np.float32]:
    """Return the median of the outermost pixels of each channel, (C, 1, 1)."""
    edges = np.concatenate([image[:, 0], image[:, -1], image[:, :, 0], image[:, :, -1]], axis=1)
    color: NDArray[np.float32] = np.median(edges, axis=1).astype(np.float32)[:, None, None]
    return color


def _eight_bit(values: NDArray[Any]) -> Pixels:
    stored: Pixels = np.rint(values).clip(0, 255).astype(np.uint8)
    return stored


def _channels_first(picture: Image.Image, like: Pixels) -> Pixels:
    C, H, W = like.shape
    return np.asarray(picture).reshape(H, W, C).transpose(2, 0, 1)
