from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from PIL import Image
from report_contents import HEADER

from likely.reporting.html.content import MostAtypical, Reconstructions, ReportContent, Samples
from likely.reporting.html.page import Gallery, ReportImage
from likely.reporting.html.sections.images import diagnostic_sections, sample_sections


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def shown(content: ReportContent) -> ReportImage:
    """Return the first image of the only section on images."""
    (section,) = [*sample_sections(content), *diagnostic_sections(content)]
    (block,) = section.blocks
    return block.images[0] if isinstance(block, Gallery) else block.rows[0][1][0]


def single(image: np.ndarray) -> ReportImage:
    atypical = MostAtypical(image[None], np.array([0.1]), np.array([0]), np.array([0]))
    return shown(ReportContent(HEADER, ("a",), most_atypical=atypical))


def decoded(uri: str) -> np.ndarray:
    """(H, W) or (H, W, C), as the file has it."""
    head, body = uri.split(",")
    assert head == "data:image/png;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(body))))


@pytest.mark.parametrize("channels", [1, 3])
def test_pixels_are_stored_losslessly(channels: int) -> None:
    image = noise(channels, 9, 7)
    found = single(image)
    assert np.array_equal(decoded(found.source).reshape(9, 7, channels), image.transpose(1, 2, 0))


def test_tiny_images_are_enlarged_by_an_integer() -> None:
    found = single(noise(1, 8, 8))
    assert (found.width, found.height, found.tiny) == (80, 80, True)


def test_large_images_are_thumbnails_that_open_the_whole_image() -> None:
    found = single(noise(3, 160, 80))
    assert (found.width, found.height, found.tiny) == (56, 112, False)
    thumbnail, whole = (
        Image.open(io.BytesIO(base64.b64decode(uri.removeprefix("data:image/jpeg;base64,"))))
        for uri in (found.source, found.enlarged)
    )
    assert thumbnail.size == whole.size == (80, 160)
    assert len(single(noise(3, 900, 300)).enlarged) < 50_000


def test_rows_have_transparent_gaps() -> None:
    images = noise(3, 1, 24, 24)
    content = ReportContent(HEADER, ("a",), samples=Samples(images, np.zeros(3, int)))
    pixels = decoded(shown(content).source)
    assert pixels.shape == (24, 3 * 24 + 2 * 2, 2)
    assert np.array_equal(pixels[:, 26:50, 0], images[1, 0])
    assert (pixels[:, 24:26, 1] == 0).all()
    assert (pixels[:, :24, 1] == 255).all()


def test_reconstructions_are_below_their_originals() -> None:
    above, below = noise(2, 3, 24, 24)
    pair = Reconstructions(above[None], below[None], np.array([0]))
    found = shown(ReportContent(HEADER, ("a",), reconstructions=pair))
    pixels = decoded(found.source)
    assert np.array_equal(pixels[:24, :, :3], above.transpose(1, 2, 0))
    assert np.array_equal(pixels[-24:, :, :3], below.transpose(1, 2, 0))
    assert (found.width, found.height) == (72, 150)
