"""Training from DATA to a model folder, and what a model folder records of it."""

from likely.exceptions import TrainConfigError
from likely.experiment.config import TrainConfig, TrainingSetup, prepare
from likely.experiment.diagnostics import ALPHA, SAMPLES_PER_CLASS
from likely.experiment.label_check import BASELINE_FAMILY
from likely.experiment.model_folders import (
    baseline_run,
    held_out_splits,
    load_config,
    load_unfinished_config,
    resume_run,
    save_extended,
    save_recalibrated,
    start_run,
)
from likely.experiment.train import CARD, REPORT, TRAINING_STATE, Phase, Training, write_pages

__all__ = [
    "ALPHA",
    "BASELINE_FAMILY",
    "CARD",
    "REPORT",
    "SAMPLES_PER_CLASS",
    "TRAINING_STATE",
    "Phase",
    "TrainConfig",
    "TrainConfigError",
    "Training",
    "TrainingSetup",
    "baseline_run",
    "held_out_splits",
    "load_config",
    "load_unfinished_config",
    "prepare",
    "resume_run",
    "save_extended",
    "save_recalibrated",
    "start_run",
    "write_pages",
]
