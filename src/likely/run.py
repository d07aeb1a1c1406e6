"""A run: data, model and training options together, saved with what they made. The one path from DATA to a model folder."""

from __future__ import annotations

import hashlib
import math
import platform
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, field_validator

from likely import DEFAULT_MODEL, __version__, checkpoint, models
from likely.classifier import Classifier, Snapshot
from likely.classifier.choosing import at_hand, choice_of
from likely.classifier.featuring import suited
from likely.contract import FamilyOptions, GenerativeModel, Options
from likely.data.dataset import load
from likely.data.images import ImageOptions
from likely.data.listing import DataError
from likely.data.parts import Dataset, Part, joined
from likely.data.splits import Parts, divide
from likely.evaluation import augmentation
from likely.evaluation.assessment import Assessment, assess
from likely.evaluation.card import card
from likely.evaluation.label_noise import suspects
from likely.evaluation.memorisation import Memorisation, memorisation
from likely.evaluation.portrait import portrait, with_samples, with_suspects
from likely.evaluation.record import Record, read_history, write_history
from likely.evaluation.repeats import Trial
from likely.evaluation.report import render
from likely.evaluation.report.content import Mislabelled, ReportContent
from likely.evaluation.report.sections.fidelity import generated
from likely.evaluation.report.sections.repeats import repeats
from likely.evaluation.samples import Panel, drawn, honesty
from likely.models.artist import ArtistOptions
from likely.nets.features import FeatureOptions
from likely.training import hardware
from likely.training.loop import Diverged, Step, is_snapshot_point
from likely.training.options import TrainingOptions

UNFINISHED = "unfinished.safetensors"
REPORT, CARD = "report.html", "README.md"
SAVE_EVERY = 30.0  # seconds: how much training a crash can cost
FOLD_SHARE = 0.05  # of the training's length, for each fold that looks for wrong labels
JUDGE = "discriminative"  # the family that doubts labels and judges samples: quick, and not the one that drew them
N_JUDGED = 100  # samples of each class
N_SUSPECTS = 24  # pictures of training images whose label is in doubt
ALPHA = 0.05  # the false-alarm rate of a report
AFTER_TRAINING = (
    "These figures are of the validation images, by which weights and temperature were chosen: they flatter a little. "
    "`likely evaluate MODEL DATA --report report.html` measures on the data's own test part."
)


class RunError(ValueError):
    """A run that cannot start as asked; the message says what to change."""


class Run(Options):
    """Everything that a training is made of."""

    data: str = Field(description="DATA, as it was named.")
    model: str = Field(DEFAULT_MODEL, description="The family.")
    options: dict[str, Any] = Field({}, description="The family's options, where they are not its defaults.")
    training: TrainingOptions = TrainingOptions()
    images: ImageOptions = ImageOptions()
    features: FeatureOptions = FeatureOptions()
    draw: ArtistOptions = ArtistOptions()
    augment_with: str | None = Field(
        None,
        description="MODEL or MODEL:n: train once more with n images of each class (100) that this model draws; keep "
        "what comes of it if held-out accuracy rises beyond its interval.",
    )
    seed: int = Field(
        0, ge=0, description="Seed of the weights, the splits, the order, the augmentation and the noise."
    )
    folds: int = Field(
        2, ge=0, le=10, description="Folds of short trainings that look for wrong labels; 0: do not look."
    )
    repeats: int = Field(
        0,
        ge=0,
        le=100,
        description="Further trainings, each as long and on another split of the training images, for honest intervals; at "
        "least 2.",
    )

    @field_validator("repeats")
    @classmethod
    def _show_a_spread(cls, repeats: int) -> int:
        if repeats == 1:
            raise ValueError("a single training shows no spread; at least 2 were expected, such as 5")
        return repeats


class Session:
    """A run under way: `steps` trains, `finish` writes the model folder, `check_labels` then doubts the training labels."""

    def __init__(
        self,
        run: Run,
        out: Path,
        *,
        command: str,
        snapshot: Snapshot | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        self.out, self.command, self.snapshot = out, command, snapshot
        threads = run.training.threads or hardware.free_cores()
        training = run.training.model_copy(update={"threads": threads})
        # What is stored says everything: a resumed training must not meet a family that has come to prefer something else.
        features = at_hand(run.model, run.features, run.data)
        images = suited(run.images, features)
        self.dataset = _learnable(load(run.data, images, parts=("train", "validation"), progress=progress), run.seed)
        self.parts = divide(self.dataset, run.seed)
        if run.draw.minutes is not None and features.kind != "backbone":
            raise RunError("--draw-minutes is for models of a backbone's features; name one with --backbone FOLDER")
        train = self.parts.train
        self.choice = choice_of(run.model, features, train.images.shape, train.class_counts(len(self.dataset.classes)))
        run = run.model_copy(update={"model": self.choice.family, "features": self.choice.features, "images": images})
        self.run = run.model_copy(update={"training": training.suited(_family_options(run).training_defaults)})
        _refuse_other_data(self.parts, snapshot, run.data)
        self.classifier = self._classifier(_without_folds(self.run), run.seed)
        self.history: list[dict[str, float]] = list(snapshot[1]["history"]) if snapshot else []
        self.is_complete = False
        torch.set_num_threads(threads)

    def learn_features(self) -> Iterator[Step]:
        """Train what makes the features, if that is learned."""
        yield from self.classifier.learn_features(self.parts)

    def see(self, progress: Callable[[int, int], None] | None = None) -> None:
        """Make the features that the model is to be a density of, if it is one of features; `steps` would, unwatched."""
        self.classifier.see(self.parts, progress)

    def steps(self) -> Iterator[Step]:
        """Train, saving from time to time what it takes to go on after a crash."""
        self.out.mkdir(parents=True, exist_ok=True)  # now: not to be found impossible after the training
        dataset, row, saved = self.dataset, _EpochRow(**self.snapshot[1]["row"] if self.snapshot else {}), -math.inf
        for step in self.classifier.fit_steps(self.parts, dataset.classes, dataset.format, resume=self.snapshot):
            row.add(step)
            if step.ends_epoch:
                self.history.append(row.finished(step))
                row = _EpochRow()
            self._row = row
            if step.elapsed - saved > SAVE_EVERY and is_snapshot_point(self.classifier.training_state_.progress):
                self.save_progress()
                saved = step.elapsed
            yield step
        self.is_complete = True
        if saved > -math.inf:
            self.save_progress()  # what comes next may fail, and the training is not to be lost

    def save_progress(self) -> None:
        """Write what it takes to go on from here."""
        tensors, state = self.classifier.training_state_.snapshot()
        state |= {"data": _digest(self.parts), "history": self.history, "row": asdict(self._row)}
        document = {"run": self.run.model_dump(), "state": state}
        checkpoint.write_tensors(self.out / UNFINISHED, tensors, document)

    def finish(self) -> ReportContent:
        """Fit what turns scores into answers, then write model, history, card and report."""
        progress = self.classifier.training_state_.progress
        if not self.is_complete:
            self.save_progress()
        self.classifier.finish(self.parts)
        self.record = self._record(progress.elapsed / 60).model_copy(update={"memorisation": self._memorisation()})
        self._save()
        write_history(self.out, self.history)
        if self.is_complete:
            (self.out / UNFINISHED).unlink(missing_ok=True)
        self._portray()
        return self.content

    def _portray(self) -> None:
        part = self._measurable()
        measured = (self._assessed(part), part) if len(part) else None
        self.content = portrait(self.classifier, self.record, self.history, measured)
        write_pages(self.out, self.content)

    def _save(self) -> None:
        self.classifier.save(self.out, extra={"run": self.run.model_dump(), "record": self.record.model_dump()})

    def check_labels(self) -> Iterator[Step]:
        """Short trainings of softmax classifiers, each without one fold of the training images, whose labels it then doubts.

        Together they also judge whether the images that the model draws show what they should.
        """
        if not self.run.folds or self.dataset.format is None:
            return
        try:
            judges = yield from self._judges()
        except Diverged as error:
            self.content = self.content.with_note(f"Labels were not checked: {error}")
        else:
            doubted = _doubted(self._held_out_posterior(judges), self.parts.train)
            self.content = self.content if doubted is None else with_suspects(self.content, doubted)
            if self.classifier.draws_images:
                self._judge_samples(judges)
        write_pages(self.out, self.content)

    def repeat(self) -> Iterator[Step]:
        """The same training on other splits of the training images, each measured on a fifth that it set aside.

        Each is remembered, in the model and in its report, when it is done.
        """
        available = tuple(part for part in self.dataset.available if part != "test")  # so that a test part is set aside
        for i in range(self.run.repeats):
            seed = self.run.seed + 1 + i
            parts = divide(replace(self.dataset, available=available), seed)
            classifier = self._classifier(_without_folds(self.run), seed)
            try:
                yield from classifier.fit_steps(parts, self.dataset.classes, self.dataset.format)
            except Diverged as error:
                self.content = self.content.with_note(f"Training {i + 2} of {self.run.repeats + 1}: {error}")
                continue
            classifier.finish(parts)
            assert parts.test is not None
            if not len(parts.test.labelled()):
                few = "Repeated trainings were not measured: there are too few images to set some aside for it."
                self.content = self.content.with_note(few)
                return
            found = assess(classifier, parts.test.labelled(), alpha=ALPHA)
            trial = Trial.of(found, seed, len(parts.train))
            self.record = self.record.model_copy(update={"trials": (*self.record.trials, trial)})
            self._save()
        self.content = self.content.with_section(repeats(self.record.trials))
        write_pages(self.out, self.content)

    def augment(self) -> Iterator[Step]:
        """The same training with images that another model draws; its model is kept if held-out accuracy rises for it.

        A ValueError if that model draws no images, or of other classes.
        """
        if self.run.augment_with is None or self.dataset.format is None:
            return
        folder, n = augmentation.asked(self.run.augment_with)
        artist = Classifier.load(folder)
        made = augmentation.made_by(artist, n, self.dataset.classes, self.dataset.format, seed=self.run.seed)
        parts = replace(self.parts, generated=made)
        other = self._classifier(_without_folds(self.run), self.run.seed)
        yield from other.fit_steps(parts, self.dataset.classes, self.dataset.format)
        other.finish(parts)
        held_out = self._unseen()
        before, after = (
            c.log_posterior(held_out.images).argmax(1) == held_out.labels for c in (self.classifier, other)
        )
        found = augmentation.compared(artist.id or str(folder), len(made), before, after)
        self.record = self.record.model_copy(update={"augmented": found})
        if found.kept:
            self.classifier = other
            self.record = self.record.model_copy(update={"memorisation": self._memorisation()})
        self._save()
        self._portray()

    def draw(self) -> Iterator[Step]:
        """Teach a model of a backbone's features to draw, if it was asked for."""
        if self.run.draw.minutes is not None:
            yield from self.classifier.learn_to_draw(self.parts.train, self.run.draw)

    def show_drawings(self) -> None:
        """Keep what was learned of drawing so far, and show it in the report."""
        if self.classifier.artist is not None:
            self._save()
            self.content = with_samples(self.content, self.classifier)
            write_pages(self.out, self.content)

    def _unseen(self) -> Part:
        """Images that were kept from the training, and as far as there are such from every choice in it."""
        crosses = self.classifier.crosses(self.classifier.shape)
        return self.parts.validation if crosses else self.parts.calibration

    def _memorisation(self) -> Memorisation | None:
        """By the calibration images, and those set aside for a test: neither had any say in the training.

        Where calibration images were learned from, validation images stand in, by which no more than a few settings were
        chosen.
        """
        model = self.classifier.model_
        if not isinstance(model, GenerativeModel):
            return None
        kept = [self._unseen(), *([self.parts.test] if self.parts.test is not None else [])]
        made = drawn(self.classifier, N_JUDGED, self.run.seed) if self.classifier.draws_images else None
        return memorisation(self.classifier, self.parts.train, joined(kept), made, seed=self.run.seed)

    def _judges(self) -> Generator[Step, None, list[Classifier]]:
        """A classifier for each fold, which has not seen it."""
        judges = []
        for held_out in self._folds():
            classifier = Classifier(
                JUDGE,
                training=_shortened(self.run.training),
                images=self.run.images,
                features=self.run.features,
                random_state=self.run.seed,
            )
            rest = np.setdiff1d(np.arange(len(self.parts.train)), held_out)
            parts = replace(self.parts, train=self.parts.train.subset(rest))
            yield from classifier.fit_steps(parts, self.dataset.classes, self.dataset.format)
            classifier.finish(parts)
            judges.append(classifier)
        return judges

    def _held_out_posterior(self, judges: Sequence[Classifier]) -> NDArray[np.float64]:
        """p(c | x) of every training image by the judge that has not seen it, (N, K)."""
        posterior = np.zeros((len(self.parts.train), len(self.dataset.classes)))
        for held_out, judge in zip(self._folds(), judges, strict=True):
            posterior[held_out] = np.exp(judge.log_posterior(self.parts.train.subset(held_out).images))
        return posterior

    def _folds(self) -> list[NDArray[np.int64]]:
        """The training images dealt out, by their indices."""
        order = np.random.default_rng(self.run.seed).permutation(len(self.parts.train))
        return [np.sort(order[fold :: self.run.folds]) for fold in range(self.run.folds)]

    def _judge_samples(self, judges: Sequence[Classifier]) -> None:
        """Remember, in the model and in its report, what the judges say of images that the model draws."""
        id = f"{len(judges)} short trainings of {JUDGE!r}, each without one of {self.run.folds} folds of the training images"
        made = drawn(self.classifier, N_JUDGED, self.run.seed)
        found = honesty(made, Panel(id, judges), self.parts.train, self._measurable(), seed=self.run.seed)
        self.record = self.record.model_copy(update={"honesty": found})
        self._save()
        self.content = self.content.with_section(generated(found, None, self.classifier.labels))

    def _classifier(self, training: TrainingOptions, seed: int) -> Classifier:
        run = self.run
        asked: dict[str, Any] = {"options": run.options, "training": training, "images": run.images}
        return Classifier(run.model, **asked, features=run.features, random_state=seed)

    def _measurable(self) -> Part:
        """The test images set aside, or else the validation images: DATA's own test part is not for a training to read."""
        return self.parts.test.labelled() if self.parts.test is not None else self.parts.validation

    def _assessed(self, part: Part) -> Assessment:
        name = "validation" if self.parts.test is None else "test"
        return replace(assess(self.classifier, part, alpha=ALPHA), part=name)

    def _record(self, minutes: float) -> Record:
        K, parts = len(self.dataset.classes), self.parts
        counted = {"train": parts.train, "validation": parts.validation, "calibration": parts.calibration}
        counted |= {"test": parts.test} if parts.test is not None else {}
        training = self.classifier.training_
        return Record(
            date=date.today().isoformat(),
            command=self.command,
            source=self.run.data,
            counts={name: list(part.class_counts(K)) for name, part in counted.items()},
            n_unlabelled=int((parts.train.labels < 0).sum()),
            skipped={problem.source: problem.sentence for problem in self.dataset.problems},
            versions={"likely": __version__, "torch": torch.__version__, "python": platform.python_version()},
            machine=hardware.describe(),
            seed=self.run.seed,
            minutes=minutes,
            threads=training.threads or 1,
            precision=str(hardware.dtype(training, self.classifier.device, self.classifier.model_.task.shape))[6:],
            note=AFTER_TRAINING if parts.test is None else "",
        )


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


def record_of(folder: Path) -> Record:
    """What is remembered of a model folder's making; a DataError if it was saved from Python."""
    return Record.model_validate(_kept(folder, "record"))


def _kept(folder: Path, name: str) -> Any:
    document = checkpoint.read_document(folder)
    if name not in document:
        raise DataError(
            f"{folder} was saved from Python, and does not say what it was trained on; `likely train` would"
        )
    return document[name]


def set_aside(
    classifier: Classifier, folder: Path, data: str | None = None, progress: Callable[[int, int], None] | None = None
) -> Parts:
    """The images that a model folder's training set aside, read again from where they were, or from `data`; a DataError if
    they are not there any more."""
    run = run_of(folder)
    added = record_of(folder).added
    if added:
        raise DataError(
            f"{folder} has learned {', '.join(map(repr, added))} since, from images that nobody kept count of"
        )
    source = data or run.data
    dataset = _learnable(load(source, run.images, parts=("train", "validation"), progress=progress), run.seed)
    parts = divide(dataset, run.seed)
    known = [np.isin(part.hashes, classifier.hashes_) for part in (parts.train, parts.validation, parts.calibration)]
    if dataset.classes != classifier.labels or not all(found.all() for found in known):
        raise DataError(f"{source} does not hold the images that {folder} was trained on, as they were then")
    return parts


def twin_of(
    folder: Path, out: Path, *, data: str | None = None, progress: Callable[[int, int], None] | None = None
) -> Session:
    """A training of the discriminative twin of a model folder: the same data, trunk, length and seed."""
    run, added = run_of(folder), record_of(folder).added
    if added:
        raise DataError(f"{folder} has learned {', '.join(map(repr, added))} since, and a twin of it cannot")
    training = _without_folds(run)
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


def save_extended(classifier: Classifier, counts: Mapping[str, int], folder: Path, out: Path, *, command: str) -> None:
    """Write a model folder for the classifier of another one that has learned classes besides, from so many images each."""
    record, run = record_of(folder), run_of(folder)
    for name, n in counts.items():
        record = record.with_class(name, n)
    of_the_old = {"honesty": None, "memorisation": None, "trials": ()}
    record = record.model_copy(update={"command": command, "date": date.today().isoformat(), **of_the_old})
    classifier.save(out, extra={"run": run.model_dump(), "record": record.model_dump()})
    history = read_history(folder)
    write_history(out, history)
    write_pages(out, portrait(classifier, record, history, None))


def write_pages(folder: Path, content: ReportContent) -> None:
    """The report and the card of a model folder."""
    checkpoint.write_text(folder / REPORT, render(content))
    checkpoint.write_text(folder / CARD, card(content))


def _family_options(run: Run) -> FamilyOptions:
    return models.family(run.model).options_type.model_validate(run.options)


def _learnable(dataset: Dataset, seed: int) -> Dataset:
    """The same without classes that have no image to train on; what is left out is among its problems."""
    counts = divide(dataset, seed).train.class_counts(len(dataset.classes))
    kept = [name for name, n in zip(dataset.classes, counts, strict=True) if n]
    return dataset if len(kept) == len(dataset.classes) else dataset.relabelled(kept)


def _digest(parts: Parts) -> str:
    """What a training's images are known by, in their order."""
    known = (parts.train, parts.validation, parts.calibration)
    return hashlib.sha256(b"".join(p.hashes.tobytes() + p.labels.tobytes() for p in known)).hexdigest()


def _refuse_other_data(parts: Parts, snapshot: Snapshot | None, data: str) -> None:
    if snapshot is not None and snapshot[1]["data"] != _digest(parts):
        raise RunError(f"{data} has changed since the training began, so it cannot go on as it would have; train anew")


@dataclass
class _EpochRow:
    """A line of history.csv in the making: the means of an epoch's losses, of each over the steps in which it had its turn."""

    sums: dict[str, float] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)

    def add(self, step: Step) -> None:
        for name, loss in step.losses.items() if step.note is None else ():
            self.sums[name] = self.sums.get(name, 0.0) + loss
            self.counts[name] = self.counts.get(name, 0) + 1

    def finished(self, step: Step) -> dict[str, float]:
        means = {f"loss/{name}": total / self.counts[name] for name, total in self.sums.items()}
        found = {f"validation/{name}": value for name, value in step.validation.items()}
        place = {"epoch": float(step.epoch + 1), "step": float(step.number), "seconds": round(step.elapsed, 3)}
        return place | {"learning_rate": step.learning_rate} | means | found


def _without_folds(run: Run) -> TrainingOptions:
    """The main training: minutes are minutes of everything, so the folds' share is taken off."""
    if run.training.minutes is None:
        return run.training
    return run.training.model_copy(update={"minutes": run.training.minutes * (1 - run.folds * FOLD_SHARE)})


def _shortened(training: TrainingOptions) -> TrainingOptions:
    """A training that is long enough to tell a wrong label from a right one, and no longer; the rest is as usual."""
    kept = {name: getattr(training, name) for name in ("batch_size", "device", "precision", "threads", "augment")}
    if training.minutes is not None:
        return TrainingOptions(minutes=FOLD_SHARE * training.minutes, **kept)
    epochs = training.epochs and max(2, math.ceil(FOLD_SHARE * training.epochs))
    return TrainingOptions(epochs=epochs or 10, **kept)


def _doubted(posterior: NDArray[np.float64], train: Part) -> Mislabelled | None:
    found = suspects(posterior, train.labels)[:N_SUSPECTS]
    if not found:
        return None
    indices = np.array([suspect.index for suspect in found], np.int64)
    names = tuple(train.images.name(int(i)) for i in indices)
    return Mislabelled(train.images.batch(indices).numpy(), found, names)
