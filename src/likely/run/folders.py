"""Model folders: a run begun in one, gone on with, or found again by what was saved there."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

from likely import checkpoint
from likely.classifier import BayesClassifier
from likely.data.dataset import load
from likely.data.listing import DataError
from likely.data.splits import Parts, divide
from likely.evaluation.portrait import portrait
from likely.evaluation.record import Record, read_history, write_history
from likely.run.folds import JUDGE
from likely.run.options import Run, RunError
from likely.run.pages import write_pages
from likely.run.session import UNFINISHED, Session, learnable
from likely.training.options import TrainingOptions


def begin(run: Run, out: Path, *, command: str = "", progress: Callable[[int, int], None] | None = None) -> Session:
    """A new run; a RunError if `out` already holds something."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        unfinished = (out / UNFINISHED).exists()
        way_on = "--resume goes on with the training that it holds, " if unfinished else ""
        raise RunError(f"{out} is not empty; {way_on}--overwrite replaces it, or name another folder with --out")
    return Session(run, out, command=command, progress=progress)


def resume(
    out: Path, *, data: str | None = None, command: str = "", progress: Callable[[int, int], None] | None = None
) -> Session:
    """The unfinished run of a folder, with the options that it was begun with; a RunError if there is none.

    `data` is where DATA is now, if it is named differently from then.
    """
    if not (out / UNFINISHED).exists():
        state = "its training is complete" if (out / checkpoint.DOCUMENT).exists() else "no training was begun there"
        raise RunError(f"{out} has nothing to resume: {state}; leave out --resume to train anew")
    tensors, document = checkpoint.read_tensors(out / UNFINISHED)
    run = Run.model_validate(document["run"] | ({"data": data} if data else {}))
    return Session(run, out, command=command, snapshot=(tensors, document["state"]), progress=progress)


def stored(out: Path) -> Run:
    """The options of a folder's unfinished run."""
    return Run.model_validate(checkpoint.read_tensors(out / UNFINISHED)[1]["run"])


def run_of(folder: Path) -> Run:
    """The run that made a model folder; a DataError if it was saved from Python, which keeps none."""
    return Run.model_validate(_kept(folder, "run"))


def record_of(folder: Path, trust: checkpoint.Trust | None = None) -> Record:
    """What is remembered of a model folder's making; a DataError if it was saved from Python."""
    return Record.model_validate(_kept(folder, "record", trust))


def _run_of_all_classes(folder: Path, otherwise: str) -> Run:
    """The run that made all that the model knows; a DataError if it has learned classes since."""
    if added := record_of(folder).added:
        raise DataError(f"{folder} has learned {', '.join(map(repr, added))} since, {otherwise}")
    return run_of(folder)


def _kept(folder: Path, name: str, trust: checkpoint.Trust | None = None) -> Any:
    document = checkpoint.read_document(folder, trust)
    if name not in document:
        raise DataError(
            f"{folder} was saved from Python, and does not say what it was trained on; `likely train` would"
        )
    return document[name]


def set_aside(
    classifier: BayesClassifier,
    folder: Path,
    data: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Parts:
    """The images that a model folder's training set aside, read again from where they were, or from `data`; a DataError if
    they are not there any more."""
    run = _run_of_all_classes(folder, "from images that nobody kept count of")
    source = data or run.data
    dataset = learnable(load(source, run.images, parts=("train", "validation"), progress=progress), run.seed)
    parts = divide(dataset, run.seed)
    known = [np.isin(part.hashes, classifier.hashes_) for part in (parts.train, parts.validation, parts.calibration)]
    if dataset.classes != classifier.labels or not all(found.all() for found in known):
        raise DataError(f"{source} does not hold the images that {folder} was trained on, as they were then")
    return parts


def twin_of(
    folder: Path, out: Path, *, data: str | None = None, progress: Callable[[int, int], None] | None = None
) -> Session:
    """A training of the discriminative twin of a model folder: the same data, trunk, length and seed."""
    run = _run_of_all_classes(folder, "and a twin of it cannot")
    training = run.main_training
    shared = {name: run.options[name] for name in ("width", "depth") if name in run.options}
    kept = {
        name: getattr(training, name) for name in ("epochs", "minutes", "threads", "device", "precision", "augment")
    }
    twin = Run(
        data=data or run.data,
        model=JUDGE,
        options=shared,
        training=TrainingOptions(**{name: value for name, value in kept.items() if value is not None}),
        images=run.images,
        seed=run.seed,
        folds=0,
    )
    return begin(twin, out, command=f"twin of {folder}", progress=progress)


def save_extended(
    classifier: BayesClassifier, counts: Mapping[str, int], folder: Path, out: Path, *, command: str
) -> None:
    """Write a model folder for the classifier of another one that has learned classes besides, from so many images each;
    encrypted if the other one is."""
    record, run = record_of(folder), run_of(folder)
    for name, n in counts.items():
        record = record.with_class(name, n)
    of_the_old = {"honesty": None, "memorisation": None, "typicality": None, "trials": ()}
    record = record.model_copy(update={"command": command, "date": date.today().isoformat(), **of_the_old})
    classifier.save(out, extra={"run": run.model_dump(), "record": record.model_dump()})
    history = read_history(folder)
    write_history(out, history)
    write_pages(out, portrait(classifier, record, history, None))
    if checkpoint.is_sealed(folder):
        checkpoint.encrypt(out, checkpoint.Trust().keys)
