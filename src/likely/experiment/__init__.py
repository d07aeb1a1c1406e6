"""A run: data, model and training options together, saved with what they made. The one path from DATA to a model folder."""

from likely.experiment.model_folders import (
    start_run,
    load_record,
    resume_run,
    load_config,
    save_with_new_class,
    held_out_splits,
    load_unfinished_config,
    baseline_run,
)
from likely.experiment.label_check import BASELINE_FAMILY
from likely.experiment.config import TrainConfig, RunError
from likely.experiment.outputs import CARD, REPORT, write_pages
from likely.experiment.train import ALPHA, SAMPLES_PER_CLASS, TRAINING_STATE, TrainingRun

__all__ = [
    "ALPHA",
    "CARD",
    "BASELINE_FAMILY",
    "SAMPLES_PER_CLASS",
    "REPORT",
    "TRAINING_STATE",
    "TrainConfig",
    "RunError",
    "TrainingRun",
    "start_run",
    "load_record",
    "resume_run",
    "load_config",
    "save_with_new_class",
    "held_out_splits",
    "load_unfinished_config",
    "baseline_run",
    "write_pages",
]
