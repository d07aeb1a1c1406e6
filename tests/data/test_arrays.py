"""Array-like inputs: images and vectors of every type are read alike, and invalid ones are rejected."""

from __future__ import annotations

import re
import tracemalloc
from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image

from likely.data import arrays
from likely.data.image_dataset import ArrayDataset, ImageBatch, LazyImages
from likely.data.preprocessing import ImageFormat, ImageOptions, read_image
from likely.exceptions import ImageError, InvalidValueError

GRAY = ImageFormat(channels=1, height=6, width=5)
COLOR = ImageFormat(channels=3, height=6, width=5)


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def pixels(X, format=GRAY) -> np.ndarray:
    images = arrays.images(X, format)
    return images.batch(np.arange(len(images))).numpy()


# ---- one image, and none


def test_single_image_source_is_one_input(tmp_path) -> None:
    image, buffer = Image.fromarray(noise(6, 5)), BytesIO()
    image.save(tmp_path / "a.png")
    image.save(buffer, "PNG")
    for single in (tmp_path / "a.png", str(tmp_path / "a.png"), buffer.getvalue(), image):
        assert np.array_equal(pixels(single), noise(6, 5)[None, None])
        assert arrays.load_images(single, GRAY).errors == (None,)


def test_missing_path_has_an_error_in_the_batch() -> None:
    batch = arrays.load_images("/no/such/a.png", GRAY)
    (problem,) = batch.errors
    assert len(batch.images) == 0
    assert problem is not None
    assert problem.source == "/no/such/a.png"


@pytest.mark.parametrize(
    "none", [[], np.zeros((0, 6, 5), np.uint8), np.array([], object)], ids=["list", "array", "paths"]
)
def test_empty_input_is_rejected_for_training_and_gives_an_empty_batch(none) -> None:
    assert not arrays.are_images(none) or len(none.shape) == 3
    with pytest.raises(InvalidValueError):
        arrays.images(none, GRAY)
    with pytest.raises(InvalidValueError):
        arrays.labeled_dataset(none, np.zeros(0, np.int64), ["a"], ImageOptions())
    batch = arrays.load_images(none, GRAY)
    assert (len(batch.images), batch.names, batch.errors) == (0, (), ())


@pytest.mark.parametrize(
    "shape",
    [
        (6, 5),
        (28, 30, 3),
        (4, 6, 5, 2),
        (4, 2, 6, 5),
        (2, 4, 6, 5, 3),
        (4, 0, 5),
        (5,),
    ],
)
def test_array_of_invalid_shape_is_rejected(shape) -> None:
    for take in (arrays.images, arrays.load_images):
        with pytest.raises(InvalidValueError, match=re.escape(str(shape))):
            take(np.zeros(shape), GRAY)


def test_non_image_input_has_an_error() -> None:
    (problem,) = arrays.load_images([3.5], GRAY).errors
    assert problem is not None
    assert problem.source == "image[0]"


# ---- vectors


@pytest.mark.parametrize(
    "images",
    [np.zeros((3, 6, 5)), ["a.png"], "a.png", Image.new("L", (5, 6)), [np.zeros((6, 5))], torch.zeros(3, 1, 6, 5)],
)
def test_images_are_rejected_by_a_model_of_vectors(images) -> None:
    with pytest.raises(InvalidValueError):
        arrays.load_images(images, None, n_features=30)


@pytest.mark.parametrize("X", [np.zeros((2, 4)), [[1.0, 2.0]], np.zeros(3), [1.0, 2.0, 3.0], np.zeros((0, 2))])
def test_vectors_of_another_width_are_rejected(X) -> None:
    with pytest.raises(InvalidValueError, match=r"\(N, 3\)"):
        arrays.load_images(X, None, n_features=3)


def test_strings_are_rejected_as_vectors() -> None:
    with pytest.raises(InvalidValueError):
        arrays.load_images([["a", "b"], ["c", "d"]], None, n_features=2)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_vectors_keep_their_precision(dtype) -> None:
    X = (np.random.default_rng(0).normal(size=(4, 3)) + 1e8).astype(dtype)
    for array in (X, torch.from_numpy(X)):
        images = arrays.images(array, None)
        assert isinstance(images, ArrayDataset)
        assert np.array_equal(images.batch([2, 0]).numpy(), X[[2, 0]])
        assert images.batch([0]).numpy().dtype == dtype


def test_lists_of_numbers_are_vectors() -> None:
    batch = arrays.load_images([[1, 2, 3], [4, 5, np.inf]], None, n_features=3)
    assert batch.pixels.tolist() == [[1, 2, 3]]
    assert [error is None for error in batch.errors] == [True, False]


# ---- pixels, each way they are held


def test_array_layouts_give_equal_pixels() -> None:
    colors = noise(70, 6, 5, 3)
    expected = colors.transpose(0, 3, 1, 2)
    held = [colors, colors / 255, (colors / 255).astype(np.float32), colors.astype(np.uint16) * 257, expected]
    held += [torch.from_numpy(expected.copy()), list(colors), list(torch.from_numpy(expected / 255))]
    for X in held:
        assert np.array_equal(pixels(X, COLOR), expected)
    assert np.array_equal(pixels(noise(4, 6, 5) > 99), np.where(noise(4, 6, 5) > 99, 255, 0)[:, None])


def test_float_array_is_quantized_without_decoding(monkeypatch) -> None:
    monkeypatch.setattr("likely.data.loading.read_image", None)  # would be called for every image
    X = np.random.default_rng(0).random((200, 6, 5))
    assert np.array_equal(pixels(X), np.stack([read_image(x, GRAY) for x in X]))


def test_floats_out_of_range_have_an_error_per_image() -> None:
    X = np.full((4, 6, 5), 0.5)
    X[2, 1, 1] = 1.5
    X[3, 0, 0] = np.nan
    batch = arrays.load_images(X, GRAY)
    assert batch.pixels.shape == (2, 1, 6, 5)
    assert [batch.images.name(i) for i in range(2)] == ["image[0]", "image[1]"]
    assert [error is None for error in batch.errors] == [True, True, False, False]
    with pytest.raises(ImageError, match=r"image\[2\].*1\.5"):
        arrays.images(X, GRAY)


def test_batch_of_decoded_pixels_is_not_copied() -> None:
    pixels = noise(4, 3, 6, 5)
    batch = ImageBatch.from_pixels(pixels, ["a", "b", "c", "d"])
    assert batch.pixels is pixels
    assert batch.images.to_array() is pixels
    assert [batch.images.name(i) for i in range(len(batch))] == ["a", "b", "c", "d"]
    assert batch.errors == (None,) * 4


def test_batch_names_the_readable_images(tmp_path) -> None:
    Image.fromarray(noise(6, 5)).save(tmp_path / "b.png")
    paths = [tmp_path / "a.png", tmp_path / "b.png"]
    batch = arrays.load_images(paths, GRAY)
    assert batch.names == tuple(map(str, paths))
    assert batch.errors[0] is not None
    assert batch.errors[0].source == str(paths[0])
    assert np.array_equal(batch.pixels, noise(6, 5)[None, None])
    assert batch.images.name(0) == str(paths[1])


# ---- no more work than there is


def test_only_training_images_are_hashed(monkeypatch) -> None:
    hashed = []
    monkeypatch.setattr(arrays, "fingerprint", lambda image: hashed.append(image) or bytes(8))
    arrays.images(noise(9, 6, 5), GRAY)
    arrays.load_images(list(noise(9, 6, 5)), GRAY)
    arrays.load_images(np.zeros((9, 2)), None)
    assert not hashed
    arrays.labeled_dataset(noise(9, 6, 5), np.zeros(9, np.int64), ["a"], ImageOptions())
    assert len(hashed) == 9


def test_list_too_large_for_memory_is_decoded_once(monkeypatch) -> None:
    monkeypatch.setattr(arrays, "MAX_MEMORY", 100)
    decoded = []
    monkeypatch.setattr(
        "likely.data.image_dataset.read_image", lambda *a, **kw: decoded.append(1) or read_image(*a, **kw)
    )
    monkeypatch.setattr("likely.data.loading.read_image", lambda *a, **kw: decoded.append(1) or read_image(*a, **kw))
    X = [Image.fromarray(image) for image in noise(9, 6, 5)]
    images = arrays.images(X, GRAY)
    assert isinstance(images, LazyImages)
    assert np.array_equal(images.batch(np.arange(9)).numpy()[:, 0], noise(9, 6, 5))
    assert len(decoded) == 9
    broken = arrays.images([*X, b"broken"], GRAY)
    with pytest.raises(ImageError, match=r"image\[9\]"):
        broken.batch([9])


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (0, 2, 3, 1)])
def test_batch_is_copied_exactly_once(order) -> None:
    held = np.ascontiguousarray(noise(20, 3, 60, 50).transpose(order)).transpose(np.argsort(order))
    wanted = np.arange(19, -1, -1)
    tracemalloc.start()
    batch = ArrayDataset(held, str).batch(wanted)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1.5 * held.nbytes
    assert np.array_equal(batch.numpy(), held[wanted])
    assert not np.shares_memory(batch.numpy(), held)
