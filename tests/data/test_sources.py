"""Data sources: folders, idx, npz, manifests and digits, and the errors of unknown or damaged ones."""

from __future__ import annotations

import csv
import gzip
import json
import os
import struct
import sys
from pathlib import Path

import numpy as np
import pytest

from likely.data.listing import DataListing, list_data
from likely.data.sources.base import Listings, SplitListing
from likely.exceptions import DataError


def write_idx(path: Path, values: np.ndarray, *, mark: int = 0x08) -> None:
    content = bytes((0, 0, mark, values.ndim)) + struct.pack(f">{values.ndim}I", *values.shape) + values.tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(content, mtime=0) if path.suffix == ".gz" else content)


def mnist(folder: Path, *, ending: str = ".gz") -> np.ndarray:
    """Six training and three test images under MNIST's names, of classes 0 to 2."""
    images = np.random.default_rng(0).integers(0, 256, (9, 5, 4), np.uint8)
    labels = np.array([2, 0, 1, 2, 0, 1, 0, 1, 2], np.uint8)
    for split, rows in (("train", slice(0, 6)), ("t10k", slice(6, 9))):
        write_idx(folder / f"{split}-images-idx3-ubyte{ending}", images[rows])
        write_idx(folder / f"{split}-labels-idx1-ubyte{ending}", labels[rows])
    return images


def found(listing: SplitListing, below: Path) -> dict[str, str | None]:
    """Return the label of each file, by path relative to a folder."""
    items = listing.items
    return {str(Path(items.name(i)).relative_to(below)): listing.labels[i] for i in range(len(items))}


def list_splits(data: str | Path) -> Listings:
    return list_data(data).splits


def sentence_of(data: str | Path) -> str:
    with pytest.raises(DataError) as refusal:
        list_splits(data)
    sentence = str(refusal.value)
    assert "\n" not in sentence
    assert str(data) in sentence
    return sentence


# ---- folders


def test_flat_class_folders_are_listed(draw, tmp_path) -> None:
    for name in ("dog/b.png", "cat/a.png", "dog/a.jpg", ".git/x.png", "cat/.y.png"):
        draw(name)
    (tmp_path / "cat" / "notes.txt").write_text("not an image, and not meant as one")
    splits = list_splits(tmp_path)
    assert list(splits) == ["train"]
    assert found(splits["train"], tmp_path) == {"cat/a.png": "cat", "dog/a.jpg": "dog", "dog/b.png": "dog"}
    assert splits["train"].errors == ()


def test_nested_class_folders_are_named_by_their_path(draw, tmp_path) -> None:
    for name in ("Fruit/Apple/Golden/1.png", "Fruit/Pear/1.png", "Fruit/2.png", "Milk/1.png"):
        draw(name)
    assert list_data(tmp_path).class_names == ("Fruit", "Fruit/Apple/Golden", "Fruit/Pear", "Milk")


@pytest.mark.parametrize("validation", ["val", "valid", "Validation"])
def test_split_folders_are_listed(draw, tmp_path, validation) -> None:
    for name in ("train/cat/1.png", "train/a/dog/1.png", f"{validation}/cat/2.png", "test/cat/3.png", "test/owl/4.png"):
        draw(name)
    splits = list_splits(tmp_path)
    assert {split: found(listing, tmp_path) for split, listing in splits.items()} == {
        "train": {"train/cat/1.png": "cat", "train/a/dog/1.png": "a/dog"},
        "validation": {f"{validation}/cat/2.png": "cat"},
        "test": {"test/cat/3.png": "cat", "test/owl/4.png": "owl"},
    }
    assert DataListing("X", splits).class_names == ("a/dog", "cat", "owl")


def test_class_may_be_named_train(draw, tmp_path) -> None:
    for name in ("bus/1.png", "train/1.png", "car/1.png"):
        draw(name)
    assert list_data(tmp_path).class_names == ("bus", "car", "train")


def test_unlabeled_folders_have_no_label(draw, tmp_path) -> None:
    for name in ("flat/cat/1.png", "flat/unlabeled/2.png", "flat/unlabeled/deep/3.png"):
        draw(name)
    for name in (
        "splits/train/cat/1.png",
        "splits/train/Unlabeled/2.png",
        "splits/unlabeled/3.png",
        "splits/test/cat/4.png",
    ):
        draw(name)
    flat, splits = list_splits(tmp_path / "flat"), list_splits(tmp_path / "splits")
    assert list(found(flat["train"], tmp_path / "flat").values()) == ["cat", None, None]
    assert found(splits["train"], tmp_path / "splits") == {
        "train/Unlabeled/2.png": None,
        "train/cat/1.png": "cat",
        "unlabeled/3.png": None,
    }


def test_stray_files_and_folders_are_errors_of_the_listing(draw, tmp_path) -> None:
    for name in (
        "flat/cat/1.png",
        "flat/stray.png",
        "splits/train/cat/1.png",
        "splits/test/cat/1.png",
        "splits/extra/cat/1.png",
    ):
        draw(name)
    (tmp_path / "flat" / "empty").mkdir()
    (tmp_path / "flat" / "texts").mkdir()
    (tmp_path / "flat" / "texts" / "a.txt").touch()
    errors = list_splits(tmp_path / "flat")["train"].errors
    assert [error.source.removeprefix(str(tmp_path)) for error in errors] == [
        "/flat/stray.png",
        "/flat/empty",
        "/flat/texts",
    ]
    (beside,) = list_splits(tmp_path / "splits")["train"].errors
    assert beside.source == str(tmp_path / "splits" / "extra")


def test_unreadable_folder_is_an_error_of_the_listing(draw, tmp_path, monkeypatch) -> None:
    draw("cat/1.png"), draw("dog/1.png")
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path).name != "dog")  # root may read everything
    (problem,) = list_splits(tmp_path)["train"].errors
    assert problem.source == str(tmp_path / "dog")


def test_images_without_class_folders_are_unlabeled(draw, tmp_path) -> None:
    draw("1.png"), draw("2.png")
    assert found(list_splits(tmp_path)["train"], tmp_path) == {"1.png": None, "2.png": None}


def test_folders_without_images_are_rejected(draw, tmp_path) -> None:
    assert sentence_of(tmp_path)
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / "1.xyz").touch()
    assert ".xyz" in sentence_of(tmp_path)
    (tmp_path / "labels.csv").touch()
    assert str(tmp_path / "labels.csv") in sentence_of(tmp_path)


# ---- paths


def test_missing_path_suggests_the_nearest(tmp_path, monkeypatch) -> None:
    (tmp_path / "photos").mkdir()
    assert "'photos'" in sentence_of(tmp_path / "fotos")
    monkeypatch.chdir(tmp_path)
    assert "'digits'" in sentence_of("digit")
    assert "'" not in sentence_of("nowhere/at/all")


def test_unknown_file_type_is_rejected_with_the_known_sources(tmp_path) -> None:
    (tmp_path / "data.xlsx").touch()
    assert ".npz" in sentence_of(tmp_path / "data.xlsx")
    mnist(tmp_path / "idx")
    image_file = tmp_path / "idx" / "train-images-idx3-ubyte.gz"
    assert f" {tmp_path / 'idx'}," in sentence_of(image_file)


# ---- classes


def test_numeric_class_names_are_sorted_numerically() -> None:
    def sorted_names(*names: str) -> tuple[str, ...]:
        return DataListing("X", {"train": SplitListing(None, names)}).class_names  # type: ignore[arg-type]

    assert sorted_names("10", "9", "1") == ("1", "9", "10")
    assert sorted_names("10", "9", "x") == ("10", "9", "x")
    assert sorted_names() == ()


# ---- idx


@pytest.mark.parametrize("ending", ["", ".gz"])
def test_idx_files_with_mnist_names_are_read(tmp_path, ending) -> None:
    images = mnist(tmp_path, ending=ending)
    splits = list_splits(tmp_path)
    assert list(splits["train"].labels) == ["2", "0", "1", "2", "0", "1"]
    assert np.array_equal(splits["train"].items.array, images[:6])
    assert np.array_equal(splits["test"].items[1], images[7])
    assert splits["test"].items.name(1) == f"{tmp_path}/t10k-images-idx3-ubyte{ending}[1]"


def test_idx_names_with_a_dot_are_accepted(tmp_path) -> None:
    write_idx(tmp_path / "train-images.idx3-ubyte", np.zeros((2, 3, 3), np.uint8))
    write_idx(tmp_path / "train-labels.idx1-ubyte", np.array([0, 1], np.uint8))
    assert list(list_splits(tmp_path)) == ["train"]


def test_damaged_idx_files_are_rejected_by_name(tmp_path) -> None:
    images, labels = tmp_path / "train-images-idx3-ubyte", tmp_path / "train-labels-idx1-ubyte"
    write_idx(images, np.zeros((3, 2, 2), np.uint8))
    assert images.name in sentence_of(tmp_path)
    write_idx(labels, np.zeros(2, np.uint8))
    assert labels.name in sentence_of(tmp_path)
    write_idx(labels, np.zeros(3, np.float32), mark=0x0D)
    assert "0x00000d01" in sentence_of(tmp_path)
    labels.write_bytes(b"\0\0")
    assert labels.name in sentence_of(tmp_path)
    labels.unlink()
    write_idx(labels.with_suffix(".gz"), np.zeros(3, np.uint8))
    labels.with_suffix(".gz").write_bytes(labels.with_suffix(".gz").read_bytes()[:-12])
    assert labels.name in sentence_of(tmp_path)


def test_truncated_idx_images_are_rejected_on_reading(tmp_path) -> None:
    for ending in ("", ".gz"):
        folder = tmp_path / f"mnist{ending}"
        mnist(folder, ending=ending)
        path = folder / f"train-images-idx3-ubyte{ending}"
        path.write_bytes(path.read_bytes()[:-20])
        items = list_splits(folder)["train"].items
        with pytest.raises(DataError, match=path.name):
            items[0]


# ---- npz


def test_npz_with_splits_and_named_classes_is_listed(tmp_path) -> None:
    x = np.random.default_rng(0).integers(0, 256, (4, 6, 6, 3), np.uint8)
    names = np.array(["dog", "cat"])
    np.savez(tmp_path / "a.npz", x_train=x, y_train=np.array([0, 1, -1, 0]), x_test=x[:1], y_test=[[1]], classes=names)
    np.savez_compressed(
        tmp_path / "b.npz", x_train=x, y_train=np.array(["dog", "cat", "", "dog"]), x_val=x, y_val=[b"dog"] * 4
    )
    a, b = list_splits(tmp_path / "a.npz"), list_splits(tmp_path / "b.npz")
    assert list(a["train"].labels) == list(b["train"].labels) == ["dog", "cat", None, "dog"]
    assert list(a["test"].labels) == ["cat"]
    assert list(b) == ["train", "validation"]
    for split in (a["train"], b["train"]):
        assert np.array_equal(split.items.array, x)
    assert isinstance(a["train"].items.array, np.memmap)  # as it lies on disk: no larger than what is looked at
    assert a["test"].items.name(0) == f"{tmp_path}/a.npz:x_test[0]"


@pytest.mark.parametrize(
    "x", [np.zeros((2, 3, 3)), np.asfortranarray(np.arange(18.0).reshape(2, 3, 3) / 18), np.zeros((2, 5))]
)
def test_npz_with_fortran_order_or_vectors_is_read(tmp_path, x) -> None:
    np.savez(tmp_path / "a.npz", x=x, y=[0, 1])
    assert np.array_equal(list_splits(tmp_path / "a.npz")["train"].items.array, x)


@pytest.mark.parametrize(
    ("arrays", "expected"),
    [
        ({"images": np.zeros(3), "labels": np.zeros(3)}, "images, labels"),
        ({}, "a.npz"),
        ({"x_train": np.zeros((2, 3, 3)), "Y_train": [0, 1]}, "y_train.*'Y_train'"),
        ({"x": np.zeros((2, 3, 3)), "y": [0, 1, 2]}, "x.* 2 .*y.* 3 "),
        ({"x": np.zeros((2, 3, 3)), "y": np.eye(2)}, " y "),
        ({"x": np.zeros((2, 3, 3)), "y": [0.5, 1]}, " y "),
        ({"x": np.zeros((2, 3, 3)), "y": [0, 7], "classes": ["a", "b"]}, "classes"),
        ({"x": np.zeros((2, 3, 8, 8), np.uint8), "y": [0, 1]}, r"\(2, 3, 8, 8\)"),
        ({"x": np.zeros(2), "y": [0, 1]}, r"\(2,\)"),
        ({"x": np.zeros((2, 3, 3), np.int64), "y": [0, 1]}, "int64"),
        ({"x": np.array([{}, {}], object), "y": [0, 1]}, "a.npz"),
        ({"x": np.zeros((2, 3, 3)), "y": np.array(["a", None], object)}, "a.npz"),
    ],
)
def test_npz_of_other_content_is_rejected(tmp_path, arrays, expected) -> None:
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(DataError, match=expected):
        list_splits(tmp_path / "a.npz")


def test_damaged_npz_is_rejected(tmp_path) -> None:
    np.savez_compressed(tmp_path / "a.npz", x=np.random.default_rng(0).normal(size=(9, 9)), y=range(9))
    whole = (tmp_path / "a.npz").read_bytes()
    for content in (b"", b"PK no", whole[:100], whole[:-40]):
        (tmp_path / "a.npz").write_bytes(content)
        assert sentence_of(tmp_path / "a.npz")


def test_floats_above_one_are_rejected(tmp_path) -> None:
    dark_first = np.stack([np.zeros((3, 3)), np.full((3, 3), 255.0)])
    np.savez(tmp_path / "a.npz", x=dark_first, y=[0, 1])
    with pytest.raises(DataError, match="255"):
        list_splits(tmp_path / "a.npz")["train"].items[0]


# ---- manifests

ROWS = [
    ("b.png", "dog", "train"),
    ("deep/a.png", "cat", ""),
    ("c.png", "", "Train"),
    ("d.png", "owl", "test"),
    ("e.png", "cat", "val"),
]


def write_table(path: Path, columns: list[str], rows: list[tuple[object, ...]]) -> Path:
    if path.suffix == ".csv":
        with path.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([columns, *rows])
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(dict(zip(columns, row, strict=True))) + "\n" for row in rows))
    else:
        pa = pytest.importorskip("pyarrow")
        from pyarrow import parquet

        parquet.write_table(pa.table(dict(zip(columns, map(list, zip(*rows, strict=True)), strict=True))), path)
    return path


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_manifests_of_every_format_are_listed(draw, tmp_path, suffix) -> None:
    for name, _, _ in ROWS:
        draw(name)
    splits = list_splits(write_table(tmp_path / f"list{suffix}", ["file_name", "label", "split"], ROWS))
    assert {split: found(listing, tmp_path) for split, listing in splits.items()} == {
        "train": {"b.png": "dog", "deep/a.png": "cat", "c.png": None},
        "validation": {"e.png": "cat"},
        "test": {"d.png": "owl"},
    }


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_manifest_labels_may_be_numbers_or_missing(draw, tmp_path, suffix) -> None:
    rows = [(draw(f"{i}.png").name, label) for i, label in enumerate([10, 9, None])]
    splits = list_splits(write_table(tmp_path / f"list{suffix}", ["file_name", "label"], rows))
    assert list(splits["train"].labels) == ["10", "9", None]
    assert DataListing("X", splits).class_names == ("9", "10")


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_csv_with_semicolons_and_byte_order_mark_is_read(draw, tmp_path, delimiter) -> None:
    draw("a, b.png")
    lines = [delimiter.join([" file_name", "label ", "more"]), "", delimiter.join(['"a, b.png"', '"kürbis"', "1"]), ""]
    (tmp_path / "list.csv").write_bytes(b"\xef\xbb\xbf" + "\r\n".join(lines).encode())
    assert found(list_splits(tmp_path / "list.csv")["train"], tmp_path) == {"a, b.png": "kürbis"}


def test_invalid_manifest_line_is_an_error_with_its_number(draw, tmp_path) -> None:
    draw("inside/good.png")
    draw("outside.png")
    rows = [
        ("good.png", "a"),
        ("gone.png", "a"),
        ("../outside.png", "a"),
        (str(tmp_path / "outside.png"), "a"),
        ("", "a"),
    ]
    path = write_table(tmp_path / "inside" / "list.csv", ["file_name", "label"], rows)
    with path.open("a") as file:
        file.write("good.png,a,b,c\n")
    listing = list_splits(path)["train"]
    assert found(listing, tmp_path) == {"inside/good.png": "a"}
    expected = ["gone.png", "../outside.png", str(tmp_path / "outside.png"), "file_name", " 4 "]
    for line, problem, words in zip(range(3, 8), listing.errors, expected, strict=True):
        assert problem.message.startswith(f"{path}, line {line}: ")
        assert words in problem.message


def test_invalid_json_line_is_an_error(draw, tmp_path) -> None:
    draw("a.png")
    good = '{"file_name": "a.png", "label": "x"}'
    bad = [
        "{oops",
        "[1]",
        '{"filename": "a.png"}',
        '{"file_name": "a.png", "label": [1]}',
        '{"file_name": "a.png", "label": 0.5}',
    ]
    bad += ['{"file_name": "a.png", "split": "tets"}']
    path = tmp_path / "list.jsonl"
    path.write_text("\n".join([good, "", *bad]))
    listing = list_splits(path)["train"]
    assert len(listing.items) == 1
    expected = [
        "",
        "file_name",
        "'filename'",
        "label",
        "label",
        "'test'",
    ]
    for line, problem, words in zip(range(3, 9), listing.errors, expected, strict=True):
        assert f"line {line}: " in problem.message
        assert words in problem.message


def test_invalid_manifests_are_rejected(tmp_path) -> None:
    path = tmp_path / "list.csv"
    path.write_text("filename,label\na.png,x\n")
    assert "'filename'" in sentence_of(path)
    path.write_text("file_name,lable\na.png,x\n")
    assert "label" in sentence_of(path)
    for content, expected in (
        (b"", "file_name"),
        (b"file_name,label\n", "list.csv"),
        (b"file_name,label\n\xff\xfe,a\n", "UTF-8"),
    ):
        path.write_bytes(content)
        assert expected in sentence_of(path)
    path.write_text("file_name,label\ngone.png,x\n")
    assert "gone.png" in sentence_of(path)
    (tmp_path / "list.parquet").write_bytes(b"PAR1 no")
    assert sentence_of(tmp_path / "list.parquet")


def test_parquet_without_pyarrow_names_the_package(tmp_path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    (tmp_path / "list.parquet").touch()
    assert "likely[parquet]" in sentence_of(tmp_path / "list.parquet")


# ---- digits


def test_digits_have_a_fixed_test_quarter() -> None:
    splits, again = list_splits("digits"), list_splits("digits")
    sizes = {split: len(listing.items) for split, listing in splits.items()}
    assert sizes == {"train": 1352, "test": 445}
    assert DataListing("X", splits).class_names == tuple("0123456789")
    assert splits["test"].items.array.max() == 255
    assert splits["test"].items.array.dtype == np.uint8
    assert np.array_equal(splits["test"].items.array, again["test"].items.array)
    for name in "0123456789":
        n_test, n_train = splits["test"].labels.count(name), splits["train"].labels.count(name)
        assert n_test == (n_test + n_train) // 4
