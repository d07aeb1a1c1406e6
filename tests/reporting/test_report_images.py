from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from PIL import Image

from likely.reporting.html.blocks import ReportImage
from likely.reporting.html.images import image_pair, image_row, report_image


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def decoded(uri: str) -> np.ndarray:
    """(H, W) or (H, W, C), as the file has it."""
    head, body = uri.split(",")
    assert head == "data:image/png;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(body))))


@pytest.mark.parametrize("channels", [1, 3])
def test_pixels_survive(channels: int) -> None:
    image = noise(channels, 9, 7)
    shown = report_image(image, "noise", 84)
    assert np.array_equal(decoded(shown.source).reshape(9, 7, channels), image.transpose(1, 2, 0))


def test_tiny_images_are_shown_with_whole_pixels() -> None:
    shown = report_image(noise(1, 8, 8), "eight", 84)
    assert (shown.width, shown.height, shown.tiny) == (80, 80, True)


def test_photographs_are_shown_at_the_size_asked_and_stored_little_larger() -> None:
    shown = report_image(noise(3, 128, 64), "tall", 84)
    assert (shown.width, shown.height, shown.tiny) == (42, 84, False)
    assert decoded(shown.source).shape == (84, 42, 3)


def test_a_strip_has_its_images_with_clear_gaps_between() -> None:
    images = noise(3, 1, 24, 24)
    pixels = decoded(image_row(images, "three", 56).source)
    assert pixels.shape == (24, 3 * 24 + 2 * 2, 2)
    assert np.array_equal(pixels[:, 26:50, 0], images[1, 0])
    assert (pixels[:, 24:26, 1] == 0).all()
    assert (pixels[:, :24, 1] == 255).all()


def test_a_pair_stands_one_above_the_other() -> None:
    above, below = noise(2, 3, 24, 24)
    shown: ReportImage = image_pair(above, below, "both", 72)
    pixels = decoded(shown.source)
    assert np.array_equal(pixels[:24, :, :3], above.transpose(1, 2, 0))
    assert np.array_equal(pixels[-24:, :, :3], below.transpose(1, 2, 0))
    assert (shown.width, shown.height) == (72, 150)
