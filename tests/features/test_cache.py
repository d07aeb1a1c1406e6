"""Feature cache: stored vectors are returned, and a file that cannot be used behaves as if it were empty."""

import numpy as np
import pytest

from likely.features.cache import FeatureCache


def rows(n, seed=0):
    values = np.random.default_rng(seed).normal(size=(n, 5)).astype(np.float32)
    return dict(zip(range(-n // 2, n), values, strict=False))


def test_stored_vectors_are_returned(tmp_path):
    store, stored = FeatureCache("f", tmp_path), rows(1500)
    store.put(stored)
    found = FeatureCache("f", tmp_path).get([*stored, 10**18])
    assert found.keys() == stored.keys()
    assert all((found[key] == row).all() for key, row in stored.items())


def test_functions_have_separate_caches(tmp_path):
    FeatureCache("f", tmp_path).put(rows(4))
    assert FeatureCache("g", tmp_path).get(rows(4)) == {}


def test_a_stored_vector_is_not_replaced(tmp_path):
    store = FeatureCache("f", tmp_path)
    store.put({1: np.zeros(2, np.float32)})
    store.put({1: np.ones(2, np.float32), 2: np.ones(2, np.float32)})
    assert store.get([1, 2])[1].tolist() == [0, 0]


def test_damaged_file_behaves_as_empty(tmp_path):
    store = FeatureCache("f", tmp_path)
    store.path.write_bytes(b"no database" * 500)
    store.put(rows(3))
    assert store.get(rows(3)) == {}


def test_unwritable_folder_behaves_as_empty(tmp_path):
    (tmp_path / "file").write_text("")
    store = FeatureCache("f", tmp_path / "file" / "below")
    store.put(rows(3))
    assert store.get(rows(3)) == {}


@pytest.mark.parametrize(
    ("variables", "expected"),
    [({"LIKELY_CACHE": "/a"}, "/a"), ({"LIKELY_CACHE": "", "XDG_CACHE_HOME": "/b"}, "/b/likely")],
)
def test_environment_variables_set_the_folder(monkeypatch, variables, expected):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert FeatureCache("f").path.as_posix() == f"{expected}/features/f.sqlite"
