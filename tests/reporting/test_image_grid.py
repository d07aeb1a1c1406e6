"""Image grids: every image unaltered beside its name, on a transparent background."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from likely.reporting.images.image_grid import EDGE, MAX_WIDTH, grid, grid_by_class, labeled_rows, opaque
from likely.reporting.images.image_layout import gap


def colored(first: int, n: int, side: int = 8, channels: int = 3) -> np.ndarray:
    """Images of one color each, no two alike, none of the letters' gray: (n, C, H, W)."""
    number = np.arange(first, first + n)
    colors = np.stack([np.full(n, 200), number % 256, number // 256], axis=1)[:, :channels, None, None]
    return np.broadcast_to(colors.astype(np.uint8), (n, channels, side, side))


def seen(picture: Image.Image) -> list[int]:
    """The numbers of the colored images on a sheet, from left to right in each line, line by line."""
    red, green, blue, opacity = np.asarray(picture.convert("RGBA")).astype(np.int64).reshape(-1, 4).T
    numbers, firsts = np.unique((green + 256 * blue)[(opacity == 255) & (red == 200)], return_index=True)
    return numbers[firsts.argsort()].tolist()


@given(st.integers(1, 4), st.integers(1, 5), st.integers(4, 130), st.sampled_from([1, 3]))
def test_grid_holds_images_pixel_by_pixel(classes: int, n: int, side: int, channels: int) -> None:
    images = np.random.default_rng(0).integers(0, 256, (classes, n, channels, side, side), dtype=np.uint8)
    pixels = np.asarray(grid_by_class({"": images}, [""] * classes).convert("RGBA"))
    scale = max(1, round(EDGE / side))
    edge = scale * side
    space, middle = gap(edge), slice(edge // 20, -(edge // 20) or None)  # corners are round
    for k in range(classes):
        for i in range(n):
            top, left = (2 * space + at * (edge + space) for at in (k, i))
            shown = pixels[top : top + edge, left : left + edge][middle, middle]
            expected = images[k, i].repeat(scale, 1).repeat(scale, 2).transpose(1, 2, 0)[middle, middle]
            assert np.array_equal(shown[..., :3], np.broadcast_to(expected, (*expected.shape[:2], 3)))
            assert (shown[..., 3] == 255).all()


def test_names_are_at_the_left_of_unchanged_images() -> None:
    images = colored(0, 6).reshape(2, 3, 3, 8, 8)
    bare, named = grid_by_class({"": images}, ["", ""]), grid_by_class({"": images}, ["boot", "bag"])
    margin = 2 * gap(EDGE)
    without = bare.crop((margin, 0, *bare.size))
    assert named.crop((named.width - without.width, 0, *named.size)) == without
    names = np.asarray(named)[:, margin : named.width - without.width - margin]
    assert (names[..., 3] > 0).any()


def test_background_is_transparent_and_opaque_makes_it_white() -> None:
    picture = grid_by_class({"": colored(0, 2)[:, None]}, ["boot", "bag"])
    assert picture.mode == "RGBA"
    assert picture.getpixel((0, 0))[3] == 0
    assert opaque(picture).mode == "RGB"
    assert opaque(picture).getpixel((0, 0)) == (255, 255, 255)


def test_gray_images_make_a_gray_grid() -> None:
    picture = grid_by_class({"": colored(0, 2, channels=1)[:, None]}, ["boot", "bag"])
    assert picture.mode == "LA"
    assert opaque(picture).mode == "L"


def test_hundred_classes_form_columns_in_order() -> None:
    images = colored(0, 400).reshape(100, 4, 3, 8, 8)
    picture = grid_by_class({"": images}, [f"a class with the number {k}" for k in range(100)])
    assert picture.width <= MAX_WIDTH + 100
    assert picture.height < 40 * 80
    assert sorted(seen(picture)) == list(range(400))
    assert seen(picture)[:5] == [0, 1, 2, 3, 100]  # beside the first class stands the 26th


def test_width_of_names_is_limited() -> None:
    images = colored(0, 2)[:, None]
    long, longer = (grid_by_class({"": images}, ["bag", n * "name of a class "]).width for n in (4, 40))
    assert long == longer


def test_panels_are_side_by_side_under_titles() -> None:
    panels = {"vae": colored(0, 6).reshape(2, 3, 3, 8, 8), "vaegan": colored(6, 6, 32).reshape(2, 3, 3, 32, 32)}
    picture = grid_by_class(panels, ["boot", "bag"])
    assert seen(picture) == [0, 1, 2, 6, 7, 8, 3, 4, 5, 9, 10, 11]
    assert picture.height > grid_by_class({"": panels["vae"]}, ["boot", "bag"]).height


def test_panels_may_differ_in_color_size_and_number() -> None:
    panels = {"gray": colored(0, 2, 28, channels=1)[:, None], "none": [colored(0, 0), colored(0, 5, 200)]}
    assert grid_by_class(panels, ["boot", "bag"]).mode == "RGBA"


def test_number_of_rows_must_match_the_names() -> None:
    with pytest.raises(ValueError, match="'vae' has 3 rows"):
        grid_by_class({"vae": colored(0, 3)[:, None]}, ["boot", "bag"])
    with pytest.raises(ValueError, match="no images"):
        grid_by_class({}, [])


@pytest.mark.parametrize("n", [1, 2, 9, 11, 16, 23, 100])
def test_grid_holds_every_image_once(n: int) -> None:
    picture = grid(colored(0, n), "boot")
    assert seen(picture) == list(range(n))
    assert n == 1 or picture.width + 60 > picture.height


def test_labeled_row_is_between_its_names() -> None:
    picture = labeled_rows(colored(0, 8).reshape(2, 4, 3, 8, 8), [("sandal", "boot"), ("boot", "bag")])
    pixels = np.asarray(picture)
    inked = np.flatnonzero((pixels[..., 3] > 0).any(axis=0))
    images = np.flatnonzero(((pixels[..., 3] == 255) & (pixels[..., 0] == 200)).any(axis=0))
    assert inked[0] < images[0] < images[-1] < inked[-1]
    assert seen(picture) == list(range(8))
