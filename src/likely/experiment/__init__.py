"""A run: data, model and training options together, saved with what they made. The one path from DATA to a model folder."""

from likely.exceptions import TrainConfigError
from likely.experiment.config import TrainConfig
from likely.experiment.label_check import BASELINE_FAMILY
from likely.experiment.model_folders import (
    baseline_run,
    held_out_splits,
    load_config,
    load_record,
    load_unfinished_config,
    resume_run,
    save_with_new_class,
    start_run,
)
from likely.experiment.outputs import CARD, REPORT, write_pages
from likely.experiment.train import ALPHA, SAMPLES_PER_CLASS, TRAINING_STATE, TrainingRun

__all__ = [
    "ALPHA",
    "BASELINE_FAMILY",
    "CARD",
    "REPORT",
    "SAMPLES_PER_CLASS",
    "TRAINING_STATE",
    "TrainConfig",
    "TrainConfigError",
    "TrainingRun",
    "baseline_run",
    "held_out_splits",
    "load_config",
    "load_record",
    "load_unfinished_config",
    "resume_run",
    "save_with_new_class",
    "start_run",
    "write_pages",
]
