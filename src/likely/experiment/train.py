"""Training from DATA to a model folder, in phases that can be shown, stopped and resumed."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import torch

from likely import checkpoint
from likely.classifier import Predictor, Snapshot, load, save
from likely.classifier.sampling import decoder_training
from likely.classifier.trainer import Trainer
from likely.data.splits import Splits, make_splits
from likely.evaluation import synthetic_augmentation
from likely.evaluation.evaluate import evaluate
from likely.evaluation.repeated_splits import RepeatResult
from likely.evaluation.sample_quality import Ensemble, sample_images, sample_quality
from likely.evaluation.training_record import TrainingRecord, write_history
from likely.exceptions import DivergenceError, TrainConfigError
from likely.experiment.config import TrainingSetup
from likely.experiment.diagnostics import ALPHA, SAMPLES_PER_CLASS, diagnostics, training_record
from likely.experiment.label_check import BASELINE_FAMILY, LabelCheck
from likely.reporting.build import ReportInputs, build_report
from likely.reporting.html import render
from likely.reporting.html.content import LabelIssues, ReportContent
from likely.reporting.model_card import model_card
from likely.training.loop import Step

TRAINING_STATE, REPORT, CARD = "training_state.safetensors", "report.html", "README.md"  # files of a model folder
SAVE_EVERY = 30.0  # seconds of training that a crash can cost


@dataclass(frozen=True)
class Phase:
    """A phase of a training, which advances as its `steps` are iterated; breaking off ends it early.

    `work`, if any, is called before with a function that takes the number of images done and their total.
    """

    name: str
    steps: Iterable[Step] = ()
    work: Callable[[Callable[[int, int], None] | None], None] | None = None
    is_main: bool = False  # the training of the model itself

    def run(self) -> None:
        """Go through the phase without showing it."""
        if self.work is not None:
            self.work(None)
        for _ in self.steps:
            pass


class Training:
    """A training in a model folder: `phases` trains, calibrates, evaluates and writes model, card and report.

    With a snapshot of an unfinished training it continues exactly as that would have. Raises TrainConfigError if the data
    have changed since.
    """

    predictor: Predictor  # once the main phase is over
    record: TrainingRecord
    content: ReportContent  # once all phases are over

    def __init__(
        self, setup: TrainingSetup, folder: Path, *, command: str = "", snapshot: Snapshot | None = None
    ) -> None:
        if snapshot is not None and snapshot[1]["data"] != setup.digest:
            raise TrainConfigError(
                f"{setup.config.data} has changed since the training began, so it cannot be resumed; --overwrite starts a new "
                "training"
            )
        self.setup, self.folder, self.command, self.snapshot = setup, folder, command, snapshot
        self.trainer = self._trainer(setup.splits, setup.config.seed, snapshot)
        self.history: list[dict[str, float]] = list(snapshot[1]["history"]) if snapshot else []
        self.is_complete = False
        self._row = _EpochRow(**snapshot[1]["row"] if snapshot else {})
        self._label_issues: LabelIssues | None = None
        self._notes: list[str] = list(setup.group_caveats)

    def phases(self) -> Iterator[Phase]:
        """Yield the phases in order; stopping in the main phase keeps the best weights so far and skips the rest."""
        torch.set_num_threads(self.setup.config.training.threads or 1)
        start = time.monotonic()
        yield Phase("learning features", self.trainer.fit_features())
        yield Phase("computing features", work=self.trainer.extract_features)
        yield Phase("training", self.steps(), is_main=True)
        self._finish(start)
        if self.is_complete:
            yield Phase("training with generated images", self._augment())
            yield Phase("training the decoder", self._fit_decoder())
            yield Phase("checking labels", self._check_labels())
            yield Phase("repeating", self._repeat())
        self._write_report()

    def run(self) -> Predictor:
        """Go through all phases without showing them."""
        for phase in self.phases():
            phase.run()
        return self.predictor

    def steps(self) -> Iterator[Step]:
        """Train the model, saving the training state from time to time."""
        self.folder.mkdir(parents=True, exist_ok=True)  # fails before the training rather than after it
        saved = -math.inf
        for step in self.trainer.fit_model():
            self._row.add(step)
            if step.ends_epoch:
                self.history.append(self._row.finished(step))
                self._row = _EpochRow()
            if step.elapsed - saved > SAVE_EVERY and self.trainer.state.is_snapshot_point:
                self.save_progress()
                saved = step.elapsed
            yield step
        self.is_complete = True
        if saved > -math.inf:
            self.save_progress()  # a failure of the calibration does not lose the training

    def save_progress(self) -> None:
        """Write the state from which the training can be resumed exactly."""
        tensors, state = self.trainer.state.snapshot()
        state |= {"data": self.setup.digest, "history": self.history, "row": asdict(self._row)}
        document = {"run": self.setup.config.model_dump(), "state": state}
        checkpoint.write_tensors(self.folder / TRAINING_STATE, tensors, document)

    def _trainer(self, splits: Splits, seed: int, resume: Snapshot | None = None) -> Trainer:
        dataset, spec = self.setup.dataset, self.setup.config.model_spec(seed)
        return Trainer(spec, splits, dataset.classes, dataset.format, resume=resume)

    def _finish(self, start: float) -> None:
        """Calibrate the model and save it; `start` is when the first phase began, by time.monotonic."""
        if not self.is_complete:
            self.save_progress()
        self.predictor = self.trainer.finish()
        state = self.trainer.state
        elapsed = state.progress.elapsed if state.objectives else time.monotonic() - start  # closed form: with features
        self.record = training_record(self.setup, self.predictor, self.command, elapsed / 60)
        self._remember(**self._diagnostics(self.trainer))
        write_history(self.folder, self.history)
        if self.is_complete:
            (self.folder / TRAINING_STATE).unlink(missing_ok=True)

    def _remember(self, **fields: object) -> None:
        """Add fields to the training record and save the model with it."""
        self.record = self.record.model_copy(update=fields)
        extra = {"run": self.setup.config.model_dump(), "record": self.record.model_dump()}
        self.predictor = save(self.predictor, self.folder, extra=extra)

    def _augment(self) -> Iterator[Step]:
        """Train once more with images generated by another model; keep that model if held-out accuracy rises."""
        config, dataset = self.setup.config, self.setup.dataset
        if config.augment_with is None or dataset.format is None:
            return
        folder, n = synthetic_augmentation.parse_source(config.augment_with)
        generator = load(folder)
        generated = synthetic_augmentation.generate_images(
            generator, n, dataset.classes, dataset.format, seed=config.seed
        )
        other = self._trainer(replace(self.setup.splits, generated=generated), config.seed)
        yield from other.steps()
        held_out = self.setup.held_out_images(self.trainer.plan.cross_conformal)
        before, after = (
            each.validation_predictor.log_posterior(held_out.images).argmax(1) == held_out.labels
            for each in (self.trainer, other)
        )
        found = synthetic_augmentation.AugmentationResult.compare(
            generator.id or str(folder), len(generated), before, after, groups=held_out.groups
        )
        fields: dict[str, object] = {"synthetic_augmentation": found}
        if found.accepted:
            self.predictor, self.trainer = other.predictor, other
            fields |= self._diagnostics(other)
        self._remember(**fields)

    def _diagnostics(self, trainer: Trainer) -> dict[str, object]:
        return diagnostics(self.setup, trainer.validation_predictor, trainer.plan.cross_conformal)

    def _fit_decoder(self) -> Iterator[Step]:
        """Train an image decoder for a model of a backbone's features, if configured; stopping keeps it as it is then."""
        options = self.setup.config.decoder
        if options.minutes is None:
            return
        training = decoder_training(self.predictor, self.setup.splits.train, options)
        try:
            yield from training.steps()
        finally:
            self.predictor = replace(self.predictor, feature_decoder=training.decoder)
            self._remember()

    def _check_labels(self) -> Iterator[Step]:
        """Train short softmax classifiers, each without one fold of the training images, and find label issues.

        Together they also measure the quality of the model's samples.
        """
        config, setup = self.setup.config, self.setup
        if not config.label_check_folds or setup.dataset.format is None:
            return
        check = LabelCheck(config, setup.dataset, setup.splits)
        try:
            classifiers = yield from check.fold_classifiers()
        except DivergenceError as error:
            self._notes.append(f"Labels were not checked: {error}")
            return
        if not classifiers:
            return
        self._label_issues = check.label_issues(classifiers)
        if self.predictor.generates_images:
            self._measure_samples(classifiers)

    def _measure_samples(self, classifiers: Sequence[Predictor]) -> None:
        folds, seed = self.setup.config.label_check_folds, self.setup.config.seed
        name = (
            f"{len(classifiers)} short trainings of {BASELINE_FAMILY!r}, each without one of {folds} folds of the "
            "training images"
        )
        samples = sample_images(self.predictor, SAMPLES_PER_CLASS, seed)
        ensemble = Ensemble(name, classifiers)
        self._remember(
            sample_quality=sample_quality(samples, ensemble, self.setup.splits.train, self.setup.eval_images, seed=seed)
        )

    def _repeat(self) -> Iterator[Step]:
        """Train on other splits of the training images, and evaluate each on a fifth that it holds out."""
        config, dataset = self.setup.config, self.setup.dataset
        available = tuple(name for name in dataset.available if name != "test")  # so that a test split is held out
        for i in range(config.repeats):
            seed = config.seed + 1 + i
            splits = make_splits(replace(dataset, available=available), seed)
            splits = replace(splits, unknown=self.setup.splits.unknown)
            try:
                predictor = yield from self._trainer(splits, seed).steps()
            except DivergenceError as error:
                self._notes.append(f"Training {i + 2} of {config.repeats + 1}: {error}")
                continue
            assert splits.test is not None
            test = splits.test.labeled()
            if not len(test):
                self._notes.append("Repeated trainings were not evaluated: there are too few images to hold some out.")
                return
            result = RepeatResult.from_result(evaluate(predictor, test, alpha=ALPHA), seed, len(splits.train))
            self._remember(repeats=(*self.record.repeats, result))

    def _write_report(self) -> None:
        images = self.setup.eval_images
        evaluation = None
        if len(images):
            of_test = self.setup.splits.test is not None
            predictor = self.predictor if of_test else self.trainer.validation_predictor
            split = "test" if of_test else "validation"
            evaluation = (replace(evaluate(predictor, images, alpha=ALPHA), split=split), images)
        inputs = ReportInputs(
            self.predictor,
            self.record,
            self.history,
            evaluation,
            label_issues=self._label_issues,
            training_images=self.setup.dataset.train,
            notes=tuple(self._notes),
        )
        self.content = build_report(inputs)
        write_pages(self.folder, self.content)


def write_pages(folder: Path, content: ReportContent) -> None:
    """Write the report and the card of a model folder."""
    checkpoint.write_atomically(folder / REPORT, render(content).encode())
    checkpoint.write_atomically(folder / CARD, model_card(content).encode())


@dataclass
class _EpochRow:
    """A row of history.csv in the making: mean losses of an epoch, each over the steps that computed it."""

    sums: dict[str, float] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)

    def add(self, step: Step) -> None:
        for name, loss in step.losses.items() if step.note is None else ():
            self.sums[name] = self.sums.get(name, 0.0) + loss
            self.counts[name] = self.counts.get(name, 0) + 1

    def finished(self, step: Step) -> dict[str, float]:
        means = {f"loss/{name}": total / self.counts[name] for name, total in self.sums.items()}
        found = {f"validation/{name}": value for name, value in step.validation.items()}
        position = {"epoch": float(step.epoch + 1), "step": float(step.number), "seconds": round(step.elapsed, 3)}
        return position | {"learning_rate": step.learning_rate} | means | found
