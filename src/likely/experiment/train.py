"""A run under way: the one path from DATA to a model folder."""

from __future__ import annotations

import dataclasses
import hashlib
import math
import platform
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import date
from pathlib import Path

import torch

from likely import checkpoint, models
from likely.base import FamilyOptions, GenerativeModel
from likely.classifier import Predictor, Snapshot, save
from likely.classifier import load as load_model
from likely.classifier.auto import choose_model, default_backbone
from likely.classifier.sampling import decoder_training
from likely.classifier.trainer import Trainer
from likely.data.dataset import Dataset, LabeledImages, concatenate
from likely.data.loading import load_dataset
from likely.data.splits import Splits, make_splits
from likely.evaluation import synthetic_augmentation
from likely.evaluation.evaluate import EvaluationResult, evaluate
from likely.evaluation.memorization import Memorization, measure_memorization
from likely.evaluation.repeated_splits import RepeatResult
from likely.evaluation.sample_quality import Ensemble, sample_images, sample_quality
from likely.evaluation.training_record import ReferencePValues, TrainingRecord, write_history
from likely.exceptions import DivergenceError, TrainConfigError
from likely.experiment.config import TrainConfig
from likely.experiment.label_check import BASELINE_FAMILY, LabelCheck
from likely.experiment.outputs import write_pages
from likely.features.feature_extraction import with_backbone_defaults
from likely.reporting.build import ReportInputs, build_report, with_label_issues, with_samples
from likely.reporting.html.content import ReportContent
from likely.reporting.html.sections.sample_quality import sample_quality_section
from likely.reporting.html.sections.training import repeats_section
from likely.training.device import describe_machine, free_cores, select_dtype
from likely.training.loop import Step, is_snapshot_point
from likely.version import __version__

TRAINING_STATE = "training_state.safetensors"
SAVE_EVERY = 30.0  # seconds: how much training a crash can cost
SAMPLES_PER_CLASS = 100  # samples of each class
ALPHA = 0.05  # the false-alarm rate of a report
AFTER_TRAINING = (
    "These figures are of the validation images, by which weights and temperature were chosen: they flatter a little. "
    "`likely evaluate MODEL DATA --report report.html` measures on the data's own test part."
)


class TrainingRun:
    """A run under way: `steps` trains, `finish` writes the model folder, `check_labels` then doubts the training labels."""

    def __init__(
        self,
        run: TrainConfig,
        out: Path,
        *,
        command: str,
        snapshot: Snapshot | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        self.out, self.command, self.snapshot = out, command, snapshot
        threads = run.training.threads or free_cores()
        training = run.training.model_copy(update={"threads": threads})
        # What is stored says everything: a resumed training must not meet a family that has come to prefer something else.
        features = default_backbone(run.model, run.features, run.data)
        images = with_backbone_defaults(run.images, features)
        self.dataset = drop_empty_classes(
            load_dataset(run.data, images, splits=("train", "validation"), progress=progress), run.seed
        )
        self.parts = make_splits(self.dataset, run.seed)
        if run.decoder.minutes is not None and features.kind != "backbone":
            raise TrainConfigError(
                "--decoder-minutes is for models of a backbone's features; name one with --backbone FOLDER"
            )
        train = self.parts.train
        self.choice = choose_model(
            run.model, features, train.images.shape, train.class_counts(len(self.dataset.classes))
        )
        run = run.model_copy(update={"model": self.choice.family, "features": self.choice.features, "images": images})
        self.run = run.model_copy(update={"training": training.with_defaults(_family_options(run).training_defaults)})
        _refuse_other_data(self.parts, snapshot, run.data)
        self.trainer = self._trainer(self.parts, run.seed, snapshot)
        self.history: list[dict[str, float]] = list(snapshot[1]["history"]) if snapshot else []
        self.is_complete = False
        torch.set_num_threads(threads)

    def fit_features(self) -> Iterator[Step]:
        """Train what makes the features, if that is learned."""
        yield from self.trainer.fit_features()

    def extract_features(self, progress: Callable[[int, int], None] | None = None) -> None:
        """Make the features that the model is to be a density of, if it is one of features; `steps` would, unwatched."""
        self.trainer.extract_features(progress)

    def steps(self) -> Iterator[Step]:
        """Train, saving from time to time what it takes to go on after a crash."""
        self.out.mkdir(parents=True, exist_ok=True)  # now: not to be found impossible after the training
        row, saved = _EpochRow(**self.snapshot[1]["row"] if self.snapshot else {}), -math.inf
        for step in self.trainer.fit_model():
            row.add(step)
            if step.ends_epoch:
                self.history.append(row.finished(step))
                row = _EpochRow()
            self._row = row
            if step.elapsed - saved > SAVE_EVERY and is_snapshot_point(self.trainer.state.progress):
                self.save_progress()
                saved = step.elapsed
            yield step
        self.is_complete = True
        if saved > -math.inf:
            self.save_progress()  # what comes next may fail, and the training is not to be lost

    def _trainer(self, splits: Splits, seed: int, resume: Snapshot | None = None) -> Trainer:
        spec = self.run.model_spec(seed)
        return Trainer(spec, splits, self.dataset.classes, self.dataset.format, resume=resume)

    def save_progress(self) -> None:
        """Write what it takes to go on from here."""
        tensors, state = self.trainer.state.snapshot()
        state |= {"data": _digest(self.parts), "history": self.history, "row": asdict(self._row)}
        document = {"run": self.run.model_dump(), "state": state}
        checkpoint.write_tensors(self.out / TRAINING_STATE, tensors, document)

    def finish(self) -> ReportContent:
        """Fit what turns scores into answers, then write model, history, card and report."""
        elapsed = self.trainer.state.progress.elapsed
        if not self.is_complete:
            self.save_progress()
        self.classifier = self.trainer.finish()
        self.record = self._record(elapsed / 60).model_copy(update=self._diagnostics())
        self._save()
        write_history(self.out, self.history)
        if self.is_complete:
            (self.out / TRAINING_STATE).unlink(missing_ok=True)
        self._write_report()
        return self.content

    def _write_report(self) -> None:
        part = self._eval_images()
        measured = (self._evaluate(part), part) if len(part) else None
        self.content = build_report(ReportInputs(self.classifier, self.record, self.history, measured))
        write_pages(self.out, self.content)

    def _save(self) -> None:
        extra = {"run": self.run.model_dump(), "record": self.record.model_dump()}
        self.classifier = save(self.classifier, self.out, extra=extra)

    def check_labels(self) -> Iterator[Step]:
        """Short trainings of softmax classifiers, each without one fold of the training images, whose labels it then doubts.

        Together they also judge whether the images that the model draws show what they should.
        """
        if not self.run.label_check_folds or self.dataset.format is None:
            return
        folds = LabelCheck(self.run, self.dataset, self.parts)
        try:
            judges = yield from folds.fold_classifiers()
        except DivergenceError as error:
            self.content = self.content.with_note(f"Labels were not checked: {error}")
        else:
            doubted = folds.label_issues(judges)
            self.content = self.content if doubted is None else with_label_issues(self.content, doubted)
            if self.classifier.generates_images:
                self._assess_samples(judges)
        write_pages(self.out, self.content)

    def repeat(self) -> Iterator[Step]:
        """The same training on other splits of the training images, each measured on a fifth that it set aside.

        Each is remembered, in the model and in its report, when it is done.
        """
        available = tuple(part for part in self.dataset.available if part != "test")  # so that a test part is set aside
        for i in range(self.run.repeats):
            seed = self.run.seed + 1 + i
            parts = make_splits(replace(self.dataset, available=available), seed)
            try:
                classifier = yield from self._trainer(parts, seed).steps()
            except DivergenceError as error:
                self.content = self.content.with_note(f"Training {i + 2} of {self.run.repeats + 1}: {error}")
                continue
            assert parts.test is not None
            if not len(parts.test.labeled()):
                few = "Repeated trainings were not measured: there are too few images to set some aside for it."
                self.content = self.content.with_note(few)
                return
            found = evaluate(classifier, parts.test.labeled(), alpha=ALPHA)
            trial = RepeatResult.from_result(found, seed, len(parts.train))
            self.record = self.record.model_copy(update={"repeats": (*self.record.repeats, trial)})
            self._save()
        self.content = self.content.with_section(repeats_section(self.record.repeats))
        write_pages(self.out, self.content)

    def augment(self) -> Iterator[Step]:
        """The same training with images that another model draws; its model is kept if held-out accuracy rises for it.

        A ValueError if that model draws no images, or of other classes.
        """
        if self.run.augment_with is None or self.dataset.format is None:
            return
        folder, n = synthetic_augmentation.parse_source(self.run.augment_with)
        artist = load_model(folder)
        made = synthetic_augmentation.generate_images(
            artist, n, self.dataset.classes, self.dataset.format, seed=self.run.seed
        )
        parts = replace(self.parts, generated=made)
        other = yield from self._trainer(parts, self.run.seed).steps()
        held_out = self._held_out()
        before, after = (
            c.log_posterior(held_out.images).argmax(1) == held_out.labels for c in (self.classifier, other)
        )
        found = synthetic_augmentation.compare(artist.id or str(folder), len(made), before, after)
        self.record = self.record.model_copy(update={"synthetic_augmentation": found})
        if found.accepted:
            self.classifier = other
            self.record = self.record.model_copy(update=self._diagnostics())
        self._save()
        self._write_report()

    def fit_decoder(self) -> Iterator[Step]:
        """Teach a model of a backbone's features to draw, if it was asked for."""
        if self.run.decoder.minutes is not None:
            training = decoder_training(self.classifier, self.parts.train, self.run.decoder)
            try:
                yield from training.steps()
            finally:
                self.classifier = dataclasses.replace(self.classifier, feature_decoder=training.decoder)

    def save_decoder(self) -> None:
        """Keep what was learned of drawing so far, and show it in the report."""
        if self.classifier.feature_decoder is not None:
            self._save()
            self.content = with_samples(self.content, self.classifier)
            write_pages(self.out, self.content)

    def _held_out(self) -> LabeledImages:
        """Images that were kept from the training, and as far as there are such from every choice in it."""
        return self.parts.validation if self.trainer.cross_conformal else self.parts.calibration

    def _diagnostics(self) -> dict[str, object]:
        """What is remembered of the classifier besides how it was made."""
        return {"memorization": self._memorization(), "reference_p_values": self._reference_p_values()}

    def _reference_p_values(self) -> ReferencePValues | None:
        images = self.parts.validation.images
        return (
            ReferencePValues.from_p_values(self.classifier.conformal_output(images, alpha=ALPHA).p_value)
            if len(images)
            else None
        )

    def _memorization(self) -> Memorization | None:
        """By the calibration images, and those set aside for a test: neither had any say in the training.

        Where calibration images were learned from, validation images stand in, by which no more than a few settings were
        chosen.
        """
        model = self.classifier.model
        if not isinstance(model, GenerativeModel):
            return None
        kept = [self._held_out(), *([self.parts.test] if self.parts.test is not None else [])]
        made = (
            sample_images(self.classifier, SAMPLES_PER_CLASS, self.run.seed)
            if self.classifier.generates_images
            else None
        )
        return measure_memorization(self.classifier, self.parts.train, concatenate(kept), made, seed=self.run.seed)

    def _assess_samples(self, classifiers: Sequence[Predictor]) -> None:
        """Remember, in the model and in its report, what the judges say of images that the model draws."""
        id = f"{len(classifiers)} short trainings of {BASELINE_FAMILY!r}, each without one of {self.run.label_check_folds} folds of the training images"
        made = sample_images(self.classifier, SAMPLES_PER_CLASS, self.run.seed)
        found = sample_quality(
            made, Ensemble(id, classifiers), self.parts.train, self._eval_images(), seed=self.run.seed
        )
        self.record = self.record.model_copy(update={"sample_quality": found})
        self._save()
        self.content = self.content.with_section(sample_quality_section(found, None, self.classifier.labels))

    def _eval_images(self) -> LabeledImages:
        """The test images set aside, or else the validation images: DATA's own test part is not for a training to read."""
        return self.parts.test.labeled() if self.parts.test is not None else self.parts.validation

    def _evaluate(self, part: LabeledImages) -> EvaluationResult:
        name = "validation" if self.parts.test is None else "test"
        return replace(evaluate(self.classifier, part, alpha=ALPHA), split=name)

    def _record(self, minutes: float) -> TrainingRecord:
        K, parts = len(self.dataset.classes), self.parts
        counted = {"train": parts.train, "validation": parts.validation, "calibration": parts.calibration}
        counted |= {"test": parts.test} if parts.test is not None else {}
        training = self.classifier.training
        return TrainingRecord(
            date=date.today().isoformat(),
            command=self.command,
            source=self.run.data,
            counts={name: list(part.class_counts(K)) for name, part in counted.items()},
            n_unlabeled=int((parts.train.labels < 0).sum()),
            skipped={problem.source: problem.message for problem in self.dataset.errors},
            versions={"likely": __version__, "torch": torch.__version__, "python": platform.python_version()},
            machine=describe_machine(),
            seed=self.run.seed,
            minutes=minutes,
            threads=training.threads or 1,
            precision=str(select_dtype(training, self.classifier.device, self.classifier.model.task.shape))[6:],
            note=AFTER_TRAINING if parts.test is None else "",
        )


def drop_empty_classes(dataset: Dataset, seed: int) -> Dataset:
    """The same without classes that have no image to train on; what is left out is among its problems."""
    counts = make_splits(dataset, seed).train.class_counts(len(dataset.classes))
    kept = [name for name, n in zip(dataset.classes, counts, strict=True) if n]
    return dataset if len(kept) == len(dataset.classes) else dataset.relabel(kept)


def _family_options(run: TrainConfig) -> FamilyOptions:
    return models.family(run.model).options_type.from_any(run.options)


def _digest(parts: Splits) -> str:
    """What a training's images are known by, in their order."""
    known = (parts.train, parts.validation, parts.calibration)
    return hashlib.sha256(b"".join(p.hashes.tobytes() + p.labels.tobytes() for p in known)).hexdigest()


def _refuse_other_data(parts: Splits, snapshot: Snapshot | None, data: str) -> None:
    if snapshot is not None and snapshot[1]["data"] != _digest(parts):
        raise TrainConfigError(
            f"{data} has changed since the training began, so it cannot go on as it would have; train anew"
        )


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
