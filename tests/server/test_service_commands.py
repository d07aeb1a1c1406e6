"""Commands keys, store, sign, verify, encrypt, decrypt and serve."""

import re
import socket
import subprocess
import sys

import pytest

from likely import Classifier
from likely.classifier import load
from likely.cli import main
from likely.server.store import Store


def likely(capsys, *words):
    with pytest.raises(SystemExit) as end:
        main(list(map(str, words)))
    output = capsys.readouterr()
    assert "Traceback" not in output.err
    return end.value.code or 0, output.out, output.err


@pytest.fixture
def store(tmp_path):
    Store.open(tmp_path / "store").close()
    return tmp_path / "store"


@pytest.fixture
def model(tmp_path):
    from sklearn.datasets import load_digits

    digits = load_digits()
    folder = tmp_path / "model"
    Classifier("gaussian").fit(digits.images[:300] / 16, digits.target[:300]).save(folder)
    return folder


def test_keys_can_be_created_listed_and_revoked(store, capsys):
    words = ("--store", store)
    code, secret, _ = likely(
        capsys, "keys", "add", "till", "--scope", "classify", "--scope", "read", "--days", 30, *words
    )
    assert code == 0
    key = Store.open(store).keys.find(secret.strip())
    assert (key.name, sorted(key.scopes)) == ("till", ["classify", "read"])
    assert re.search(rf"{key.id} +classify,read +2", likely(capsys, "keys", "list", *words)[1])
    assert likely(capsys, "keys", "revoke", key.id, *words)[0] == 0
    assert Store.open(store).keys.find(secret.strip()).revoked is not None
    assert likely(capsys, "keys", "revoke", "nobody", *words)[0] == 2


def test_store_and_signatures_do_not_import_torch():
    check = "import sys, likely.server.store, likely.checkpoint.signing; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], capture_output=True, text=True).stdout.strip() == "False"


def test_service_does_not_import_scikit_learn():
    check = "import sys; import likely.server.http.app, likely.cli.serve, likely.classifier\n"
    check += "print([m for m in ('sklearn', 'scipy', 'transformers', 'captum', 'alembic') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr


def test_missing_store_is_an_invalid_request(tmp_path, capsys):
    for words in (("keys", "list"), ("store", "prune", "--older-than", 3), ("store", "backup", tmp_path / "b")):
        assert likely(capsys, *words, "--store", tmp_path / "nowhere")[0] == 2
    assert not (tmp_path / "nowhere").exists()


def test_store_can_be_backed_up_and_restored(store, tmp_path, capsys):
    assert likely(capsys, "store", "backup", tmp_path / "copy", "--store", store)[0] == 0
    assert likely(capsys, "store", "restore", tmp_path / "copy", "--store", tmp_path / "back")[0] == 0
    assert likely(capsys, "store", "prune", "--older-than", 1, "--store", tmp_path / "back")[0] == 0
    assert likely(capsys, "store", "restore", tmp_path / "copy", "--store", tmp_path / "back")[0] == 2  # not empty


def test_verify_detects_a_changed_model(model, tmp_path, capsys):
    assert likely(capsys, "sign", model, "--new-key", tmp_path / "mine")[0] == 0
    public = tmp_path / "mine.pub"
    assert likely(capsys, "verify", model, "--key", public)[0] == 0
    assert likely(capsys, "sign", model, "--key", tmp_path / "mine")[0] == 0
    path = model / "model.json"
    path.write_text(path.read_text().replace("gaussian", "gauSsian", 1))
    code, _, err = likely(capsys, "verify", model, "--key", public)
    assert (code, "model.json" in err) == (2, True)
    assert likely(capsys, "classify", model, tmp_path, "--require-signature", public)[0] == 2


def test_encrypted_model_needs_its_key(model, tmp_path, capsys, monkeypatch):
    assert likely(capsys, "encrypt", model, "--new-key", tmp_path / "key")[0] == 0
    code, _, err = likely(capsys, "info", model)
    assert (code, "LIKELY_MODEL_KEY" in err) == (2, True)
    monkeypatch.setenv("LIKELY_MODEL_KEY", str(tmp_path / "key"))
    assert load(model).labels[0] == "0"
    assert likely(capsys, "decrypt", model, "--key", tmp_path / "key")[0] == 0
    monkeypatch.delenv("LIKELY_MODEL_KEY")
    assert load(model).labels[0] == "0"
    assert likely(capsys, "decrypt", model, "--key", tmp_path / "key")[0] == 2  # it is not encrypted


def test_serve_refuses_a_port_in_use(model, tmp_path, capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, _, err = likely(capsys, "serve", model, "--port", port, "--store", tmp_path / "new")
    assert (code, str(port) in err, "--port" in err) == (2, True, True)
    assert not (tmp_path / "new").exists()


def test_sign_and_encrypt_require_a_key(model, capsys):
    for words in (("sign", model), ("encrypt", model)):
        code, _, err = likely(capsys, *words)
        assert (code, "--key" in err) == (2, True)
