"""A run: data, model and training options together, saved with what they made. The one path from DATA to a model folder."""

from likely.run.folders import start_run, load_record, resume_run, load_config, save_with_new_class, held_out_splits, load_unfinished_config, baseline_run
from likely.run.folds import BASELINE_FAMILY
from likely.run.options import TrainConfig, RunError
from likely.run.pages import CARD, REPORT, write_pages
from likely.run.session import ALPHA, SAMPLES_PER_CLASS, TRAINING_STATE, TrainingRun

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
