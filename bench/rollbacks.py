"""Frequency of divergence: many tiny trainings of `gan` and `flow` on the embedded digits.

    python bench/rollbacks.py --seeds $(seq 0 199)

A training whose loss becomes NaN or explodes is rolled back and continued at half the learning rate; after repeated
rollbacks it ends in a DivergenceError. Every other training must end with finite weights and predictions, which is
checked for every run. Appends one line per configuration and seed to bench/results/rollbacks.jsonl, unless it exists,
and writes the table next to it.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import partial
from math import isfinite
from typing import Any

import numpy as np
import torch
from results import RESULTS, arguments, measure_once, provenance, rows, write_table

from likely import models
from likely.classifier import Predictor
from likely.classifier.trainer import ModelSpec, Trainer
from likely.data.dataset import Dataset, LabeledImages
from likely.data.loading import load_dataset
from likely.data.splits import make_splits
from likely.evaluation.metrics import clopper_pearson
from likely.exceptions import DivergenceError
from likely.training.options import TrainingOptions

RESULTS_FILE = RESULTS / "rollbacks.jsonl"
EPOCHS = 3
# Family, options, and the factor of the default learning rate; divergence is likelier at ten times that rate.
RUNS: Mapping[str, tuple[str, Mapping[str, Any], float]] = {
    "gan": ("gan", {"width": 8}, 1.0),
    "gan, ten times the rate": ("gan", {"width": 8}, 10.0),
    "flow": ("flow", {"width": 8, "n_couplings": 2}, 1.0),
    "flow, ten times the rate": ("flow", {"width": 8, "n_couplings": 2}, 10.0),
}


def main() -> None:
    parser = arguments(__doc__)
    parser.set_defaults(seeds=range(200), threads=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    dataset = load_dataset("digits")
    for seed in args.seeds:
        for run in RUNS:
            measure_once(RESULTS_FILE, {"run": run, "seed": seed}, args.threads, partial(measured, run, seed, dataset))
    write_table(RESULTS_FILE, table())


def measured(run: str, seed: int, dataset: Dataset) -> dict[str, Any]:
    """Train once; return the rollbacks, the divergence message if any, and the number of unreported non-finite values."""
    family, options, factor = RUNS[run]
    defaults = models.family(family).options_type.model_validate(options).training_defaults
    rate = TrainingOptions().with_defaults(defaults).learning_rate * factor
    spec = ModelSpec(family, options, TrainingOptions(epochs=EPOCHS, learning_rate=rate), seed=seed)
    trainer = Trainer(spec, make_splits(dataset, seed), dataset.classes, dataset.format)
    notes: list[str] = []
    diverged, unreported, start = None, 0, time.perf_counter()
    try:
        for step in trainer.steps():
            notes += [step.note] if step.note else []
            unreported += step.note is None and not all(isfinite(loss) for loss in step.losses.values())
        unreported += not is_finite(trainer.predictor, dataset.splits["test"])
    except DivergenceError as error:
        diverged = str(error)
    return {
        "epochs": EPOCHS,
        "learning_rate": rate,
        "rollbacks": notes,
        "diverged": diverged,
        "unreported": unreported,
        "seconds": time.perf_counter() - start,
    }


def is_finite(predictor: Predictor, test: LabeledImages) -> bool:
    """Return True if all weights and all posteriors are finite."""
    weights = all(t.isfinite().all() for t in predictor.model.state_dict().values())
    return weights and bool(np.isfinite(predictor.log_posterior(test.images)).all())


def table() -> str:
    """One row per configuration."""
    lines = [
        "| run | seeds | rolled back | 95 % interval | diverged with an error | NaN unreported | seconds per run |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    found = rows(RESULTS_FILE)
    for run in RUNS:
        group = [row for row in found if row["run"] == run]
        if group:
            n, n_back = len(group), sum(bool(row["rollbacks"]) or row["diverged"] is not None for row in group)
            interval = clopper_pearson(n_back, n)
            n_diverged, unreported = (
                sum(row["diverged"] is not None for row in group),
                sum(row["unreported"] for row in group),
            )
            seconds = sum(row["seconds"] for row in group) / n
            lines.append(
                f"| {run} | {n} | {n_back / n:.1%} | {interval.low:.1%} to {interval.high:.1%} | {n_diverged} | {unreported} | "
                f"{seconds:.1f} |"
            )
    return "\n".join([*lines, "", f"{EPOCHS} epochs of the digits. {provenance(found)}"]) + "\n"


if __name__ == "__main__":
    main()
