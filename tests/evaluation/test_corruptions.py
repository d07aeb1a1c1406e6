"""Corruptions: eight kinds in five strengths, seeded by image."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from likely.data.image_dataset import ArrayDataset, ImageDataset
from likely.data.loading import load_dataset
from likely.evaluation.corruptions import CORRUPTIONS, GRAY, STRENGTHS, corrupted

KINDS = tuple(CORRUPTIONS)
SHAPES = ((1, 8, 8), (3, 8, 8), (1, 28, 28), (3, 24, 40), (3, 41, 17))


def scenes(shape: tuple[int, int, int], n: int = 6) -> NDArray[np.uint8]:
    """Smooth gradients with a disc on each, somewhere, of another shade: (n, C, H, W)."""
    rng = np.random.default_rng(0)
    C, H, W = shape
    y, x = np.mgrid[0:H, 0:W] / np.array([H, W])[:, None, None]
    slope, start, disc = rng.uniform(-1, 1, (n, C, 2)), rng.uniform(60, 190, (n, C)), rng.uniform(0, 255, (n, C))
    middle, radius = rng.uniform(0.3, 0.7, (n, 2)), rng.uniform(0.15, 0.3, n)
    ground = start[..., None, None] + 60 * (slope[..., :1, None] * (x - 0.5) + slope[..., 1:, None] * (y - 0.5))
    inside = np.hypot(x - middle[:, :1, None], y - middle[:, 1:, None]) < radius[:, None, None]
    return np.where(inside[:, None], disc[..., None, None], ground).round().clip(0, 255).astype(np.uint8)


def collection(pixels: NDArray[np.uint8]) -> ImageDataset:
    return ArrayDataset(pixels, lambda i: f"image {i}")


def everything(images: ImageDataset) -> NDArray[np.uint8]:
    return images.batch(np.arange(len(images))).numpy()


def damage(pixels: NDArray[np.uint8], damaged: NDArray[np.uint8]) -> float:
    return float(((damaged.astype(float) - pixels) ** 2).mean())


def apply(kind: str, pixels: NDArray[np.uint8], strength: int, seed: int = 0) -> NDArray[np.uint8]:
    return CORRUPTIONS[kind](pixels, strength, np.random.default_rng(seed))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", SHAPES)
def test_corruption_preserves_shape_and_input(kind: str, shape: tuple[int, int, int]) -> None:
    pixels = scenes(shape)
    before = pixels.copy()
    pixels.flags.writeable = False
    for strength in STRENGTHS:
        damaged = apply(kind, pixels, strength)
        assert (damaged.shape, damaged.dtype) == (pixels.shape, np.uint8)
    assert not np.array_equal(damaged, pixels)
    np.testing.assert_array_equal(pixels, before)


@pytest.mark.parametrize("kind", KINDS)
def test_flat_images_do_not_overflow(kind: str) -> None:
    for value in (0, 255):
        flat = np.full((2, 3, 16, 16), value, np.uint8)
        damaged = apply(kind, flat, 5).astype(float)
        assert abs(damaged.mean() - value) < 255 * 0.7  # what wraps around would be at the other end
        if kind not in ("noise", "brightness", "occlusion"):
            assert damaged.min() >= value - 2
            assert damaged.max() <= value + 2


@pytest.mark.parametrize("kind", KINDS)
def test_gray_images_stay_gray(kind: str) -> None:
    gray = scenes((1, 24, 24))
    if kind != "noise":  # which colors have each their own
        damaged = apply(kind, gray.repeat(3, axis=1), 4).astype(int)
        assert np.ptp(damaged, axis=1).max() <= 1
        assert np.abs(damaged[:, :1] - apply(kind, gray, 4)).mean() < 5  # JPEG's tables differ a little
    assert apply(kind, gray, 4).shape == gray.shape


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", SHAPES)
def test_error_increases_with_strength(kind: str, shape: tuple[int, int, int]) -> None:
    pixels = scenes(shape, n=24)
    growing = [0, *(damage(pixels, apply(kind, pixels, strength)) for strength in STRENGTHS)]
    assert (np.diff(growing) > 0).all(), growing


@pytest.mark.parametrize("kind", KINDS)
def test_error_increases_with_strength_on_digits(kind: str) -> None:
    found = load_dataset("digits", splits=("test",)).test
    assert found is not None
    images = found.images.subset(np.arange(60))
    pixels = everything(images)
    growing = [0, *(damage(pixels, everything(corrupted(images, kind, s, seed=1))) for s in STRENGTHS)]
    assert (np.diff(growing) > 0).all(), growing


@pytest.mark.parametrize("kind", KINDS)
def test_same_seed_gives_same_images(kind: str) -> None:
    images = collection(scenes((3, 16, 16)))
    first = everything(corrupted(images, kind, 3, seed=4))
    np.testing.assert_array_equal(everything(corrupted(images, kind, 3, seed=4)), first)
    other = everything(corrupted(images, kind, 3, seed=5))
    assert np.array_equal(other, first) == (kind in ("blur", "contrast", "jpeg"))  # these leave nothing to chance


@pytest.mark.parametrize("kind", KINDS)
def test_corruption_depends_on_seed_and_index_only(kind: str) -> None:
    images = collection(scenes((3, 16, 16)))
    damaged = corrupted(images, kind, 4, seed=0)
    together = everything(damaged)
    np.testing.assert_array_equal(damaged.batch([4, 1, 4]).numpy(), together[[4, 1, 4]])
    np.testing.assert_array_equal(everything(damaged.subset([5, 2]).subset([1])), together[[2]])
    fewer = corrupted(images.subset(np.arange(3)), kind, 4, seed=0)
    np.testing.assert_array_equal(everything(fewer), together[:3])


@pytest.mark.parametrize("kind", ["noise", "occlusion", "shift"])
def test_images_are_corrupted_independently(kind: str) -> None:
    same = scenes((1, 16, 16), n=1).repeat(4, axis=0)
    damaged = everything(corrupted(collection(same), kind, 3, seed=0))
    assert len(np.unique(damaged, axis=0)) == 4


def test_corrupted_images_form_a_dataset() -> None:
    images = collection(scenes((3, 12, 10)))
    damaged = corrupted(images, "blur", 2, seed=0)
    assert (len(damaged), damaged.shape, damaged.name(3)) == (6, (3, 12, 10), "image 3 (blur 2)")
    batch = damaged.batch(np.zeros(0, np.int64))
    assert (batch.shape, batch.dtype) == ((0, 3, 12, 10), torch.uint8)


def test_invalid_corruptions_are_rejected() -> None:
    images = collection(scenes((1, 8, 8)))
    with pytest.raises(ValueError, match="did you mean 'blur'"):
        corrupted(images, "bluur", 1, seed=0)
    for strength in (0, 6):
        with pytest.raises(ValueError, match="from 1 to 5"):
            corrupted(images, "blur", strength, seed=0)
        with pytest.raises(ValueError, match="from 1 to 5"):
            apply("blur", everything(images), strength)
    with pytest.raises(ValueError, match="vectors of 7 numbers"):
        corrupted(ArrayDataset(np.zeros((3, 7)), str), "blur", 1, seed=0)


# --- what each kind is ------------------------------------------------------------------------------------------------


def test_noise_has_its_nominal_deviation() -> None:
    flat = np.full((1, 1, 200, 200), 128, np.uint8)
    error = apply("noise", flat, 2).astype(float) - 128
    n, expected = error.size, 255 * CORRUPTIONS["noise"].amounts[1]
    assert abs(error.mean()) < 4 * expected / n**0.5
    assert abs(error.std() / expected - 1) < 4 / (2 * n) ** 0.5


def test_brightness_has_both_signs_and_contrast_preserves_the_mean() -> None:
    pixels = scenes((3, 16, 16), n=40)
    change = apply("brightness", pixels, 3).mean((1, 2, 3)) - pixels.mean((1, 2, 3))
    assert 8 <= (change > 0).sum() <= 32  # fair with probability 0.9999
    assert (np.abs(change) > 5).all()
    faded = apply("contrast", pixels, 5)
    np.testing.assert_allclose(faded.mean((1, 2, 3)), pixels.mean((1, 2, 3)), atol=0.5)
    assert (faded.std((1, 2, 3)) < 0.25 * pixels.std((1, 2, 3))).all()


@pytest.mark.parametrize("strength", STRENGTHS)
def test_occlusion_covers_its_nominal_area(strength: int) -> None:
    pixels = np.zeros((5, 1, 40, 60), np.uint8)
    hidden = apply("occlusion", pixels, strength) == GRAY
    fraction = CORRUPTIONS["occlusion"].amounts[strength - 1]
    np.testing.assert_allclose(hidden.mean((1, 2, 3)), fraction**2, rtol=0.2)
    if strength < 5:
        assert (hidden & (apply("occlusion", pixels, strength + 1) == GRAY)).sum() > 0.9 * hidden.sum()


def test_shift_has_its_nominal_length_and_rotation_preserves_the_center() -> None:
    pixels = np.zeros((8, 1, 40, 40), np.uint8)
    pixels[:, :, 17:23, 17:23] = 255
    y, x = np.mgrid[0:40, 0:40] - 19.5
    moved = apply("shift", pixels, 3)[:, 0] / 255
    distance = np.hypot((moved * x).sum((1, 2)), (moved * y).sum((1, 2))) / moved.sum((1, 2))
    np.testing.assert_allclose(distance, 0.12 * 40, rtol=0.05)
    turned = apply("rotation", pixels, 5)[:, 0] / 255
    np.testing.assert_allclose([(turned * x).sum(), (turned * y).sum()], 0, atol=1)
    np.testing.assert_allclose(turned.sum((1, 2)), 36, rtol=0.05)


@pytest.mark.parametrize("shape", [(1, 40, 40), (1, 40, 80)])
def test_rotation_has_its_nominal_angle_at_any_aspect_ratio(shape: tuple[int, int, int]) -> None:
    _, H, W = shape
    y, x = np.mgrid[0:H, 0:W] - (np.array([H, W])[:, None, None] - 1) / 2
    bar = np.where((np.abs(y) < 2) & (np.abs(x) < 14), 255, 0).astype(np.uint8)[None, None]
    turned = apply("rotation", bar, 4)[0, 0].astype(float)
    angle = 0.5 * np.arctan2(2 * (turned * x * y).sum(), (turned * (x**2 - y**2)).sum())
    assert abs(np.degrees(angle)) == pytest.approx(CORRUPTIONS["rotation"].amounts[3], abs=0.5)


@pytest.mark.parametrize("kind", ["shift", "rotation"])
def test_uncovered_pixels_have_the_border_color(kind: str) -> None:
    pixels = np.full((4, 3, 20, 20), 70, np.uint8)
    pixels[:, 0] = 10
    np.testing.assert_allclose(apply(kind, pixels, 5), pixels, atol=1)
