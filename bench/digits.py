"""Accuracy, calibration, false alarms and training time on the embedded digits, over seeds.

    python bench/digits.py --seeds 0 1 2 3 4

Appends one line per seed and family to bench/results/digits.jsonl, unless it exists, and writes the table next to it.
"""

from __future__ import annotations

import time
from functools import partial
from typing import Any

import numpy as np
import torch
from coverage import alarms, n_above
from results import RESULTS, arguments, measure_once, provenance, rows, write_table

from likely.classifier.trainer import ModelSpec, Trainer
from likely.data.loading import load_dataset
from likely.data.splits import make_splits
from likely.evaluation.evaluate import evaluate
from likely.training.options import TrainingOptions

RESULTS_FILE = RESULTS / "digits.jsonl"
EPOCHS = 60
FAMILIES = ("vae", "gaussian", "softmax")
MEANS = ("accuracy", "nll", "ece", "false_alarm_rate", "seconds")


def main() -> None:
    args = arguments(__doc__).parse_args()
    torch.set_num_threads(args.threads)
    for seed in args.seeds:
        for family in FAMILIES:
            key = {"family": family, "seed": seed}
            measure_once(RESULTS_FILE, key, args.threads, partial(measured, family, seed))
    write_table(RESULTS_FILE, table())


def measured(family: str, seed: int) -> dict[str, Any]:
    """Train on the training split and measure on the test split, which selects nothing."""
    dataset, test = load_dataset("digits", splits=("train",)), load_dataset("digits", splits=("test",)).splits["test"]
    spec = ModelSpec(family, training=TrainingOptions(epochs=EPOCHS), seed=seed)
    trainer, start = Trainer(spec, make_splits(dataset, seed), dataset.classes, dataset.format), time.perf_counter()
    for _ in trainer.steps():
        pass
    seconds = time.perf_counter() - start
    result = evaluate(trainer.predictor, test, alpha=0.05).as_json()
    values = {name: value for name, value in result.items() if name != "per_class"}
    return {"seconds": seconds, **values, "alarms": alarms(trainer.predictor, test)}


def table() -> str:
    """One row per family: means over seeds, and the range of the accuracy."""
    lines = [
        "| family | accuracy | minimum to maximum | NLL | ECE | bits/dim | false-alarm rate at α = 0.05 "
        "| classes above their bound | seconds |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    whole = rows(RESULTS_FILE)
    for family in FAMILIES:
        found = [row for row in whole if row["family"] == family]
        mean = {name: np.mean([row[name] for row in found]) for name in MEANS}
        spread = f"{min(row['accuracy'] for row in found):.4f} to {max(row['accuracy'] for row in found):.4f}"
        bits = "" if found[0]["bits_per_dim"] is None else f"{np.mean([row['bits_per_dim'] for row in found]):.3f}"
        above = f"{sum(n_above(row['alarms']) for row in found)} of {20 * len(found)}"
        lines.append(
            f"| {family} | {mean['accuracy']:.4f} | {spread} | {mean['nll']:.4f} | {mean['ece']:.4f} | {bits} | "
            f"{mean['false_alarm_rate']:.4f} | {above} | {mean['seconds']:.1f} |"
        )
    seeds = ", ".join(str(seed) for seed in sorted({row["seed"] for row in whole}))
    note = f"Seeds {seeds}; {EPOCHS} epochs; {whole[0]['n']} test images. {provenance(whole)}"
    return "\n".join([*lines, "", note]) + "\n"


if __name__ == "__main__":
    main()
