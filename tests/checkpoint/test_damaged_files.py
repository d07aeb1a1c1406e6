"""Files that were edited by hand, truncated or written by another program raise a CheckpointError that names them."""

import json
import re
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from likely import Classifier
from likely.benchmark.results import ResultsLog
from likely.checkpoint import read_document, read_tensors, write_tensors
from likely.classifier import load
from likely.evaluation.training_record import load_record, read_history
from likely.exceptions import CheckpointError, DataError
from likely.experiment import TRAINING_STATE, load_config, load_unfinished_config, resume_run
from likely.features.cache import FeatureCache

WRONG_VALUES = (None, -1, 1.5, float("nan"), "x", [], {"x": 1})
DATA = load_digits()
PIXELS = (DATA.images[:200] * 15).astype(np.uint8)


@pytest.fixture(scope="module", params=["gaussian", "gaussian-random", "vectors"])
def folder(request, tmp_path_factory):
    path, labels = tmp_path_factory.mktemp("model") / "m", DATA.target[:200]
    if request.param == "gaussian":
        Classifier("gaussian").fit(PIXELS, labels).save(path)
    elif request.param == "gaussian-random":
        Classifier("gaussian", features={"features": "random"}).fit(PIXELS, labels).save(path)
    else:
        Classifier("gaussian").fit(DATA.data[:200], labels).save(path)
    return path


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Paths of all values in a JSON document."""
    items = value.items() if isinstance(value, dict) else enumerate(value[:2]) if isinstance(value, list) else ()
    for key, each in items:
        yield (*path, key)
        yield from places(each, (*path, key))


def at(document: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        document = document[key]
    return document


def variants(document: Any) -> Iterator[tuple[tuple[Any, ...], str, Any]]:
    """Copies of a document with a missing, a wrong or an additional value, and where it is."""
    for path in places(document):
        for kind, wrong in (("missing", None), *(("wrong", value) for value in WRONG_VALUES)):
            changed = json.loads(json.dumps(document))
            parent = at(changed, path[:-1])
            if kind == "missing":
                del parent[path[-1]]
            else:
                parent[path[-1]] = wrong
            yield path, kind, changed
        if isinstance(at(document, path), dict):
            changed = json.loads(json.dumps(document))
            at(changed, path)["surplus"] = 1
            yield (*path, "surplus"), "extra", changed
    yield ("surplus",), "extra", document | {"surplus": 1}


def names(error: Exception, file: Path, path: tuple[Any, ...], kind: str) -> bool:
    """Does the message name the folder, and the key that is missing or unknown?"""
    is_named = kind == "wrong" or not isinstance(path[-1], str) or path[-1] in str(error)
    return is_named and str(file.parent) in str(error)


def test_an_edited_model_json_raises_a_checkpoint_error_or_loads(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "m")
    file = tmp_path / "m" / "model.json"
    document = json.loads(file.read_text())
    inputs = PIXELS[:2] if document["images"] else DATA.data[:2]
    bad = []
    for path, kind, changed in variants(document):
        file.write_text(json.dumps(changed))
        error = None
        try:
            predictor = load(tmp_path / "m")
            predictions = predictor.classify(inputs) if path[0] != "training" else []
        except Exception as raised:  # any but a CheckpointError is listed
            error = raised
        if error is None:
            well = kind != "extra" and all(prediction.error is None for prediction in predictions)
        else:
            well = isinstance(error, CheckpointError) and names(error, file, path, kind)
        if not well:
            bad.append((path, kind, at(changed, path) if kind == "wrong" else "", error))
    assert bad == []


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"1", b"null", b'"x"', b"\xff\xfe{}", b"[" * 10**6, b"{}"])
def test_a_model_json_that_is_no_document_raises_a_checkpoint_error(tmp_path, content):
    (tmp_path / "model.json").write_bytes(content)
    for of_any_version in (False, True) if content != b"{}" else (False,):
        with pytest.raises(CheckpointError, match=re.escape("model.json")):
            read_document(tmp_path, of_any_version=of_any_version)


@pytest.mark.parametrize(
    "content", [b"epoch,step\n1,x\n", b"epoch\n\xff\n", b"epoch\n1,2\n", b'epoch\n"' + b"1" * 200_000]
)
def test_a_damaged_history_raises_a_checkpoint_error(tmp_path, content):
    (tmp_path / "history.csv").write_bytes(content)
    with pytest.raises(CheckpointError, match=re.escape("history.csv")):
        read_history(tmp_path)


@pytest.mark.parametrize("name", ["run", "record"])
def test_a_damaged_record_of_the_training_raises_a_checkpoint_error(tmp_path, name):
    Classifier("gaussian").fit(PIXELS, DATA.target[:200]).save(tmp_path / "m")
    file, read = tmp_path / "m" / "model.json", load_config if name == "run" else load_record
    document = json.loads(file.read_text())
    with pytest.raises(DataError):
        read(tmp_path / "m")
    for wrong in ([], "x", {}, {"surplus": 1}):
        file.write_text(json.dumps(document | {name: wrong}))
        with pytest.raises(CheckpointError, match=rf"model\.json.*{name}"):
            read(tmp_path / "m")


@pytest.mark.parametrize(
    "document", [[], {}, {"run": 1, "state": {}}, {"run": {}, "state": {}}, {"run": {}, "state": 1}]
)
def test_a_damaged_training_state_raises_a_checkpoint_error(tmp_path, document):
    write_tensors(tmp_path / TRAINING_STATE, {"x": torch.zeros(1)}, document)
    for read in (load_unfinished_config, resume_run):
        with pytest.raises(CheckpointError, match=TRAINING_STATE):
            read(tmp_path)


@pytest.mark.parametrize("content", [b"", b"x" * 100, b"\xff" * 100])
def test_a_file_without_tensors_raises_a_checkpoint_error(tmp_path, content):
    (tmp_path / "x.safetensors").write_bytes(content)
    with pytest.raises(CheckpointError, match=re.escape("x.safetensors")):
        read_tensors(tmp_path / "x.safetensors")


def test_a_result_log_counts_lines_that_are_not_utf8(tmp_path):
    (tmp_path / "results.jsonl").write_bytes(b"\xff\n{}\n")
    assert ResultsLog(tmp_path / "results.jsonl").n_unreadable == 2


def test_a_cached_vector_that_is_damaged_is_computed_again(tmp_path):
    cache = FeatureCache("f", tmp_path)
    cache.put({1: np.ones(2, np.float32), 2: np.ones(2, np.float32), 3: np.ones(2, np.float32)})
    with closing(sqlite3.connect(cache.path)) as database, database:
        database.execute("update vectors set row = ? where key = 1", (b"abc",))
        database.execute("update vectors set row = ? where key = 2", ("text",))
    assert list(cache.get([1, 2, 3])) == [3]
