"""Training into a model folder: identical weights however often it is interrupted."""

import json
import signal
import subprocess
import sys
import time
from collections import Counter

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file
from sklearn.datasets import load_digits

from likely.checkpoint import read_document
from likely.classifier import load
from likely.classifier.auto import BACKBONE
from likely.data import listing
from likely.data.dataset import Dataset, LabeledImages
from likely.data.image_dataset import ArrayDataset
from likely.data.loading import load_dataset
from likely.data.preprocessing import ImageFormat, write_image
from likely.data.splits import Splits
from likely.evaluation.evaluate import N_TIMED
from likely.evaluation.training_record import TrainingRecord, read_history
from likely.exceptions import DataError, TrainConfigError
from likely.experiment import (
    SAMPLES_PER_CLASS,
    TRAINING_STATE,
    TrainConfig,
    held_out_splits,
    prepare,
    resume_run,
    start_run,
)
from likely.experiment.label_check import LabelCheck
from likely.features.feature_extractors import RandomConvolutions
from likely.training.options import TrainingOptions

TINY = {"latent_dims": 4, "width": 4}
N_SOME = 500


def tiny_run(data):
    training = TrainingOptions(epochs=4, batch_size=64, threads=1)
    return TrainConfig(data=str(data), model="vaegan", options=TINY, training=training, label_check_folds=0)


def returned_by(generator):
    """Run a generator to its end, and return its value."""
    while True:
        try:
            next(generator)
        except StopIteration as end:
            return end.value


def drained(session):
    session.run()
    return session


def weights(folder):
    return load_file(folder / "model.safetensors")


@pytest.fixture(scope="module")
def some(tmp_path_factory):
    """A file of a few digits."""
    data, path = load_digits(), tmp_path_factory.mktemp("data") / "some.npz"
    np.savez(path, x=(data.images[:N_SOME] * 15).astype(np.uint8), y=data.target[:N_SOME])
    return path


@pytest.fixture(scope="module")
def uninterrupted(some, tmp_path_factory):
    out = tmp_path_factory.mktemp("run") / "whole"
    drained(start_run(tiny_run(some), out))
    return out


def test_training_writes_all_files_of_a_model_folder(some, uninterrupted):
    assert {path.name for path in uninterrupted.iterdir()} == {
        "model.safetensors",
        "model.json",
        "README.md",
        "history.csv",
        "report.html",
    }
    document = json.loads((uninterrupted / "model.json").read_text())
    assert document["record"]["source"] == str(some)
    assert document["training"]["epochs"] == 4
    assert (uninterrupted / "history.csv").read_text().count("\n") == 5


def test_features_of_an_image_are_computed_once(tmp_path, monkeypatch):
    monkeypatch.setenv("LIKELY_CACHE", str(tmp_path / "cache"))
    monkeypatch.setitem(RandomConvolutions.__init__.__kwdefaults__, "n_filters", 8)
    made, forward = [], RandomConvolutions.forward
    monkeypatch.setattr(RandomConvolutions, "forward", lambda self, x: made.append(len(x)) or forward(self, x))
    session = drained(
        start_run(TrainConfig(data="digits", model="gaussian", features={"features": "random"}), tmp_path / "out")
    )
    splits = session.setup.splits
    once = len(splits.train) + len(splits.validation) + len(splits.calibration)
    assert sum(made) == once + N_TIMED  # which the report's speed is measured by


def test_training_resumed_after_any_step_ends_with_identical_weights(some, uninterrupted, tmp_path):
    n_steps = int(read_history(uninterrupted)[-1]["step"])
    for stop in np.random.default_rng(0).choice(np.arange(1, n_steps), 2, replace=False).tolist():
        session = start_run(tiny_run(some), tmp_path / str(stop))
        for step in session.steps():
            if step.number == stop:
                session.save_progress()
                break
        drained(resume_run(tmp_path / str(stop)))
        for name, expected in weights(uninterrupted).items():
            assert expected.equal(weights(tmp_path / str(stop))[name]), (stop, name)


def test_killed_training_resumes_to_identical_weights(some, uninterrupted, tmp_path):
    """Sends SIGKILL at a random time after the first saved step."""
    out = tmp_path / "killed"
    program = (
        "import sys, pathlib; import likely.experiment.train as session; session.SAVE_EVERY = 0.02\n"
        "sys.path.insert(0, sys.argv[2]); from test_train import start_run, tiny_run, drained\n"
        "drained(start_run(tiny_run(sys.argv[3]), pathlib.Path(sys.argv[1])))"
    )
    process = subprocess.Popen([sys.executable, "-c", program, out, __file__.rpartition("/")[0], some])
    deadline = time.monotonic() + 60
    while not (out / TRAINING_STATE).exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(np.random.default_rng().uniform(0, 0.1))
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (out / "model.json").exists()
    drained(resume_run(out))
    for name, expected in weights(uninterrupted).items():
        assert expected.equal(weights(out)[name]), name


def test_stopped_training_is_saved_and_can_be_resumed(some, tmp_path):
    session = start_run(tiny_run(some), tmp_path / "m")
    for phase in session.phases():
        for step in phase.steps:
            if step.ends_epoch:
                break
    assert (tmp_path / "m" / TRAINING_STATE).exists()
    assert load(tmp_path / "m").labels == tuple("0123456789")
    drained(resume_run(tmp_path / "m"))
    assert not (tmp_path / "m" / TRAINING_STATE).exists()


def test_resume_rejects_changed_data(tmp_path):
    data, images = tmp_path / "some.npz", np.random.default_rng(0).integers(0, 256, (60, 8, 8), np.uint8)
    np.savez(data, x=images, y=np.arange(60) % 3)
    training = TrainingOptions(epochs=3, batch_size=16, threads=1)
    session = start_run(
        TrainConfig(data=str(data), model="vaegan", options=TINY, training=training, label_check_folds=0),
        tmp_path / "m",
    )
    next(iter(session.steps()))
    session.save_progress()
    np.savez(data, x=255 - images, y=np.arange(60) % 3)
    with pytest.raises(TrainConfigError, match="some"):
        resume_run(tmp_path / "m")


def test_resumed_training_continues_its_schedule_of_minutes(tmp_path):
    training = TrainingOptions(minutes=0.03, batch_size=64, threads=1)
    session = start_run(
        TrainConfig(data="digits", model="vaegan", options=TINY, training=training, label_check_folds=0), tmp_path / "m"
    )
    for step in session.steps():
        if step.fraction > 0.4:
            session.save_progress()
            break
    following = next(iter(resume_run(tmp_path / "m").steps()))
    assert following.number == step.number + 1
    assert step.fraction < following.fraction < 1
    assert following.elapsed >= step.elapsed


def test_start_rejects_a_folder_that_is_not_empty(some, tmp_path):
    (tmp_path / "precious.txt").write_text("mine")
    with pytest.raises(TrainConfigError, match="--overwrite"):
        start_run(tiny_run(some), tmp_path)


def test_resume_rejects_folders_without_an_unfinished_training(uninterrupted, tmp_path):
    with pytest.raises(TrainConfigError, match="--resume"):
        resume_run(tmp_path)
    with pytest.raises(TrainConfigError, match="--resume"):
        resume_run(uninterrupted)


def test_training_reads_no_test_image(tmp_path):
    """The digits have a test split of their own, of which the model must not know a single image."""
    drained(start_run(TrainConfig(data="digits", model="gaussian", label_check_folds=0), tmp_path / "m"))
    test = load_dataset("digits", splits=("test",)).test
    known = load(tmp_path / "m").hashes
    train = load_dataset("digits", splits=("train",)).train
    assert np.isin(train.hashes, known).mean() > 0.99
    assert np.isin(test.hashes, known).mean() < 0.02  # two digits drawn alike may be in both


def test_label_check_finds_wrong_labels(tmp_path):
    train = load_dataset("digits", splits=("train",)).train
    images, labels = train.images.batch(np.arange(600)).numpy()[:, 0], train.labels[:600].copy()
    flipped = np.arange(0, 600, 50)
    labels[flipped] = (labels[flipped] + 1) % 10
    np.savez(tmp_path / "some.npz", x=images, y=labels)
    run = TrainConfig(
        data=str(tmp_path / "some.npz"), model="gaussian", options={"covariance": "tied"}, label_check_folds=3
    )
    session = start_run(run, tmp_path / "m")
    session.run()
    named = {int(name.split("[")[1][:-1]) for name in session.content.label_issues.files[:6]}
    assert len(named & set(flipped.tolist())) >= 4


def test_groups_are_on_one_side_of_every_fold_of_the_label_check_and_classes_of_few_groups_train():
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(24), 3)
    labels = np.where(groups < 2, 2, groups % 2)  # the third class has two groups
    images = LabeledImages(
        ArrayDataset(rng.integers(0, 256, (72, 1, 8, 8), np.uint8), str), labels, np.arange(72), groups
    )
    none = images.subset([])
    dataset = Dataset("made", ("a", "b", "few"), images, None, None, (), ImageFormat(channels=1, height=8, width=8))
    config = TrainConfig(data="made", training=TrainingOptions(epochs=2, batch_size=36, threads=1), label_check_folds=3)
    splits = Splits(images, none, none, None, unknown=images.images)  # which the classifiers do not learn from
    steps = LabelCheck(config, dataset, splits).fold_classifiers()
    classifiers = returned_by(steps)
    trained_on = np.array([np.isin(images.hashes, each.hashes) for each in classifiers])  # (folds, N)
    assert (trained_on.sum(0) == np.where(labels == 2, 3, 2)).all()
    for g in range(24):
        assert (trained_on[:, groups == g] == trained_on[:, groups == g][:, :1]).all()


def test_notes_name_classes_of_few_groups(tmp_path):
    lines = [f"{i}.png,{'abc'[min(i // 8, 2)]},{i // 4}" for i in range(20)]  # two groups each of a and b, one of c
    for i in range(20):
        Image.fromarray(np.random.default_rng(i).integers(0, 256, (8, 8), np.uint8)).save(tmp_path / f"{i}.png")
    (tmp_path / "all.csv").write_text("\n".join(["file_name,label,group", *lines]))
    notes = prepare(TrainConfig(data=str(tmp_path / "all.csv"), model="gaussian")).group_notes
    assert "5 groups" in notes[0]
    assert all(name in notes[1].split("out of")[1] for name in "abc")


def test_sample_quality_is_measured_and_recorded(tmp_path):
    training = TrainingOptions(epochs=2, batch_size=64, threads=1)
    session = start_run(TrainConfig(data="digits", model="vaegan", options=TINY, training=training), tmp_path / "m")
    session.run()
    before = session.predictor.id
    found = TrainingRecord.model_validate(read_document(tmp_path / "m")["record"]).sample_quality
    assert found.class_consistency.n_generated == (SAMPLES_PER_CLASS,) * 10
    assert found.class_consistency.real_accuracy > 0.5
    assert found.near_duplicates.n == 10 * SAMPLES_PER_CLASS
    assert "softmax" in found.class_consistency.classifier
    assert load(tmp_path / "m").id == before


def test_training_that_ends_within_an_epoch_is_validated(tmp_path):
    training = TrainingOptions(minutes=0.002, batch_size=16, threads=1)
    session = start_run(
        TrainConfig(data="digits", model="vaegan", options=TINY, training=training, label_check_folds=0), tmp_path / "m"
    )
    steps = list(session.steps())
    assert steps[-1].fraction == 1
    assert "nll" in steps[-1].validation
    assert len(session.history) == sum(step.ends_epoch for step in steps) >= 1


def test_memorization_is_measured_on_held_out_images(uninterrupted):
    found = TrainingRecord.model_validate(read_document(uninterrupted)["record"]).memorization
    assert found.membership_inference.low <= found.membership_inference.auroc <= found.membership_inference.high
    assert found.nn_memorization.n == 10 * SAMPLES_PER_CLASS
    assert found.nn_memorization.expected < found.nn_memorization.n_nearest


def test_repeats_use_other_splits_and_are_recorded(tmp_path):
    training = TrainingOptions(epochs=1, batch_size=64, threads=1)
    run = TrainConfig(data="digits", model="gaussian", training=training, label_check_folds=0, repeats=3)
    session = start_run(run, tmp_path / "m")
    session.run()
    trials = TrainingRecord.model_validate(read_document(tmp_path / "m")["record"]).repeats
    assert [trial.seed for trial in trials] == [1, 2, 3]
    assert len({trial.accuracy for trial in trials}) > 1
    n = trials[0].n_train + trials[0].n_test
    assert 0.15 < trials[0].n_test / n < 0.35  # a fifth, of what calibration and validation leave


def test_held_out_splits_are_found_again_or_rejected(uninterrupted, tmp_path):
    classifier = load(uninterrupted)
    splits = held_out_splits(classifier, uninterrupted)
    assert np.isin(splits.calibration.hashes, classifier.hashes).all()
    images = np.zeros((40, 8, 8), np.uint8) + np.arange(40, dtype=np.uint8)[:, None, None]
    np.savez(tmp_path / "other.npz", x=images, y=np.arange(40) % 10)
    with pytest.raises(DataError, match=r"other\.npz"):
        held_out_splits(classifier, uninterrupted, str(tmp_path / "other.npz"))


def test_photographs_are_trained_on_features_of_the_embedded_backbone_by_default(tmp_path, monkeypatch):
    monkeypatch.delenv(BACKBONE, raising=False)
    for name in "ab":
        (tmp_path / name).mkdir()
        for i in range(6):
            pixels = np.random.default_rng(i).integers(0, 256, (3, 64, 72), np.uint8)
            write_image(tmp_path / name / f"{i}.png", pixels)
    setup = prepare(TrainConfig(data=str(tmp_path), model="auto"))
    config = setup.config
    assert (config.model, config.features.backbone, config.features.backbone_stages) == ("gaussian", "lite0", 8)
    assert (config.images.size, config.images.resize, config.images.resample) == ((224, 224), "crop", "bicubic")
    assert setup.dataset.format.resample == "bicubic"
    assert "lite0" in setup.choice.reason
    assert "--backbone none" in setup.choice.reason
    pixels = prepare(TrainConfig(data=str(tmp_path), model="auto", features={"backbone": "none"}))
    assert pixels.config.features.kind == "pixels"
    assert pixels.dataset.format.shape == (3, 64, 64)
    assert pixels.dataset.format.resample == "lanczos"
    resumed = TrainConfig.model_validate(setup.config.model_dump())
    assert prepare(resumed).config == setup.config


def test_prepare_lists_the_data_and_reads_each_header_once(tmp_path, monkeypatch):
    for name in "ab":
        (tmp_path / name).mkdir()
        for i in range(6):
            pixels = np.random.default_rng(i).integers(0, 256, (3, 16, 16), np.uint8)
            write_image(tmp_path / name / f"{i}.png", pixels)
    calls = Counter()

    def count(name):
        function = getattr(listing, name)
        monkeypatch.setattr(listing, name, lambda *args: calls.update([(name, *map(str, args[:1]))]) or function(*args))

    for name in ("list_folder", "read_header"):
        count(name)
    monkeypatch.setenv(BACKBONE, "somewhere")
    assert prepare(TrainConfig(data=str(tmp_path), model="auto")).choice.features.kind == "random"
    assert len(calls) == 1 + 12
    assert set(calls.values()) == {1}
