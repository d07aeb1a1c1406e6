"""Signed and encrypted folders are read unchanged or rejected, whatever byte was modified."""

import json
import os
import shutil

import numpy as np
import pytest
import torch

from likely import checkpoint
from likely.checkpoint import ModelFolder, TrustPolicy, decrypt, encrypt, encryption, signing
from likely.checkpoint.encryption import SUFFIX, Keyring
from likely.exceptions import CheckpointError

TENSORS = {"a": torch.arange(20.0), "b": torch.ones(3, 4)}
FIELDS = {
    "name": "model",
    "family": "gaussian",
    "likelihood_kind": None,
    "classes": ["a"],
    "classes_dtype": "<U1",
    "images": None,
    "features": None,
    "feature_decoder": None,
    "task": {"shape": [1], "class_counts": [1]},
    "temperature": 1.0,
    "calibration": "split",
    "seed": 0,
    "options": {},
    "training": {},
}


@pytest.fixture
def folder(tmp_path):
    """A small model folder."""
    path = tmp_path / "model"
    checkpoint.save(path, TENSORS, FIELDS)
    (path / "README.md").write_text("# a card\n")
    return path


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    private = tmp_path_factory.mktemp("keys") / "mine"
    return private, signing.new_key(private)


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    path = tmp_path_factory.mktemp("keys") / "key"
    encryption.new_key(path)
    return Keyring.from_files([path])


def opened(folder, **trust):
    tensors, document = checkpoint.load(folder, TrustPolicy(**trust))
    return tensors["a"].tolist(), document["family"]


def flipped(path, positions, refused):
    whole = path.read_bytes()
    for i in positions:
        changed = bytearray(whole)
        changed[i] ^= 1 << (i % 8)
        path.write_bytes(changed)
        with pytest.raises(CheckpointError) as error:
            refused()
        assert "\n" not in str(error.value)
    path.write_bytes(whole)


def test_a_signed_model_loads_with_the_public_key_of_its_signer(folder, pair):
    private, public = pair
    signing.sign(folder, private)
    assert opened(folder, signer=public) == (list(range(20)), "gaussian")
    assert opened(folder) == (list(range(20)), "gaussian")


def test_a_signed_model_with_any_flipped_bit_is_rejected(folder, pair):
    private, public = pair
    signing.sign(folder, private)
    rng = np.random.default_rng(0)

    def read():
        files = ModelFolder(folder, TrustPolicy(signer=public))
        for name in ("model.json", "model.safetensors", "README.md"):
            files.read(name)

    for name in (signing.MANIFEST, signing.SIGNATURE):
        flipped(folder / name, range((folder / name).stat().st_size), read)
    for name in ("model.json", "model.safetensors", "README.md"):
        flipped(folder / name, rng.integers((folder / name).stat().st_size, size=40), read)
    read()


@pytest.mark.parametrize("what", ["unsigned", "another", "added", "missing", "cut"])
def test_a_model_that_differs_from_the_signed_one_is_rejected(folder, pair, tmp_path, what):
    private, public = pair
    if what != "unsigned":
        other = tmp_path / "other"
        signing.new_key(other)
        signing.sign(folder, other if what == "another" else private)
    match what:
        case "added":
            (folder / "extra.py").write_text("evil")
        case "missing":
            (folder / "README.md").unlink()
        case "cut":
            (folder / signing.SIGNATURE).write_bytes((folder / signing.SIGNATURE).read_bytes()[:-1])
    with pytest.raises(CheckpointError, match=r"sign"):
        checkpoint.load(folder, TrustPolicy(signer=public))


def test_the_signature_is_verified_before_any_file_is_parsed(folder, pair):
    private, public = pair
    signing.sign(folder, private)
    (folder / signing.MANIFEST).write_bytes(b"{ this is no JSON")
    with pytest.raises(CheckpointError, match="not signed by the private key"):
        checkpoint.load(folder, TrustPolicy(signer=public))


def test_an_encrypted_model_loads_only_with_its_key(folder, keys, tmp_path):
    assert encrypt(folder, keys) == 3
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        f"{name}{SUFFIX}" for name in ("README.md", "model.json", "model.safetensors")
    )
    assert opened(folder, keys=keys) == (list(range(20)), "gaussian")
    with pytest.raises(CheckpointError, match="LIKELY_MODEL_KEY"):
        opened(folder, keys=Keyring())
    other = tmp_path / "other"
    encryption.new_key(other)
    with pytest.raises(CheckpointError, match="another key"):
        opened(folder, keys=Keyring.from_files([other]))
    assert decrypt(folder, keys) == 3
    assert opened(folder) == (list(range(20)), "gaussian")


def test_the_key_comes_from_the_environment_variable(folder, tmp_path, monkeypatch):
    paths = [tmp_path / name for name in ("new", "old")]
    for path in paths:
        encryption.new_key(path)
    encrypt(folder, Keyring.from_files(paths[1:]))
    monkeypatch.setenv(encryption.KEY_VARIABLE, os.pathsep.join(map(str, paths)))
    assert opened(folder) == (list(range(20)), "gaussian")
    held = paths[1].read_text().strip()
    monkeypatch.setenv(encryption.KEY_VARIABLE, held)
    assert opened(folder) == (list(range(20)), "gaussian")
    monkeypatch.setenv(encryption.KEY_VARIABLE, held[:30])
    with pytest.raises(CheckpointError, match="LIKELY_MODEL_KEY is not valid") as refused:
        opened(folder)
    assert held[:30] not in str(refused.value)


def test_an_encrypted_model_with_any_flipped_bit_is_rejected(folder, keys):
    encrypt(folder, keys)
    files = ModelFolder(folder, TrustPolicy(keys=keys))
    for name in ("README.md", "model.json", "model.safetensors"):
        path = folder / (name + SUFFIX)
        n = path.stat().st_size
        head = range(min(n, 60))
        flipped(path, [*head, *np.random.default_rng(0).integers(n, size=60)], lambda name=name: files.read(name))


def test_an_encrypted_file_under_another_name_is_rejected(folder, keys):
    encrypt(folder, keys)
    shutil.copy(folder / ("README.md" + SUFFIX), folder / ("model.json" + SUFFIX))
    with pytest.raises(CheckpointError, match="changed"):
        checkpoint.load(folder, TrustPolicy(keys=keys))


def test_encrypting_again_with_a_new_first_key_replaces_the_old_one(folder, keys, tmp_path):
    encrypt(folder, keys)
    path = tmp_path / "next"
    encryption.new_key(path)
    new = Keyring.from_files([path])
    both = Keyring([*new._by_id.values(), *keys._by_id.values()])
    assert encrypt(folder, both) == 3
    assert opened(folder, keys=new) == (list(range(20)), "gaussian")
    with pytest.raises(CheckpointError, match="another key"):
        opened(folder, keys=keys)


def test_a_failed_encryption_leaves_the_folder_unchanged(folder, keys):
    encrypt(folder, keys)
    path = folder / ("model.json" + SUFFIX)
    path.write_bytes(path.read_bytes()[:-1])
    before = {each.name: each.read_bytes() for each in folder.iterdir()}
    with pytest.raises(CheckpointError):
        decrypt(folder, keys)
    assert {each.name: each.read_bytes() for each in folder.iterdir()} == before


def test_a_model_can_be_encrypted_and_signed(folder, keys, pair):
    private, public = pair
    encrypt(folder, keys)
    signing.sign(folder, private)
    assert opened(folder, signer=public, keys=keys) == (list(range(20)), "gaussian")
    assert not set(json.loads((folder / signing.MANIFEST).read_text())["files"]) & {"model.json"}


def test_a_file_that_is_both_encrypted_and_plain_is_rejected(folder, keys):
    plain = (folder / "model.json").read_bytes()
    encrypt(folder, keys)
    (folder / "model.json").write_bytes(plain)
    with pytest.raises(CheckpointError, match="both encrypted and unencrypted"):
        checkpoint.load(folder, TrustPolicy(keys=keys))


def test_key_files_are_private_and_never_overwritten(pair, tmp_path):
    private, _ = pair
    assert private.stat().st_mode & 0o077 == 0
    with pytest.raises(CheckpointError, match="exists"):
        signing.new_key(private)
    nonsense = tmp_path / "nonsense"
    nonsense.write_text("hello")
    for use in (lambda: Keyring.from_files([nonsense]), lambda: signing.sign(tmp_path, nonsense)):
        with pytest.raises(CheckpointError, match="holds no"):
            use()
