"""Changed images: exact where pixels move, bounded where they mix, and each option leaves the others' draws alone."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from likely.training.augment import N_UNIFORMS, augment
from likely.training.options import AugmentOptions

OFF = {"shift": 0.0, "flip": False, "rotate": 0.0, "scale": 0.0, "crop": 0.0, "erase": 0.0, "color": 0.0}
# What each of an image's uniform numbers decides.
PLACES = ["rows", "columns", "flip"]
PLACES += ["angle", "size", "crop", "crop_x", "crop_y"]
PLACES += ["brightness", "contrast", "saturation"]
PLACES += ["area", "aspect", "erased_y", "erased_x"]


def options(**on):
    return AugmentOptions(**OFF | on)


def images(shape=(1, 6, 8), n=5, seed=0):
    return torch.randint(0, 256, (n, *shape), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


def uniforms(n=5, seed=0):
    return torch.rand(n, N_UNIFORMS, generator=torch.Generator().manual_seed(seed))


def at(n=5, **places):
    """Uniform numbers that change nothing but at the named places."""
    u = torch.full((n, N_UNIFORMS), 0.5)
    for name, value in ({"crop": 0.0} | places).items():
        u[:, PLACES.index(name)] = value
    return u


any_options = st.builds(
    AugmentOptions,
    shift=st.floats(0, 0.5),
    flip=st.booleans(),
    rotate=st.sampled_from([0.0, 30.0, 180.0]),
    scale=st.sampled_from([0.0, 0.5, 0.99]),
    crop=st.sampled_from([0.0, 0.5, 0.99]),
    color=st.sampled_from([0.0, 0.5, 0.99]),
    erase=st.sampled_from([0.0, 0.5, 0.99]),
)
shapes = st.tuples(st.sampled_from([1, 3]), st.integers(1, 9), st.integers(1, 9))


@given(any_options, shapes, st.integers(0, 100))
def test_augmented_images_have_the_same_shape_and_dtype(chosen, shape, seed):
    x = images(shape)
    changed = augment(x, uniforms(seed=seed), chosen)
    assert changed.shape == x.shape
    assert changed.dtype == torch.uint8


@given(any_options, shapes, st.integers(0, 100))
def test_augmentation_does_not_depend_on_the_batch(chosen, shape, seed):
    x, u = images(shape), uniforms(seed=seed)
    together = augment(x, u, chosen)
    alone = torch.cat([augment(x[i : i + 1], u[i : i + 1], chosen) for i in range(len(x))])
    assert torch.equal(together, alone)


@given(any_options)
def test_augmentation_does_not_change_its_input(chosen):
    x = images()
    augment(x, uniforms(), chosen)
    assert torch.equal(x, images())


@given(st.integers(0, 100))
def test_augmentation_with_all_options_off_is_the_identity(seed):
    assert torch.equal(augment(images(), uniforms(seed=seed), options()), images())


# --- shift and flip -------------------------------------------------------------------------------------------------


@given(st.integers(0, 100), st.floats(0, 0.5), st.booleans())
def test_shift_and_flip_add_no_values(seed, shift, flip):
    x = images()
    moved = augment(x, uniforms(seed=seed), options(shift=shift, flip=flip))
    for before, after in zip(x, moved, strict=True):
        assert torch.isin(after, before).all()


def test_shift_is_by_whole_pixels_and_repeats_the_border():
    x = torch.arange(8, dtype=torch.uint8).expand(2, 1, 8, 8)
    moved = augment(x, at(2, columns=torch.tensor([0.0, 0.999])), options(shift=0.25))
    assert moved[0, 0, 0].tolist() == [0, 0, 0, 1, 2, 3, 4, 5]
    assert moved[1, 0, 0].tolist() == [2, 3, 4, 5, 6, 7, 7, 7]
    rows = augment(x.mT, at(2, rows=torch.tensor([0.0, 0.999])), options(shift=0.25))
    assert torch.equal(rows, moved.mT)


def test_shifts_are_uniform():
    x = torch.arange(8, dtype=torch.uint8).expand(500, 1, 8, 8)
    u = at(500, columns=(torch.arange(500) + 0.5) / 500)
    middle = augment(x, u, options(shift=0.25))[:, 0, 0, 4]
    assert middle.unique(return_counts=True)[1].tolist() == [100] * 5


def test_largest_uniform_number_stays_within_the_maximum_shift():
    x = torch.arange(200, dtype=torch.uint8).expand(1, 1, 200, 200)
    for side in range(1, 200):
        moved = augment(x[..., :side], at(1, columns=1 - 2**-24), options(shift=0.5))
        assert moved[0, 0, 0, 0] == round(0.5 * side)


def test_half_of_the_images_are_flipped():
    flipped = augment(images(n=2), at(2, flip=torch.tensor([0.499, 0.5])), options(flip=True))
    assert torch.equal(flipped[0], images(n=2)[0].flip(2))
    assert torch.equal(flipped[1], images(n=2)[1])


# --- rotate, scale, crop --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(1, 6, 8), (3, 7, 5), (1, 1, 1)])
@pytest.mark.parametrize("on", [{"rotate": 90}, {"scale": 0.5}, {"crop": 0.5}, {"color": 0.5}])
def test_neutral_random_numbers_change_nothing(on, shape):
    x = images(shape)
    assert (augment(x, at(), options(**on)).int() - x.int()).abs().max() <= 1


@pytest.mark.parametrize(("u", "n_quarters"), [(0.0, 1), (1.0, -1)])
def test_rotation_by_ninety_degrees(u, n_quarters):
    x = images((3, 6, 6))
    turned = augment(x, at(angle=u), options(rotate=90))
    expected = torch.rot90(x, -n_quarters, (2, 3))
    assert (turned.int() - expected.int()).abs().max() <= 1


def test_rotation_of_a_rectangular_image_by_180_degrees():
    x = images((1, 6, 9))
    turned = augment(x, at(angle=0.0), options(rotate=180))
    assert (turned.int() - x.flip(2, 3).int()).abs().max() <= 1


@given(st.floats(0, 1))
def test_rotation_preserves_circles_in_rectangular_images(u):
    rows, columns = torch.meshgrid(torch.arange(31) - 15.0, torch.arange(61) - 30.0, indexing="ij")
    blob = (255 * (-(rows**2 + columns**2) / 50).exp()).to(torch.uint8)[None, None]
    turned = augment(blob, at(1, angle=u), options(rotate=180))
    assert (turned.int() - blob.int()).abs().max() <= 6


@pytest.mark.parametrize(("u", "factor"), [(1.0, 1.5), (0.0, 0.5)])
def test_scale_changes_the_size_of_objects(u, factor):
    square = torch.zeros(1, 1, 40, 40, dtype=torch.uint8)
    square[..., 12:28, 12:28] = 255
    area = (augment(square, at(1, size=u), options(scale=0.5)) > 127).sum().item()
    assert area == pytest.approx((16 * factor) ** 2, rel=0.15)


@pytest.mark.parametrize("fraction", [0.2, 0.75])
def test_crop_keeps_its_fraction_of_the_area(fraction):
    x = torch.arange(64, dtype=torch.uint8).expand(1, 1, 64, 64)
    cropped = (1 - fraction) ** 0.5 * 64
    for place in (0.0, 0.5, 1.0):
        seen = augment(x, at(1, crop=1.0, crop_x=place), options(crop=fraction))
        first, last = seen[0, 0, 0, [0, -1]].tolist()
        assert last - first == pytest.approx(cropped, abs=2)
        assert first == pytest.approx(place * (64 - cropped), abs=2)


@given(st.integers(0, 50), st.sampled_from([1, 3]))
def test_interpolated_pixels_stay_within_the_range(seed, n_channels):
    x = images((n_channels, 6, 8)) // 2 + 60
    warped = augment(x, uniforms(seed=seed), options(rotate=180, scale=0.9, crop=0.9))
    for before, after in zip(x, warped, strict=True):
        assert before.min() <= after.min()
        assert after.max() <= before.max()


# --- color ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_channels", [1, 3])
@pytest.mark.parametrize(("u", "factor"), [(0.0, 0.5), (1.0, 1.5)])
def test_brightness_multiplies_pixels(n_channels, u, factor):
    x = images((n_channels, 6, 8))
    changed = augment(x, at(brightness=u), options(color=0.5))
    assert (changed.float() - (x * factor).clamp(max=255)).abs().max() <= 1


@pytest.mark.parametrize("n_channels", [1, 3])
def test_contrast_preserves_the_mean(n_channels):
    x = images((n_channels, 6, 8)).float()
    mean = x.mean((1, 2, 3), keepdim=True)
    changed = augment(x.to(torch.uint8), at(contrast=0.0), options(color=0.5))
    assert (changed.float() - (mean + 0.5 * (x - mean))).abs().max() <= 1


def test_saturation_preserves_gray():
    x = images((3, 6, 8)).float()
    gray = x.mean(1, keepdim=True)
    changed = augment(x.to(torch.uint8), at(saturation=0.0), options(color=0.5))
    assert (changed.float() - (gray + 0.5 * (x - gray))).abs().max() <= 1
    assert torch.equal(augment(images(), at(saturation=0.0), options(color=0.5)), images())


@given(st.integers(0, 100), st.sampled_from([1, 3]))
def test_color_changes_stay_within_their_bounds(seed, n_channels):
    x = images((n_channels, 6, 8))
    changed = augment(x, uniforms(seed=seed), options(color=0.1)).float()
    mean = x.float().mean((1, 2, 3), keepdim=True)
    saturated = x + 0.1 * (x - x.float().mean(1, keepdim=True)).abs()
    largest = ((mean + 1.1 * (saturated - mean).abs()) * 1.1).clamp(max=255)
    assert (changed <= largest + 1).all()


# --- together -------------------------------------------------------------------------------------------------------


@given(st.integers(0, 100))
def test_options_use_separate_random_numbers(seed):
    """All options at once do what each does alone, one after the other."""
    x, u = images((3, 6, 8)), uniforms(seed=seed)
    on = {"shift": 0.3, "flip": True, "color": 0.4}
    flipped = augment(x, u, options(flip=True))
    shifted = augment(flipped, u, options(shift=0.3))
    assert torch.equal(augment(x, u, options(shift=0.3, flip=True)), shifted)
    assert torch.equal(augment(x, u, options(**on)), augment(shifted, u, options(color=0.4)))
    warped = augment(shifted, u, options(rotate=30, scale=0.2, crop=0.2))
    assert torch.equal(augment(x, u, options(shift=0.3, flip=True, rotate=30, scale=0.2, crop=0.2)), warped)


def test_images_use_their_own_random_numbers():
    x = images(n=1).expand(20, -1, -1, -1)
    changed = augment(x, uniforms(20), options(rotate=90, color=0.5))
    assert len(changed.unique(dim=0)) == 20


@given(st.floats(0.05, 0.9), st.integers(0, 100))
def test_erased_rectangle_has_the_mean_color(erase, seed):
    x = images((3, 12, 10), n=4, seed=seed)
    erased = augment(x, uniforms(4, seed), options(erase=erase))
    for before, after in zip(x.float(), erased.float(), strict=True):
        hidden = (before != after).any(0)
        rows, columns = hidden.any(1).nonzero(), hidden.any(0).nonzero()
        if not len(rows):
            continue
        top, bottom, left, right = int(rows.min()), int(rows.max()) + 1, int(columns.min()), int(columns.max()) + 1
        inside = torch.zeros_like(hidden)
        inside[top:bottom, left:right] = True
        assert (bottom - top - 1) * (right - left - 1) <= erase * 120
        mean = before[:, ~inside].mean(1)
        # A border pixel that had the mean color before does not count as hidden: then a little more was left.
        assert (after[:, inside] - mean[:, None]).abs().max() <= 3
