"""The store of vectors: what is put comes back, and what goes wrong with the file goes wrong with nothing else."""

import numpy as np
import pytest

from likely.features.cache import BATCH_SIZE, FeatureCache, cache_folder


def rows(n, seed=0):
    values = np.random.default_rng(seed).normal(size=(n, 5)).astype(np.float32)
    return dict(zip(range(-n // 2, n), values, strict=False))


def test_what_was_put_comes_back(tmp_path):
    store, kept = FeatureCache("f", tmp_path), rows(3 * BATCH_SIZE)
    store.put(kept)
    found = FeatureCache("f", tmp_path).get([*kept, 10**18])
    assert found.keys() == kept.keys()
    assert all((found[key] == row).all() for key, row in kept.items())


def test_functions_do_not_share(tmp_path):
    FeatureCache("f", tmp_path).put(rows(4))
    assert FeatureCache("g", tmp_path).get(rows(4)) == {}


def test_the_first_vector_of_a_key_stays(tmp_path):
    store = FeatureCache("f", tmp_path)
    store.put({1: np.zeros(2, np.float32)})
    store.put({1: np.ones(2, np.float32), 2: np.ones(2, np.float32)})
    assert store.get([1, 2])[1].tolist() == [0, 0]


def test_a_damaged_file_is_as_good_as_none(tmp_path):
    store = FeatureCache("f", tmp_path)
    store.path.write_bytes(b"no database" * 500)
    store.put(rows(3))
    assert store.get(rows(3)) == {}


def test_a_place_that_cannot_be_written_is_as_good_as_none(tmp_path):
    (tmp_path / "file").write_text("")
    store = FeatureCache("f", tmp_path / "file" / "below")
    store.put(rows(3))
    assert store.get(rows(3)) == {}


@pytest.mark.parametrize(
    ("variables", "expected"),
    [({"LIKELY_CACHE": "/a"}, "/a"), ({"LIKELY_CACHE": "", "XDG_CACHE_HOME": "/b"}, "/b/likely")],
)
def test_the_user_says_where(monkeypatch, variables, expected):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert cache_folder().as_posix() == expected
