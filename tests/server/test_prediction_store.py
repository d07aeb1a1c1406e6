"""Prediction store: every row has its file and every file its row, also after a crash."""

import hashlib
import uuid
from datetime import UTC, datetime, timedelta

import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory
from databases import postgresql
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from likely.checkpoint.encryption import Keyring
from likely.exceptions import CheckpointError, StoreError
from likely.prediction import Prediction, Status
from likely.server.store import NewPrediction, PredictionFilter, Scope, Store, StoredImage
from likely.server.store.backup import backup, restore
from likely.server.store.db import MIGRATIONS, is_current
from likely.server.store.schema import ModelRow, PredictionRow, row_id

STATUSES = (Status.KNOWN, Status.AMBIGUOUS, Status.UNKNOWN)


@pytest.fixture(scope="session")
def server():
    with postgresql() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
def open_store(request, tmp_path):
    """Function that opens the store of a test, also several times."""
    url = None
    if request.param == "postgresql":
        url = request.getfixturevalue("server").create_database(uuid.uuid4().hex)
    made = []

    def open_(**options):
        made.append(Store.open(tmp_path / "store", url, **options))
        return made[-1]

    yield open_
    for each in made:
        each.close()


@pytest.fixture
def store(open_store):
    return with_models(open_store())


def sha256(content):
    return hashlib.sha256(content).hexdigest()


def with_models(store):
    for version in ("a@1", "a@2", "b@1"):
        now = datetime.now(UTC)
        store.register_model(
            ModelRow(id=version, name=version[0], family="vae", labels=["cat", "dog"], first_served=now)
        )
    return store


def prediction(content, label="cat", status=Status.KNOWN, model="a@1"):
    found = Prediction(input="x.png", status=status, label=label, probability=0.9, p_value=0.5)
    return NewPrediction(StoredImage(content, "image/png", 2, 3), found, model, 0.05, "request")


def test_stored_prediction_and_image_are_returned(store):
    (id,) = store.add([prediction(b"one")])
    found = store.prediction(id)
    assert (found.prediction.label, found.model, found.true_label) == ("cat", "a@1", None)
    assert store.image(found.image) == StoredImage(b"one", "image/png", 2, 3)
    assert store.prediction("nobody") is None
    assert store.image("0" * 64) is None


def test_identical_images_are_stored_once(store):
    store.add([prediction(b"same"), prediction(b"same"), prediction(b"other")])
    store.add([prediction(b"same")])
    assert sorted(store.files) == sorted({sha256(b"same"), sha256(b"other")})
    assert len(store.predictions(PredictionFilter())) == 4


def test_damaged_image_raises_checkpoint_error(store):
    (id,) = store.add([prediction(b"as it came")])
    key = store.prediction(id).image
    store.files.path(key).write_bytes(b"as it is")
    with pytest.raises(CheckpointError):
        store.image(key)


def test_pages_contain_each_prediction_once_newest_first(store):
    ids = [id for i in range(7) for id in store.add([prediction(b"%d" % j) for j in range(i)])]
    found, before = [], None
    while page := store.predictions(PredictionFilter(), before=before, limit=4):
        found += [each.id for each in page]
        before = page[-1].id
    assert found == ids[::-1]
    assert [each.id for each in store.iterate(PredictionFilter())] == ids[::-1]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.sampled_from(STATUSES), min_size=1), st.data())
def test_filter_returns_exactly_the_matching_predictions(tmp_path_factory, statuses, data):
    store = with_models(Store.open(tmp_path_factory.mktemp("store")))
    ids = store.add([prediction(b"%d" % i, status=status) for i, status in enumerate(statuses)])
    labeled = data.draw(st.sets(st.sampled_from(ids)))
    store.label(sorted(labeled), "dog", None)
    wanted, is_labeled = data.draw(st.sets(st.sampled_from(STATUSES))), data.draw(st.none() | st.booleans())
    found = {each.id for each in store.iterate(PredictionFilter(status=sorted(wanted), is_labeled=is_labeled))}
    matching = {id for id, status in zip(ids, statuses, strict=True) if not wanted or status in wanted}
    assert found == {id for id in matching if is_labeled is None or (id in labeled) == is_labeled}
    store.close()


def test_filter_matches_a_model_by_name_or_version(store):
    store.add([prediction(b"1", model=model) for model in ("a@1", "a@2", "b@1")])
    assert {each.model for each in store.iterate(PredictionFilter(model="a"))} == {"a@1", "a@2"}
    assert {each.model for each in store.iterate(PredictionFilter(model="a@2"))} == {"a@2"}
    assert not list(store.iterate(PredictionFilter(model="_")))


def test_disagreement_with_a_previous_version_is_marked(store):
    store.add([prediction(b"1", "cat", model="a@1"), prediction(b"2", "cat", model="a@1")])
    store.add([prediction(b"1", "dog", model="b@1")])  # another model
    ids = store.add([prediction(b"1", "dog", model="a@2"), prediction(b"2", "cat", model="a@2")])
    assert [store.prediction(id).disagrees_with_previous for id in ids] == [True, False]
    assert [each.id for each in store.iterate(PredictionFilter(disagrees_with_previous=True))] == ids[:1]


def test_labels_can_be_assigned_and_withdrawn(store):
    ids = store.add([prediction(b"1"), prediction(b"2")])
    assert store.label([*ids, "nobody"], "dog", None) == ids
    assert store.count(PredictionFilter(true_label="dog")) == {"known": 2}
    store.label(ids[:1], None, None)
    assert [each.id for each in store.iterate(PredictionFilter(is_labeled=True))] == ids[1:]


def test_class_stats_count_reviewed_predictions(store):
    known, other, doubt, strange = store.add(
        [
            prediction(b"1"),
            prediction(b"2"),
            prediction(b"3", status=Status.AMBIGUOUS),
            prediction(b"4", "dog", Status.UNKNOWN),
        ]
    )
    store.add([prediction(b"5", model="b@1")])
    store.label([known], "cat", None)
    store.label([other], "dog", None)
    store.label([doubt, strange], "cat", None)
    stats = store.class_stats("a")
    assert set(stats) == {"cat", "dog"}
    cat, dog = stats["cat"], stats["dog"]
    assert (cat.n_known, cat.n_ambiguous, cat.n_unknown, cat.n_right, cat.n_wrong, cat.n_missed) == (2, 1, 0, 1, 1, 2)
    assert (dog.n_known, dog.n_unknown, dog.n_missed) == (0, 1, 1)


def test_recovery_settles_staged_files_by_their_rows(store, open_store):
    (id,) = store.add([prediction(b"whole")])
    key = store.prediction(id).image
    store.files.path(key).rename(store.files.incoming / f"{key}.1")  # as if killed before it was moved
    (store.files.incoming / f"{sha256(b'half')}.2").write_bytes(b"ha")  # as if killed before its row was written
    (store.files.incoming / f"{sha256(b'old')}.removed").write_bytes(b"old")  # as if killed after its row was deleted
    assert store.image(key).content == b"whole"
    assert open_store().files.staged(), "without the lock, staged files stay"
    again = open_store(exclusive=True)
    assert again.files.staged() == {}
    assert list(again.files) == [key]


def test_only_one_process_opens_a_store_exclusively(open_store):
    first = open_store(exclusive=True)
    with pytest.raises(StoreError):
        open_store(exclusive=True)
    open_store().keys.add("beside", [Scope.READ])
    first.close()
    open_store(exclusive=True)


def test_lost_image_is_restored_by_the_next_prediction(store):
    (id,) = store.add([prediction(b"lost")])
    key = store.prediction(id).image
    store.files.path(key).unlink()
    store.add([prediction(b"lost")])
    assert store.image(key).content == b"lost"


@pytest.mark.parametrize("committed", [False, True])
def test_failed_commit_leaves_files_staged_until_recovery(open_store, monkeypatch, committed):
    store, commit = with_models(open_store()), Session.commit

    def lost(session):
        if committed:
            commit(session)
        raise ConnectionError

    monkeypatch.setattr(Session, "commit", lost)
    with pytest.raises(ConnectionError):
        store.add([prediction(b"1")])
    monkeypatch.undo()
    store.close()
    again = open_store(exclusive=True)
    assert list(again.files) == ([sha256(b"1")] if committed else [])
    assert len(again.predictions(PredictionFilter())) == committed
    assert again.files.staged() == {}


def test_failed_pruning_deletes_nothing(store, monkeypatch):
    (id,) = store.add([prediction(b"1")])
    monkeypatch.setattr(Session, "commit", lambda session: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        store.prune(-1)
    assert store.image(store.prediction(id).image).content == b"1"


def test_failed_write_leaves_neither_rows_nor_files(store):
    with pytest.raises(IntegrityError):
        store.add([prediction(b"1", model="nobody@1")])
    assert store.files.staged() == {}
    assert list(store.files) == []
    assert store.predictions(PredictionFilter()) == []


def test_pruning_deletes_old_unlabeled_predictions_with_their_images(store):
    ids = store.add([prediction(b"old"), prediction(b"old and labeled"), prediction(b"new")])
    store.label(ids[1:2], "dog", None)
    with Session(store.engine) as session, session.begin():
        for id in ids[:2]:
            session.get(PredictionRow, id).created -= timedelta(days=40)
    assert store.prune(30) == 1
    assert {each.id for each in store.iterate(PredictionFilter())} == set(ids[1:])
    assert sorted(store.files) == sorted({sha256(b"old and labeled"), sha256(b"new")})


def test_key_is_valid_until_revoked_or_expired(store):
    key, secret = store.keys.add("reader", [Scope.READ])
    assert store.keys.find(secret) == key
    assert key.invalid_reason is None
    assert key.may(Scope.READ)
    assert not key.may(Scope.LABEL)
    assert store.keys.find(secret + "x") is None
    assert store.keys.revoke(key.id)
    assert store.keys.find(secret).revoked is not None
    assert store.keys.find(secret).invalid_reason
    _, short = store.keys.add("short", [Scope.ADMIN], days=1e-9)
    assert store.keys.find(short).invalid_reason
    assert not store.keys.revoke("nobody")


def test_secrets_are_not_stored(tmp_path):
    store = Store.open(tmp_path / "store")
    key, secret = store.keys.add("first", [Scope.ADMIN])
    session = store.keys.log_in(key, 1)
    files = [path.read_bytes() for path in (tmp_path / "store").iterdir() if path.is_file()]
    assert files
    assert not any(word.encode() in content for word in (secret, session) for content in files)


def test_session_ends_by_expiry_logout_or_revocation(store):
    key, _ = store.keys.add("first", [Scope.ADMIN])
    one, two, over = store.keys.log_in(key, 1), store.keys.log_in(key, 1), store.keys.log_in(key, -1)
    assert store.keys.find_session(one) == key
    assert store.keys.find_session(over) is None
    store.keys.log_out(one)
    assert store.keys.find_session(one) is None
    store.keys.revoke(key.id)
    assert store.keys.find_session(two) is None


def test_store_of_a_later_version_is_refused(store, open_store):
    with store.engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(StoreError):
        open_store()


def test_store_schema_is_the_newest_revision(store):
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    with store.engine.connect() as connection:
        revision = connection.scalar(text("SELECT version_num FROM alembic_version"))
    assert revision == ScriptDirectory.from_config(config).get_current_head()
    assert is_current(store.engine)


@pytest.mark.parametrize("url", ["mysql://x/y", "nonsense"])
def test_unsupported_databases_are_refused(tmp_path, url):
    with pytest.raises(StoreError):
        Store.open(tmp_path / "store", url)


def test_backup_can_be_restored_completely(store, tmp_path):
    ids = store.add([prediction(b"1"), prediction(b"2")])
    store.label(ids[:1], "dog", None)
    key, secret = store.keys.add("first", [Scope.ADMIN])
    assert backup(store, tmp_path / "backup") == 2
    with pytest.raises(StoreError):
        backup(store, tmp_path / "backup")
    assert restore(tmp_path / "backup", tmp_path / "again", None) == 2
    again = Store.open(tmp_path / "again")
    assert [each.id for each in again.iterate(PredictionFilter())] == ids[::-1]
    assert again.prediction(ids[0]).true_label == "dog"
    assert again.image(again.prediction(ids[1]).image).content == b"2"
    assert again.keys.find(secret) == key
    again.close()
    with pytest.raises(StoreError):
        restore(tmp_path, tmp_path / "other", None)


def test_backup_excludes_predictions_added_meanwhile(store, tmp_path):
    ids = store.add([prediction(b"1"), prediction(b"2")])
    later = []

    def progress(done, total):
        if done == 1:
            later.extend(store.add([prediction(b"3")]))

    assert backup(store, tmp_path / "backup", progress) == 2
    copy = Store.open(tmp_path / "backup")
    assert later
    assert {each.id for each in copy.iterate(PredictionFilter())} == set(ids)
    assert sorted(copy.files) == sorted({sha256(b"1"), sha256(b"2")})
    copy.close()


def test_backup_of_encrypted_images_is_encrypted(tmp_path):
    keys = Keyring([bytes(32)])
    store = with_models(Store.open(tmp_path / "store", keys=keys))
    (id,) = store.add([prediction(b"secret picture")])
    key = store.prediction(id).image
    store.close()
    backup(Store.open(tmp_path / "store"), tmp_path / "backup")
    again = Store.open(tmp_path / "backup", keys=keys)
    assert b"secret" not in again.files.path(key).read_bytes()
    assert again.image(key).content == b"secret picture"
    again.close()


def test_unreachable_database_error_hides_the_password(tmp_path):
    with pytest.raises(StoreError) as raised:
        Store.open(tmp_path / "store", "postgresql://me:hunter2@127.0.0.1:1/likely")
    assert "hunter2" not in str(raised.value)
    with pytest.raises(StoreError) as raised:
        Store.open(tmp_path / "store", "postgresql//me:hunter2@here")
    assert "hunter2" not in str(raised.value)


def test_images_are_encrypted_and_can_change_keys(tmp_path):
    old, new = Keyring([bytes(32)]), Keyring([bytes([1]) * 32])
    store = with_models(Store.open(tmp_path / "store", keys=old))
    (id,) = store.add([prediction(b"secret picture")])
    key = store.prediction(id).image
    assert b"secret" not in store.files.path(key).read_bytes()
    assert store.image(key).content == b"secret picture"
    store.close()
    store = Store.open(tmp_path / "store", keys=Keyring([bytes([1]) * 32, bytes(32)]))
    assert store.files.encrypt_all() == 1
    store.close()
    for keys, opens in ((new, True), (old, False), (None, False)):
        store = Store.open(tmp_path / "store", keys=keys)
        if opens:
            assert store.image(key).content == b"secret picture"
        else:
            with pytest.raises(CheckpointError):
                store.image(key)
        store.close()


def test_row_ids_ascend():
    ids = [row_id() for _ in range(5000)]
    assert ids == sorted(set(ids))
