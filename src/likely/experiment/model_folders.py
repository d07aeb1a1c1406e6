"""Model folders: start or resume a training in one, and read what it stored."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeAlias

import numpy as np
from torch import Tensor

from likely import checkpoint
from likely.checkpoint import signing
from likely.classifier import Predictor, save
from likely.classifier.recalibration import Recalibration
from likely.data.loading import load_dataset
from likely.data.splits import Splits
from likely.evaluation.training_record import (
    RecalibrationRecord,
    ReferencePValues,
    TrainingRecord,
    load_record,
    read_history,
    stored_field,
    write_history,
)
from likely.exceptions import DataError, TrainConfigError
from likely.experiment.config import TrainConfig, prepare, split_dataset
from likely.experiment.label_check import BASELINE_FAMILY
from likely.experiment.train import TRAINING_STATE, Training, write_pages
from likely.options import Options
from likely.reporting.build import ReportInputs, build_report
from likely.training import state
from likely.training.options import TrainingOptions

Progress: TypeAlias = Callable[[int, int], None]  # images done and their total


class _EpochRowFields(Options):
    sums: dict[str, float]
    counts: dict[str, int]


class _StateFields(Options):
    progress: state.Progress
    optimizers: list[dict[str, Any]]
    seed: int
    data: str
    history: list[dict[str, float]]
    row: _EpochRowFields


class _Unfinished(Options):
    """Document of an unfinished training; `run` is validated where it is read."""

    run: dict[str, Any]
    state: _StateFields


def start_run(config: TrainConfig, out: Path, *, command: str = "", progress: Progress | None = None) -> Training:
    """Start a training; TrainConfigError if `out` already holds something."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        unfinished = (out / TRAINING_STATE).exists()
        resume = "--resume continues the training that it holds, " if unfinished else ""
        raise TrainConfigError(
            f"{out} is not empty; {resume}--overwrite replaces it, or name another folder with --out"
        )
    return Training(prepare(config, progress), out, command=command)


def resume_run(out: Path, *, data: str | None = None, command: str = "", progress: Progress | None = None) -> Training:
    """Continue the unfinished training of a folder, with its options; TrainConfigError if there is none.

    `data` is the present name of DATA, if that has changed.
    """
    if not (out / TRAINING_STATE).exists():
        state = "its training is complete" if (out / checkpoint.DOCUMENT).exists() else "no training was begun there"
        raise TrainConfigError(f"{out} has nothing to resume: {state}; leave out --resume to start a new training")
    tensors, document = _read_unfinished(out)
    config = TrainConfig.from_stored(document["run"] | ({"data": data} if data else {}), _place_of_run(out))
    return Training(prepare(config, progress), out, command=command, snapshot=(tensors, document["state"]))


def load_unfinished_config(out: Path) -> TrainConfig:
    """Return the configuration of a folder's unfinished training."""
    return TrainConfig.from_stored(_read_unfinished(out)[1]["run"], _place_of_run(out))


def _read_unfinished(out: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    tensors, document = checkpoint.read_tensors(out / TRAINING_STATE)
    _Unfinished.from_stored(document, out / TRAINING_STATE)
    return tensors, document


def _place_of_run(out: Path) -> str:
    return f"{out / TRAINING_STATE}: run"


def load_config(folder: Path) -> TrainConfig:
    """Return the configuration that a model folder was trained with; DataError if it was saved from Python."""
    return TrainConfig.from_stored(*stored_field(folder, "run"))


def _config_of_all_classes(folder: Path, consequence: str) -> TrainConfig:
    """Return the configuration of a model without added classes; DataError if it has any."""
    if added := load_record(folder).added_classes:
        raise DataError(f"{folder} was extended with {', '.join(map(repr, added))}, {consequence}")
    return load_config(folder)


def held_out_splits(
    predictor: Predictor, folder: Path, data: str | None = None, progress: Progress | None = None
) -> Splits:
    """Read the splits of a model folder's training again, from where they were or from `data`; DataError if they changed."""
    config = _config_of_all_classes(folder, "from images that were not recorded")
    source = data or config.data
    dataset = load_dataset(source, config.images, splits=("train", "validation"), progress=progress)
    dataset, splits = split_dataset(dataset, config.seed)
    known = [np.isin(each.hashes, predictor.hashes) for each in (splits.train, splits.validation, splits.calibration)]
    if dataset.classes != predictor.labels or not all(found.all() for found in known):
        raise DataError(f"{source} does not hold the images that {folder} was trained on, as they were then")
    return splits


def baseline_run(folder: Path, out: Path, *, data: str | None = None, progress: Progress | None = None) -> Training:
    """Start to train the softmax baseline of a model folder: the same data, network size, training length and seed."""
    config = _config_of_all_classes(folder, "so it has no baseline")
    training = config.main_training
    names = ("epochs", "minutes", "threads", "device", "precision", "augment")
    values = {name: getattr(training, name) for name in names}
    baseline = TrainConfig(
        data=data or config.data,
        model=BASELINE_FAMILY,
        options={name: config.options[name] for name in ("width", "depth") if name in config.options},
        training=TrainingOptions(**{name: value for name, value in values.items() if value is not None}),
        images=config.images,
        seed=config.seed,
        label_check_folds=0,
    )
    return start_run(baseline, out, command=f"baseline of {folder}", progress=progress)


def save_extended(predictor: Predictor, counts: Mapping[str, int], folder: Path, out: Path, *, command: str) -> None:
    """Write a predictor whose classes, new or not, learned from further `counts` images beside the folder that it extends.

    The folder is encrypted if the other one is.
    """
    record, config = load_record(folder), load_config(folder)
    for name, n in counts.items():
        record = record.with_images(predictor.index(name), name, n)
    outdated = {"sample_quality": None, "memorization": None, "reference_p_values": None, "repeats": ()}
    record = record.model_copy(update={"command": command, "date": date.today().isoformat(), **outdated})
    _write_model(predictor, (config, record), folder, out)


def save_recalibrated(found: Recalibration, source: str, folder: Path, out: Path, *, command: str) -> Predictor:
    """Write a predictor that images of `source` calibrated again to `out`, which may be its own folder; return it with its id.

    All files are written before the first of them takes its place. A signature becomes invalid and is removed.
    """
    record, config = load_record(folder), load_config(folder)
    rule = found.predictor.decision_rule
    note = RecalibrationRecord(
        date=date.today().isoformat(),
        command=command,
        source=source,
        n_images=len(found.names),
        n_labeled=found.n_labeled,
        classes=found.updated,
        temperature_before=found.temperature_before,
    )
    # Each image ranks among the others, so that these p-values are uniform.
    reference = ReferencePValues.from_p_values(rule.image_calibrator.leave_one_out_p_values())
    record = record.model_copy(update={"recalibration": note, "reference_p_values": reference, "note": ""})
    out.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=".", dir=out.parent) as temporary:
        staging = Path(temporary, out.resolve().name)
        predictor = _write_model(found.predictor, (config, record), folder, staging)
        _replace_files(out, staging, keeps_others=out.resolve() == folder.resolve())
    return predictor


def _write_model(
    predictor: Predictor, origin: tuple[TrainConfig, TrainingRecord], folder: Path, out: Path
) -> Predictor:
    """Write a predictor that was made from that of another folder; encrypted if that folder is."""
    config, record = origin
    predictor = save(predictor, out, extra={"run": config.model_dump(), "record": record.model_dump()})
    history = read_history(folder)
    write_history(out, history)
    write_pages(out, build_report(ReportInputs(predictor, record, history)))
    if checkpoint.is_encrypted(folder):
        checkpoint.encrypt(out, checkpoint.TrustPolicy().keys)
    return predictor


def _replace_files(out: Path, staging: Path, *, keeps_others: bool) -> None:
    """Move the files of a complete model folder to another, and remove the others there, or only a signature."""
    out.mkdir(exist_ok=True)
    names = [path.name for path in staging.iterdir()]
    for name in names:
        (staging / name).replace(out / name)
    for path in out.iterdir():
        if path.name in signing.OWN or not (keeps_others or path.name in names):
            path.unlink()
