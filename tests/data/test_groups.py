"""Groups of photographs: near-duplicates, bursts, and groups that a manifest lists."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from likely.data.dataset import Dataset
from likely.data.decoding import capture_time
from likely.data.groups import GroupOptions, merge_groups, searches_groups, with_groups
from likely.data.loading import load_dataset

EXIF_FIELDS, DATE_TIME_ORIGINAL = 0x8769, 0x9003


def smooth(seed: int) -> np.ndarray:
    """A smooth random image, uint8 (64, 64, 3), unlike that of any other seed."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((64, 64), Image.Resampling.BICUBIC))


def write(path, pixels: np.ndarray, taken: str | None = None, quality: int = 95) -> None:
    exif = Image.Exif()
    if taken is not None:
        exif.get_ifd(EXIF_FIELDS)[DATE_TIME_ORIGINAL] = taken
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, exif=exif, quality=quality)


def blended(a: int, b: int, weight: float) -> np.ndarray:
    return (smooth(a) * (1 - weight) + smooth(b) * weight).astype(np.uint8)


def groups_of(dataset: Dataset) -> dict[str, int]:
    """The group of each training image by the name of its file."""
    train = with_groups(dataset).train
    assert train is not None
    return {train.images.name(i).rsplit("/")[-1]: int(g) for i, g in enumerate(train.group_ids)}


@pytest.fixture
def photos(tmp_path):
    for i in range(6):
        write(tmp_path / f"{'ab'[i % 2]}/{i}.jpg", smooth(i))
    return tmp_path


def test_near_duplicates_are_one_group(photos) -> None:
    write(photos / "a/again.jpg", smooth(0), quality=60)
    write(photos / "b/bright.jpg", (smooth(0) * 0.9).astype(np.uint8))  # of another class: still one group
    groups = groups_of(load_dataset(photos))
    assert groups["0.jpg"] == groups["again.jpg"] == groups["bright.jpg"]
    assert len(set(groups.values())) == 6


@pytest.mark.parametrize(
    ("taken", "weight", "is_burst"),
    [
        ("2024:05:01 12:00:40", 0.3, True),
        ("2024:05:01 12:03:00", 0.3, False),  # similar, but later
        ("2024:05:01 12:00:40", 1.0, False),  # soon after, but of something else
        (None, 0.3, False),
        ("no time", 0.3, False),
    ],
)
def test_similar_photographs_taken_within_a_minute_are_one_group(photos, taken, weight, is_burst) -> None:
    write(photos / "a/first.jpg", smooth(20), "2024:05:01 12:00:00")
    write(photos / "a/second.jpg", blended(20, 21, weight), taken)
    groups = groups_of(load_dataset(photos))
    assert (groups["first.jpg"] == groups["second.jpg"]) == is_burst


def test_capture_time_is_that_of_the_camera(tmp_path) -> None:
    write(tmp_path / "a.jpg", smooth(0), "2024:05:01 12:00:00")
    write(tmp_path / "b.jpg", smooth(0), "2024:05:01 12:01:00")
    assert capture_time(str(tmp_path / "b.jpg")) - capture_time(str(tmp_path / "a.jpg")) == 60
    assert np.isnan(capture_time(str(tmp_path / "none.jpg")))


def test_groups_are_searched_over_all_splits(photos) -> None:
    for i in range(6):
        (photos / f"train/{'ab'[i % 2]}").mkdir(parents=True, exist_ok=True)
        (photos / f"{'ab'[i % 2]}/{i}.jpg").rename(photos / f"train/{'ab'[i % 2]}/{i}.jpg")
    write(photos / "val/a/again.jpg", smooth(0), quality=60)
    write(photos / "val/b/other.jpg", smooth(30))
    (photos / "a").rmdir()
    (photos / "b").rmdir()
    dataset = with_groups(load_dataset(photos, splits=("train", "validation")))
    assert dataset.train is not None
    assert dataset.validation is not None
    assert np.isin(dataset.validation.group_ids, dataset.train.group_ids).tolist() == [True, False]


def test_groups_of_a_manifest_replace_the_search(photos) -> None:
    write(photos / "a/again.jpg", smooth(0), quality=60)
    rows = ["a/0.jpg,a,x", "b/1.jpg,b,x", "a/2.jpg,a,", "b/3.jpg,b,", "a/again.jpg,a,y", "a/0.jpg,a,z"]
    (photos / "all.csv").write_text("\n".join(["file_name,label,group", *rows]))
    dataset = load_dataset(photos / "all.csv")
    assert not searches_groups(dataset)
    assert dataset.train is not None
    groups = dataset.train.group_ids
    assert groups[0] == groups[1] == groups[5]  # x, and the exact duplicate of one of its images
    assert len(set(groups.tolist())) == 4


def test_groups_are_not_searched_among_too_many_images_or_arrays(photos) -> None:
    dataset = load_dataset(photos)
    assert searches_groups(dataset)
    few = GroupOptions(max_images=5)
    assert with_groups(dataset, few) is dataset
    digits = load_dataset("digits")
    assert with_groups(digits) is digits


def test_merging_takes_connected_components() -> None:
    pairs = [(np.array([0, 1]), np.array([1, 2])), (np.array([4]), np.array([5]))]
    assert merge_groups(np.array([7, 3, 5, 9, 8, 8]), pairs).tolist() == [3, 3, 3, 9, 8, 8]
