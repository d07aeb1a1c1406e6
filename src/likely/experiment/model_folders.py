"""Model folders: a run begun in one, gone on with, or found again by what was saved there."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

from likely import checkpoint
from likely.classifier import Predictor, save
from likely.data.loading import load_dataset
from likely.data.splits import Splits, make_splits
from likely.evaluation.training_record import TrainingRecord, read_history, write_history
from likely.exceptions import DataError, TrainConfigError
from likely.experiment.config import TrainConfig
from likely.experiment.label_check import BASELINE_FAMILY
from likely.experiment.outputs import write_pages
from likely.experiment.train import TRAINING_STATE, TrainingRun, drop_empty_classes
from likely.reporting.build import ReportInputs, build_report
from likely.training.options import TrainingOptions


def start_run(
    run: TrainConfig, out: Path, *, command: str = "", progress: Callable[[int, int], None] | None = None
) -> TrainingRun:
    """A new run; a TrainConfigError if `out` already holds something."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        unfinished = (out / TRAINING_STATE).exists()
        way_on = "--resume goes on with the training that it holds, " if unfinished else ""
        raise TrainConfigError(
            f"{out} is not empty; {way_on}--overwrite replaces it, or name another folder with --out"
        )
    return TrainingRun(run, out, command=command, progress=progress)


def resume_run(
    out: Path, *, data: str | None = None, command: str = "", progress: Callable[[int, int], None] | None = None
) -> TrainingRun:
    """The unfinished run of a folder, with the options that it was begun with; a TrainConfigError if there is none.

    `data` is where DATA is now, if it is named differently from then.
    """
    if not (out / TRAINING_STATE).exists():
        state = "its training is complete" if (out / checkpoint.DOCUMENT).exists() else "no training was begun there"
        raise TrainConfigError(f"{out} has nothing to resume: {state}; leave out --resume to train anew")
    tensors, document = checkpoint.read_tensors(out / TRAINING_STATE)
    run = TrainConfig.from_stored(document["run"] | ({"data": data} if data else {}))
    return TrainingRun(run, out, command=command, snapshot=(tensors, document["state"]), progress=progress)


def load_unfinished_config(out: Path) -> TrainConfig:
    """The options of a folder's unfinished run."""
    return TrainConfig.from_stored(checkpoint.read_tensors(out / TRAINING_STATE)[1]["run"])


def load_config(folder: Path) -> TrainConfig:
    """The run that made a model folder; a DataError if it was saved from Python, which keeps none."""
    return TrainConfig.from_stored(_stored(folder, "run"))


def load_record(folder: Path, trust: checkpoint.TrustPolicy | None = None) -> TrainingRecord:
    """What is remembered of a model folder's making; a DataError if it was saved from Python."""
    return TrainingRecord.from_stored(_stored(folder, "record", trust))


def _config_of_all_classes(folder: Path, otherwise: str) -> TrainConfig:
    """The run that made all that the model knows; a DataError if it has learned classes since."""
    if added := load_record(folder).added_classes:
        raise DataError(f"{folder} has learned {', '.join(map(repr, added))} since, {otherwise}")
    return load_config(folder)


def _stored(folder: Path, name: str, trust: checkpoint.TrustPolicy | None = None) -> Any:
    document = checkpoint.read_document(folder, trust)
    if name not in document:
        raise DataError(
            f"{folder} was saved from Python, and does not say what it was trained on; `likely train` would"
        )
    return document[name]


def held_out_splits(
    classifier: Predictor,
    folder: Path,
    data: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Splits:
    """The images that a model folder's training set aside, read again from where they were, or from `data`; a DataError if
    they are not there any more."""
    run = _config_of_all_classes(folder, "from images that nobody kept count of")
    source = data or run.data
    dataset = drop_empty_classes(
        load_dataset(source, run.images, splits=("train", "validation"), progress=progress), run.seed
    )
    parts = make_splits(dataset, run.seed)
    known = [np.isin(part.hashes, classifier.hashes) for part in (parts.train, parts.validation, parts.calibration)]
    if dataset.classes != classifier.labels or not all(found.all() for found in known):
        raise DataError(f"{source} does not hold the images that {folder} was trained on, as they were then")
    return parts


def baseline_run(
    folder: Path, out: Path, *, data: str | None = None, progress: Callable[[int, int], None] | None = None
) -> TrainingRun:
    """A training of the softmax twin of a model folder: the same data, trunk, length and seed."""
    run = _config_of_all_classes(folder, "and a twin of it cannot")
    training = run.main_training
    shared = {name: run.options[name] for name in ("width", "depth") if name in run.options}
    kept = {
        name: getattr(training, name) for name in ("epochs", "minutes", "threads", "device", "precision", "augment")
    }
    twin = TrainConfig(
        data=data or run.data,
        model=BASELINE_FAMILY,
        options=shared,
        training=TrainingOptions(**{name: value for name, value in kept.items() if value is not None}),
        images=run.images,
        seed=run.seed,
        label_check_folds=0,
    )
    return start_run(twin, out, command=f"twin of {folder}", progress=progress)


def save_with_new_class(
    classifier: Predictor, counts: Mapping[str, int], folder: Path, out: Path, *, command: str
) -> None:
    """Write a model folder for the classifier of another one that has learned classes besides, from so many images each;
    encrypted if the other one is."""
    record, run = load_record(folder), load_config(folder)
    for name, n in counts.items():
        record = record.with_new_class(name, n)
    of_the_old = {"sample_quality": None, "memorization": None, "reference_p_values": None, "repeats": ()}
    record = record.model_copy(update={"command": command, "date": date.today().isoformat(), **of_the_old})
    classifier = save(classifier, out, extra={"run": run.model_dump(), "record": record.model_dump()})
    history = read_history(folder)
    write_history(out, history)
    write_pages(out, build_report(ReportInputs(classifier, record, history)))
    if checkpoint.is_encrypted(folder):
        checkpoint.encrypt(out, checkpoint.TrustPolicy().keys)
