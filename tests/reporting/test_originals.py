from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from likely.data.image_dataset import ArrayDataset
from likely.reporting.originals import MAX_SIDE, originals, short_names

INDICES = np.array([2, 0])


def dataset(names: list[str], shape: tuple[int, int, int] = (3, 4, 4)) -> ArrayDataset:
    return ArrayDataset(np.zeros((len(names), *shape), np.uint8), names.__getitem__)


def test_files_are_read_at_their_own_size(tmp_path: Path) -> None:
    paths = [tmp_path / f"{i}.png" for i in range(3)]
    for path, size in zip(paths, [(20, 10), (5, 5), (4 * MAX_SIDE, 2 * MAX_SIDE)], strict=True):
        Image.new("RGB", size, "red").save(path)
    large, small = originals(dataset([str(path) for path in paths]), INDICES)
    assert large.shape == (3, MAX_SIDE // 2, MAX_SIDE)
    assert small.shape == (3, 10, 20)
    assert (small[:, 0, 0] == (255, 0, 0)).all()
    assert [each.shape[0] for each in originals(dataset([str(path) for path in paths], (1, 4, 4)), INDICES)] == [1, 1]


def test_images_without_a_file_keep_the_format_of_the_model() -> None:
    assert [each.shape for each in originals(dataset(["data[0]", "data[1]", "data[2]"]), INDICES)] == [(3, 4, 4)] * 2


def test_names_lack_their_common_folder() -> None:
    assert short_names(dataset(["/home/ann/a/1.png", "/home/ann/a/2.png", "/home/ann/b/3.png"]), INDICES) == (
        "b/3.png",
        "a/1.png",
    )
    assert short_names(dataset(["/home/x.npz[0]", "/home/x.npz[1]", "/home/x.npz[2]"]), INDICES) == (
        "x.npz[2]",
        "x.npz[0]",
    )
    assert short_names(dataset(["0", "1", "2"]), INDICES) == ("2", "0")
    assert short_names(dataset(["/a/1.png"]), np.array([0])) == ("1.png",)
