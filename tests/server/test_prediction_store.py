"""The store: what it took in it has, and after a crash there is neither a row without a file nor a file without a row."""

import hashlib
import uuid
from datetime import UTC, datetime, timedelta

import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory
from databases import postgresql
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import func, select, text
from sqlalchemy.orm import Session

from likely.checkpoint.encryption import Keyring
from likely.exceptions import CheckpointError, StoreError
from likely.prediction import Prediction, Status
from likely.server.store import NewPrediction, PredictionFilter, Scope, Store, StoredImage
from likely.server.store.backup import _freeze, backup, restore
from likely.server.store.db import MIGRATIONS, _revisions
from likely.server.store.schema import ImageRow, ModelRow, PredictionRow, row_id

STATUSES = (Status.KNOWN, Status.AMBIGUOUS, Status.UNKNOWN)


@pytest.fixture(scope="session")
def server():
    with postgresql() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
def opened(request, tmp_path):
    """What opens the store of a test, again and again."""
    url = None
    if request.param == "postgresql":
        url = request.getfixturevalue("server").created(uuid.uuid4().hex)
    made = []

    def again(**how):
        made.append(Store.open(tmp_path / "store", url, **how))
        return made[-1]

    yield again
    for each in made:
        each.close()


@pytest.fixture
def store(opened):
    return filled(opened())


def sha256(content):
    return hashlib.sha256(content).hexdigest()


def filled(store):
    for version in ("a@1", "a@2", "b@1"):
        now = datetime.now(UTC)
        store.register_model(
            ModelRow(id=version, name=version[0], family="vae", labels=["cat", "dog"], first_served=now)
        )
    return store


def answered(content, label="cat", status=Status.KNOWN, model="a@1"):
    answer = Prediction(input="x.png", status=status, label=label, probability=0.9, p_value=0.5)
    return NewPrediction(StoredImage(content, "image/png", 2, 3), answer, model, 0.05, "request")


def test_what_went_in_comes_out(store):
    (id,) = store.add([answered(b"one")])
    found = store.prediction(id)
    assert (found.prediction.label, found.model, found.true_label) == ("cat", "a@1", None)
    assert store.image(found.image) == StoredImage(b"one", "image/png", 2, 3)
    assert store.prediction("nobody") is None
    assert store.image("0" * 64) is None


def test_an_image_is_kept_once(store):
    store.add([answered(b"same"), answered(b"same"), answered(b"other")])
    store.add([answered(b"same")])
    assert sorted(store.files) == sorted({sha256(b"same"), sha256(b"other")})
    assert len(store.predictions(PredictionFilter())) == 4


def test_an_image_that_was_changed_on_the_disk_is_not_shown(store):
    (id,) = store.add([answered(b"as it came")])
    key = store.prediction(id).image
    store.files.path(key).write_bytes(b"as it is")
    with pytest.raises(CheckpointError, match=key):
        store.image(key)


def test_pages_hold_everything_once_and_the_newest_first(store):
    ids = [id for i in range(7) for id in store.add([answered(b"%d" % j) for j in range(i)])]
    found, before = [], None
    while page := store.predictions(PredictionFilter(), before=before, limit=4):
        found += [each.id for each in page]
        before = page[-1].id
    assert found == ids[::-1]
    assert [each.id for each in store.iterate(PredictionFilter())] == ids[::-1]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.sampled_from(STATUSES), min_size=1), st.data())
def test_a_filter_lets_through_what_it_says_and_nothing_else(tmp_path_factory, statuses, data):
    store = filled(Store.open(tmp_path_factory.mktemp("store")))
    ids = store.add([answered(b"%d" % i, status=status) for i, status in enumerate(statuses)])
    labeled = data.draw(st.sets(st.sampled_from(ids)))
    store.label(sorted(labeled), "dog", None)
    wanted, said = data.draw(st.sets(st.sampled_from(STATUSES))), data.draw(st.nothing() | st.booleans())
    found = {each.id for each in store.iterate(PredictionFilter(status=sorted(wanted), is_labeled=said))}
    through = {id for id, status in zip(ids, statuses, strict=True) if not wanted or status in wanted}
    assert found == {id for id in through if said is None or (id in labeled) == said}
    store.close()


def test_models_are_filtered_by_name_and_by_version(store):
    store.add([answered(b"1", model=model) for model in ("a@1", "a@2", "b@1")])
    assert {each.model for each in store.iterate(PredictionFilter(model="a"))} == {"a@1", "a@2"}
    assert {each.model for each in store.iterate(PredictionFilter(model="a@2"))} == {"a@2"}
    assert not list(store.iterate(PredictionFilter(model="_")))


def test_what_another_version_says_otherwise_is_marked(store):
    store.add([answered(b"1", "cat", model="a@1"), answered(b"2", "cat", model="a@1")])
    store.add([answered(b"1", "dog", model="b@1")])  # another model, and no change of this one
    ids = store.add([answered(b"1", "dog", model="a@2"), answered(b"2", "cat", model="a@2")])
    assert [store.prediction(id).disagrees_with_previous for id in ids] == [True, False]
    assert [each.id for each in store.iterate(PredictionFilter(disagrees_with_previous=True))] == ids[:1]


def test_labels_are_given_and_taken_back(store):
    ids = store.add([answered(b"1"), answered(b"2")])
    assert store.label([*ids, "nobody"], "dog", None) == ids
    assert store.count(PredictionFilter(true_label="dog")) == {"known": 2}
    store.label(ids[:1], None, None)
    assert [each.id for each in store.iterate(PredictionFilter(is_labeled=True))] == ids[1:]


def test_what_people_found_of_a_class_is_counted(store):
    known, other, doubt, strange = store.add(
        [answered(b"1"), answered(b"2"), answered(b"3", status=Status.AMBIGUOUS), answered(b"4", "dog", Status.UNKNOWN)]
    )
    store.add([answered(b"5", model="b@1")])
    store.label([known], "cat", None)
    store.label([other], "dog", None)
    store.label([doubt, strange], "cat", None)
    figures = store.class_stats("a")
    assert set(figures) == {"cat", "dog"}
    cat, dog = figures["cat"], figures["dog"]
    assert (cat.n_known, cat.n_ambiguous, cat.n_unknown, cat.n_right, cat.n_wrong, cat.n_missed) == (2, 1, 0, 1, 1, 2)
    assert (dog.n_known, dog.n_unknown, dog.n_missed) == (0, 1, 1)


def test_files_without_a_row_are_gone_after_a_crash_and_those_with_one_in_their_place(store, opened):
    (id,) = store.add([answered(b"whole")])
    key = store.prediction(id).image
    store.files.path(key).rename(store.files.incoming / f"{key}.1")  # as if killed before it was settled
    (store.files.incoming / f"{sha256(b'half')}.2").write_bytes(b"ha")  # as if killed before the row was there
    (store.files.incoming / f"{sha256(b'old')}.removed").write_bytes(b"old")  # as if killed once the row was gone
    assert store.image(key).content == b"whole"
    assert opened().files.staged(), "who only looks leaves a service's files alone"
    again = opened(exclusive=True)
    assert again.files.staged() == {}
    assert list(again.files) == [key]


def test_one_at_a_time_puts_a_store_in_order(opened):
    first = opened(exclusive=True)
    with pytest.raises(StoreError, match="has the store"):
        opened(exclusive=True)
    opened().keys.add("beside", [Scope.READ])
    first.close()
    opened(exclusive=True)


def test_an_image_that_was_lost_is_kept_when_it_comes_again(store):
    (id,) = store.add([answered(b"lost")])
    key = store.prediction(id).image
    store.files.path(key).unlink()
    store.add([answered(b"lost")])
    assert store.image(key).content == b"lost"


@pytest.mark.parametrize("committed", [False, True])
def test_files_wait_if_nobody_knows_whether_their_rows_are_there(opened, monkeypatch, committed):
    store, commit = filled(opened()), Session.commit

    def lost(session):
        if committed:
            commit(session)
        raise OSError("the line is dead")

    monkeypatch.setattr(Session, "commit", lost)
    with pytest.raises(OSError, match="dead"):
        store.add([answered(b"1")])
    monkeypatch.undo()
    store.close()
    again = opened(exclusive=True)
    assert list(again.files) == ([sha256(b"1")] if committed else [])
    assert len(again.predictions(PredictionFilter())) == committed
    assert again.files.staged() == {}


def test_forgetting_that_fails_forgets_nothing(store, monkeypatch):
    (id,) = store.add([answered(b"1")])
    monkeypatch.setattr(Session, "commit", lambda session: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        store.prune(-1)
    assert store.image(store.prediction(id).image).content == b"1"


def test_nothing_is_left_of_answers_that_could_not_be_written(store):
    with pytest.raises(Exception, match=r"(?i)foreign key"):
        store.add([answered(b"1", model="nobody@1")])
    assert store.files.staged() == {}
    assert list(store.files) == []
    assert store.predictions(PredictionFilter()) == []


def test_old_predictions_that_nobody_labeled_are_forgotten_with_their_images(store):
    ids = store.add([answered(b"old"), answered(b"old and labeled"), answered(b"new")])
    store.label(ids[1:2], "dog", None)
    with Session(store.engine) as session, session.begin():
        for id in ids[:2]:
            session.get(PredictionRow, id).created -= timedelta(days=40)
    assert store.prune(30) == 1
    assert {each.id for each in store.iterate(PredictionFilter())} == set(ids[1:])
    assert sorted(store.files) == sorted({sha256(b"old and labeled"), sha256(b"new")})


def test_a_key_opens_until_it_is_revoked_or_expires(store):
    key, secret = store.keys.add("reader", [Scope.READ])
    assert store.keys.find(secret) == key
    assert key.may(Scope.READ)
    assert not key.may(Scope.LABEL)
    assert store.keys.find(secret + "x") is None
    assert store.keys.revoke(key.id)
    assert "revoked" in store.keys.find(secret).invalid_reason
    _, short = store.keys.add("short", [Scope.ADMIN], days=1e-9)
    assert "expired" in store.keys.find(short).invalid_reason
    assert not store.keys.revoke("nobody")


def test_secrets_are_not_in_the_store(tmp_path):
    store = Store.open(tmp_path / "store")
    key, secret = store.keys.add("first", [Scope.ADMIN])
    session = store.keys.log_in(key, 1)
    files = [path.read_bytes() for path in (tmp_path / "store").iterdir() if path.is_file()]
    assert files
    assert not any(word.encode() in content for word in (secret, session) for content in files)


def test_a_session_ends_with_its_time_its_log_out_or_its_key(store):
    key, _ = store.keys.add("first", [Scope.ADMIN])
    one, two, over = store.keys.log_in(key, 1), store.keys.log_in(key, 1), store.keys.log_in(key, -1)
    assert store.keys.find_session(one) == key
    assert store.keys.find_session(over) is None
    store.keys.log_out(one)
    assert store.keys.find_session(one) is None
    store.keys.revoke(key.id)
    assert store.keys.find_session(two) is None


def test_a_store_of_a_later_version_is_left_alone(store, opened):
    with store.engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(StoreError, match="later version"):
        opened()


def test_revisions_are_told_by_their_files():
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    scripts = ScriptDirectory.from_config(config)
    assert _revisions() == [script.revision for script in reversed(list(scripts.walk_revisions()))]
    assert _revisions()[-1] == scripts.get_current_head()


@pytest.mark.parametrize("url", ["mysql://x/y", "nonsense"])
def test_other_databases_are_refused_with_a_sentence(tmp_path, url):
    with pytest.raises(StoreError, match=r"database"):
        Store.open(tmp_path / "store", url)


def test_a_backup_is_the_store_at_one_moment_and_comes_back_whole(store, tmp_path):
    ids = store.add([answered(b"1"), answered(b"2")])
    store.label(ids[:1], "dog", None)
    key, secret = store.keys.add("first", [Scope.ADMIN])
    assert backup(store, tmp_path / "backup") == 2
    with pytest.raises(StoreError, match="not empty"):
        backup(store, tmp_path / "backup")
    assert restore(tmp_path / "backup", tmp_path / "again", None) == 2
    again = Store.open(tmp_path / "again")
    assert [each.id for each in again.iterate(PredictionFilter())] == ids[::-1]
    assert again.prediction(ids[0]).true_label == "dog"
    assert again.image(again.prediction(ids[1]).image).content == b"2"
    assert again.keys.find(secret) == key
    again.close()
    with pytest.raises(StoreError, match="no backup"):
        restore(tmp_path, tmp_path / "other", None)


def test_what_comes_while_a_backup_is_made_is_not_in_it(store):
    store.add([answered(b"1")])
    with store.engine.connect() as connection:
        _freeze(connection)
        before = connection.scalar(select(func.count()).select_from(ImageRow))
        store.add([answered(b"2")])
        assert connection.scalar(select(func.count()).select_from(PredictionRow)) == before == 1


def test_a_backup_of_sealed_images_is_sealed(tmp_path):
    keys = Keyring([bytes(32)])
    store = filled(Store.open(tmp_path / "store", keys=keys))
    (id,) = store.add([answered(b"secret picture")])
    key = store.prediction(id).image
    store.close()
    backup(Store.open(tmp_path / "store"), tmp_path / "backup")
    again = Store.open(tmp_path / "backup", keys=keys)
    assert b"secret" not in again.files.path(key).read_bytes()
    assert again.image(key).content == b"secret picture"
    again.close()


def test_a_database_that_is_not_there_is_told_without_its_password(tmp_path):
    with pytest.raises(StoreError, match="cannot be reached") as told:
        Store.open(tmp_path / "store", "postgresql://me:hunter2@127.0.0.1:1/likely")
    assert "hunter2" not in str(told.value)
    with pytest.raises(StoreError) as told:
        Store.open(tmp_path / "store", "postgresql//me:hunter2@here")
    assert "hunter2" not in str(told.value)


def test_images_are_sealed_on_the_disk_and_their_key_can_be_changed(tmp_path):
    old, new = Keyring([bytes(32)]), Keyring([bytes([1]) * 32])
    store = filled(Store.open(tmp_path / "store", keys=old))
    (id,) = store.add([answered(b"secret picture")])
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


def test_ids_ascend():
    ids = [row_id() for _ in range(5000)]
    assert ids == sorted(set(ids))
