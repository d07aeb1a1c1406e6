"""Diagnostics of a new model: its training record, memorization and reference p-values."""

from __future__ import annotations

import platform
from datetime import date

import torch

from likely.base import GenerativeModel
from likely.classifier import Predictor
from likely.data.splits import Splits
from likely.evaluation.memorization import Memorization, measure_memorization
from likely.evaluation.sample_quality import sample_images
from likely.evaluation.training_record import CalibrationSize, ReferencePValues, TrainingRecord
from likely.experiment.config import TrainingSetup
from likely.inference.decision import DecisionRule
from likely.prediction import CalibrationMethod
from likely.training.device import describe_machine, select_dtype
from likely.version import __version__

ALPHA = 0.05  # significance level of reports
SAMPLES_PER_CLASS = 100
_VALIDATION_NOTE = (
    "These metrics are of the validation images, scored by a model that was not fitted to them. They also chose its weights or "
    "options, so they are slightly too good. "
    "`likely evaluate MODEL DATA --report report.html` evaluates on the data's own test split."
)


def training_record(setup: TrainingSetup, predictor: Predictor, command: str, minutes: float) -> TrainingRecord:
    """Return the record of a training."""
    splits, training = setup.splits, predictor.training
    named = {"train": splits.train, "validation": splits.validation, "calibration": splits.calibration}
    named |= {"test": splits.test} if splits.test is not None else {}
    return TrainingRecord(
        date=date.today().isoformat(),
        command=command,
        source=setup.config.data,
        counts={name: list(images.class_counts(len(setup.dataset.classes))) for name, images in named.items()},
        n_groups={name: images.n_groups for name, images in named.items()} if splits.train.groups is not None else {},
        calibration=_calibration_size(splits, predictor.decision_rule),
        n_unlabeled=int((splits.train.labels < 0).sum()),
        skipped={error.source: error.message for error in setup.dataset.errors},
        versions={"likely": __version__, "torch": torch.__version__, "python": platform.python_version()},
        machine=describe_machine(),
        seed=setup.config.seed,
        minutes=minutes,
        threads=training.threads or 1,
        precision=str(select_dtype(training, predictor.device, predictor.model.task.shape)).removeprefix("torch."),
        note=_VALIDATION_NOTE if splits.test is None else "",
    )


def _calibration_size(splits: Splits, rule: DecisionRule) -> CalibrationSize:
    is_cross = rule.method is CalibrationMethod.CROSS_CONFORMAL
    images = splits.training_images(calibration=True, validation=True, generated=False).labeled()
    return CalibrationSize(
        method=rule.method,
        n=len(images if is_cross else splits.calibration),
        n_calibrating=len(rule.typicality.labels),
        is_by_group=splits.train.groups is not None,
    )


def diagnostics(setup: TrainingSetup, predictor: Predictor, cross_conformal: bool) -> dict[str, object]:
    """Return the fields of a training record that depend on the model."""
    return {
        "memorization": _memorization(setup, predictor, cross_conformal),
        "reference_p_values": _reference_p_values(setup, predictor),
    }


def _reference_p_values(setup: TrainingSetup, predictor: Predictor) -> ReferencePValues | None:
    images = setup.splits.validation.images
    if not len(images):
        return None
    return ReferencePValues.from_p_values(predictor.conformal_output(images, alpha=ALPHA).p_value)


def _memorization(setup: TrainingSetup, predictor: Predictor, cross_conformal: bool) -> Memorization | None:
    if not isinstance(predictor.model, GenerativeModel):
        return None
    seed = setup.config.seed
    samples = sample_images(predictor, SAMPLES_PER_CLASS, seed) if predictor.generates_images else None
    unseen = setup.unseen_images(cross_conformal)
    return measure_memorization(predictor, setup.splits.train, unseen, samples, seed=seed)
