"""Loading of datasets: splits, formats, streaming, memory, and skipped files."""

from __future__ import annotations

import gzip
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from test_sources import mnist, write_idx

from likely.data.arrays import labeled_dataset
from likely.data.image_dataset import ArrayDataset, LazyImages
from likely.data.loading import load_dataset
from likely.data.preprocessing import ImageFormat, ImageOptions
from likely.exceptions import DataError


@pytest.fixture
def pets(draw, tmp_path: Path) -> Path:
    """Six cats and dogs, 12 x 12 in color, with a broken file among them."""
    for i in range(6):
        draw(f"pets/{'cat' if i % 2 else 'dog'}/{i}.png", seed=i)
    (tmp_path / "pets" / "cat" / "broken.png").write_bytes(b"no")
    return tmp_path / "pets"


def test_unreadable_file_is_skipped_and_named(pets) -> None:
    data = load_dataset(pets)
    assert data.classes == ("cat", "dog")
    assert data.train is not None
    assert data.train.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert data.train.images.name(0) == str(pets / "cat" / "1.png")
    (error,) = data.errors
    assert error.source == str(pets / "cat" / "broken.png")
    assert str(pets / "cat" / "broken.png") in error.message
    assert (data.validation, data.test, data.available) == (None, None, ("train",))


def test_streamed_images_equal_cached_ones(pets) -> None:
    cached, streamed = load_dataset(pets).train, load_dataset(pets, memory=0).train
    assert cached is not None
    assert streamed is not None
    assert torch.equal(cached.images.batch(range(6)), streamed.images.batch(range(6)))
    assert torch.equal(cached.images.batch([4, 1]), streamed.images.batch([4, 1]))
    assert np.array_equal(cached.hashes, streamed.hashes)
    assert streamed.images.batch([]).shape == (0, 3, 12, 12)
    assert [cached.images.name(i) for i in range(6)] == [streamed.images.name(i) for i in range(6)]
    (pets / "cat" / "broken.png").unlink()
    assert isinstance(load_dataset(pets).train.images, ArrayDataset)  # type: ignore[union-attr]
    assert isinstance(load_dataset(pets, memory=0).train.images, LazyImages)  # type: ignore[union-attr]


def test_subset_of_subset_has_the_right_images(pets) -> None:
    split = load_dataset(pets).train
    assert split is not None
    some = split.subset([5, 0, 3]).subset([2, 0])
    assert torch.equal(some.images.batch([0, 1]), split.images.batch([3, 5]))
    assert (some.images.name(0), len(some), some.images.shape) == (split.images.name(3), 2, (3, 12, 12))
    assert some.labels.tolist() == [1, 1]
    assert split.class_counts(3) == (3, 3, 0)


def test_equal_pixels_have_equal_hashes(pets, draw) -> None:
    with Image.open(pets / "dog" / "0.png") as image:
        image.save(pets / "cat" / "zero.bmp")
    hashes = load_dataset(pets).train.hashes  # type: ignore[union-attr]
    assert len(hashes) == 7
    assert len(set(hashes.tolist())) == 6
    other_size = load_dataset(pets, ImageOptions(size=8)).train.hashes  # type: ignore[union-attr]
    assert not set(hashes.tolist()) & set(other_size.tolist())


# ---- formats


def test_format_is_inferred_from_the_data(draw, tmp_path) -> None:
    def format_of(folder: str, *sizes: tuple[int, int], mode: str = "RGB") -> tuple[int, ...]:
        for i, size in enumerate(sizes):
            draw(f"{folder}/{i % 2}/{i}.png", seed=i, size=size, mode=mode)
        format = load_dataset(tmp_path / folder).format
        assert format is not None
        return format.shape

    assert format_of("small", (20, 30), (20, 30)) == (3, 20, 30)
    assert format_of("mixed", (20, 30), (20, 31)) == (3, 64, 64)
    assert format_of("large", (65, 65), (65, 65)) == (3, 64, 64)
    assert format_of("gray", (9, 9), (9, 9), mode="L") == (1, 9, 9)
    for i, mode in enumerate(("L", "1", "LA", "P")):
        draw(f"grays/{i % 2}/{i}.png", seed=i, size=(9, 9), mode="L")
        with Image.open(tmp_path / f"grays/{i % 2}/{i}.png") as image:
            image.convert(mode).convert("RGB" if mode == "P" else mode).save(tmp_path / f"grays/{i % 2}/{i}.png")
    assert load_dataset(tmp_path / "grays").format.shape == (1, 9, 9)  # type: ignore[union-attr]
    draw("grays/0/color.png", size=(9, 9))
    assert load_dataset(tmp_path / "grays").format.shape == (3, 9, 9)  # type: ignore[union-attr]


def test_requested_format_is_used(pets) -> None:
    asked = load_dataset(pets, ImageOptions(size="8x6", resize="crop", color="gray"))
    assert asked.format == ImageFormat(channels=1, height=8, width=6, resize="crop")
    assert asked.train.images.shape == (1, 8, 6)  # type: ignore[union-attr]
    fixed = ImageFormat(channels=3, height=5, width=5, resize="stretch")
    assert load_dataset(pets, fixed).format == fixed


# ---- arrays


@pytest.mark.parametrize("ending", ["", ".gz"])
def test_idx_splits_are_loaded_unchanged(tmp_path, ending) -> None:
    images = mnist(tmp_path, ending=ending)
    for memory in (1 << 20, 0):
        data = load_dataset(tmp_path, memory=memory)
        assert data.format == ImageFormat(channels=1, height=5, width=4)
        assert data.classes == ("0", "1", "2")
        assert np.array_equal(data.train.images.batch(range(6)).numpy(), images[:6, None])  # type: ignore[union-attr]
        assert np.array_equal(data.test.images.batch([2]).numpy(), images[8:, None])  # type: ignore[union-attr]


def test_unrequested_splits_are_not_read(tmp_path) -> None:
    mnist(tmp_path)
    test_images = tmp_path / "t10k-images-idx3-ubyte.gz"
    test_images.write_bytes(test_images.read_bytes()[:-30])
    data = load_dataset(tmp_path, splits=("train", "validation"))
    assert (data.test, data.available) == (None, ("train", "test"))
    with pytest.raises(DataError, match="t10k-images"):
        load_dataset(tmp_path, splits=("test",))


def test_arrays_are_converted_to_the_format(tmp_path) -> None:
    x = np.random.default_rng(0).integers(0, 256, (4, 10, 10, 3), np.uint8)
    variants = {
        "uint8": x,
        "uint16": x.astype(np.uint16) * 257,
        "float": x / 255,
        "alpha": np.insert(x, 3, 255, axis=3),
    }
    for name, variant in variants.items():
        np.savez(tmp_path / f"{name}.npz", x=variant, y=[0, 0, 1, 1])
        batch = load_dataset(tmp_path / f"{name}.npz").train.images.batch(range(4))  # type: ignore[union-attr]
        assert np.array_equal(batch.numpy(), x.transpose(0, 3, 1, 2)), name
    small = load_dataset(tmp_path / "uint8.npz", ImageOptions(size=4, color="gray"), memory=0)
    assert small.train.images.batch([3]).shape == (1, 1, 4, 4)  # type: ignore[union-attr]
    large = load_dataset(tmp_path / "uint8.npz", memory=0).train  # mapped from disk
    assert np.array_equal(large.images.batch([2, 0]).numpy(), x[[2, 0]].transpose(0, 3, 1, 2))  # type: ignore[union-attr]


def test_vectors_keep_their_precision_and_nonfinite_ones_are_errors(tmp_path) -> None:
    x = np.random.default_rng(0).normal(size=(5, 3))
    x[2, 1] = np.nan
    np.savez(tmp_path / "v.npz", x=x, y=["a", "a", "b", "b", "b"])
    data = load_dataset(tmp_path / "v.npz")
    assert data.format is None
    assert data.train is not None
    assert data.train.images.shape == (3,)
    assert data.train.images.batch([0]).dtype == torch.float64
    assert data.train.images.batch([0]).tolist() == x[:1].tolist()
    assert data.train.labels.tolist() == [0, 0, 1, 1]
    assert [error.source for error in data.errors] == [f"{tmp_path}/v.npz:x[2]"]
    np.savez(tmp_path / "w.npz", x=x[:2], y=["a", "b"])
    images = load_dataset(tmp_path / "w.npz").train.images  # type: ignore[union-attr]
    assert isinstance(images, ArrayDataset)
    assert np.array_equal(images.array, x[:2])


def test_loading_takes_little_more_memory_than_the_images(tmp_path) -> None:
    n = 4000
    write_idx(tmp_path / "train-images-idx3-ubyte", np.zeros((n, 28, 28), np.uint8))
    plain = tmp_path / "train-images-idx3-ubyte"
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(plain.read_bytes(), 1))
    plain.unlink()
    write_idx(tmp_path / "train-labels-idx1-ubyte", (np.arange(n) % 10).astype(np.uint8))
    load_dataset(tmp_path)
    tracemalloc.start()
    data = load_dataset(tmp_path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert isinstance(data.train.images, ArrayDataset)  # type: ignore[union-attr]
    assert peak < 2 * n * 28 * 28


def test_converted_array_is_released(tmp_path) -> None:
    x = np.zeros((1000, 16, 16, 3), np.uint8)
    np.savez_compressed(tmp_path / "a.npz", x=x, y=np.arange(1000) % 2)
    load_dataset(tmp_path / "a.npz")
    tracemalloc.start()
    data = load_dataset(tmp_path / "a.npz")
    now, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(data.train.images) == 1000  # type: ignore[union-attr]
    assert now < 1.5 * x.nbytes


# ---- classes


def test_too_few_classes_are_rejected_unless_allowed(draw, tmp_path) -> None:
    draw("plain/1.png"), draw("one/cat/1.png")
    with pytest.raises(DataError, match="'cat'"):
        load_dataset(tmp_path / "one")
    with pytest.raises(DataError, match="plain"):
        load_dataset(tmp_path / "plain")
    assert load_dataset(tmp_path / "one", fewest_classes=1).classes == ("cat",)
    assert load_dataset(tmp_path / "plain", fewest_classes=0).train.labels.tolist() == [-1]  # type: ignore[union-attr]


def test_split_without_a_readable_image_is_an_error(tmp_path) -> None:
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.png").touch()
    with pytest.raises(DataError, match=r"train.*1\.png"):
        load_dataset(tmp_path)


def test_relabel_maps_labels_to_the_classes_of_a_model(draw, tmp_path) -> None:
    for name in ("cat/1", "dog/1", "dog/2", "cta/1", "unlabeled/1"):
        draw(f"{name}.png", seed=len(name))
    data = load_dataset(tmp_path).relabel(["ant", "dog", "cat"])
    assert data.classes == ("ant", "dog", "cat")
    assert data.train is not None
    assert data.train.labels.tolist() == [2, 1, 1, -1]
    assert [data.train.images.name(i)[-9:-4] for i in range(4)] == ["cat/1", "dog/1", "dog/2", "led/1"]
    (error,) = data.errors
    assert error.source == "cta"
    assert "did you mean 'cat'?" in error.message
    assert data.train.labeled().labels.tolist() == [2, 1, 1]


def test_empty_test_folder_is_no_test_split(draw, tmp_path) -> None:
    draw("train/cat/1.png"), draw("train/dog/1.png")
    (tmp_path / "test").mkdir()
    data = load_dataset(tmp_path)
    assert (data.test, data.available) == (None, ("train",))
    assert data.errors[0].message == f"{tmp_path / 'test'}: holds no images"


def test_progress_ends_at_the_total(pets) -> None:
    seen: list[tuple[int, int]] = []
    load_dataset(pets, progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (7, 7)


def test_loading_is_deterministic(pets) -> None:
    first, second = load_dataset(pets), load_dataset(pets)
    assert first.classes == second.classes
    assert np.array_equal(first.train.hashes, second.train.hashes)  # type: ignore[union-attr]


def test_matching_images_are_selected_by_content_in_the_order_requested() -> None:
    images = labeled_dataset(np.arange(10, dtype=np.float32)[:, None], np.arange(10) % 3, "abc", ImageOptions()).train
    assert images is not None
    some, others = images.subset([7, 2, 2, 5]), images.subset([2, 9, 7])
    assert some.matching(others).images.to_array()[:, 0].tolist() == [2, 7]
    assert len(images.subset([]).matching(others)) == len(some.matching(images.subset([]))) == 0
