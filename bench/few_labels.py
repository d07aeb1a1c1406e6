"""Semi-supervised learning with ten labels per class: `gan --preset classifier` against the baseline on labeled images only.

    python bench/few_labels.py $DATA/mnist --minutes 30 --seeds 0 1 2

No images are held out, and test images select nothing: the final averaged weights are measured once on the test split.
Appends one line per seed and family to bench/results/few_labels.jsonl, unless it exists, and writes the table next to
it.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from itertools import groupby
from typing import Any

import numpy as np
import torch
from results import RESULTS, arguments, measure_once, provenance, resolved, rows, write_table

from likely.classifier.trainer import ModelSpec, Trainer
from likely.data.dataset import Dataset
from likely.data.loading import load_dataset
from likely.data.splits import Splits
from likely.training.options import TrainingOptions

RESULTS_FILE = RESULTS / "few_labels.jsonl"
FAMILIES: Mapping[str, Mapping[str, Any]] = {"gan": {"preset": "classifier"}, "softmax": {}}
RESOLVED = {family: resolved(family, options, {}) for family, options in FAMILIES.items()}
BASELINE_EPOCHS = 500  # of the 100 labeled images


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("data", help="MNIST, or other data with a test split")
    parser.add_argument("--minutes", type=float, default=30.0, help="training time of the GAN (default 30)")
    parser.add_argument("--labels", type=int, default=10, help="labeled images per class (default 10)")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    for seed in args.seeds:
        for family in FAMILIES:
            key = {"family": family, "seed": seed, "labels": args.labels, "minutes": args.minutes}
            key["options"] = RESOLVED[family]
            measure_once(RESULTS_FILE, key, args.threads, partial(measured, family, seed, args))
    write_table(RESULTS_FILE, table())


def measured(family: str, seed: int, args: argparse.Namespace) -> dict[str, Any]:
    """Train with few labels and count the errors on the test split."""
    dataset = load_dataset(args.data)
    splits, length = few_labeled(dataset, args.labels, seed), {"minutes": args.minutes}
    if family == "softmax":
        splits, length = replace(splits, train=splits.train.labeled()), {"epochs": BASELINE_EPOCHS}
    training = TrainingOptions.model_validate(length | {"threads": args.threads})
    trainer = Trainer(ModelSpec(family, FAMILIES[family], training, seed=seed), splits, dataset.classes, dataset.format)
    notes, start, epochs = [], time.perf_counter(), 0
    for step in trainer.steps():
        notes += [step.note] if step.note else []
        epochs = step.epoch + 1
        if step.ends_epoch and family == "gan":
            print(f"seed {seed}  epoch {epochs}  {step.elapsed:,.0f} s  {dict(step.losses)}", flush=True)
    test = dataset.splits["test"]
    wrong = int((trainer.predictor.log_posterior(test.images).argmax(1) != test.labels).sum())
    seconds = time.perf_counter() - start
    return {"seconds": seconds, "epochs": epochs, "rollbacks": notes, "n_test": len(test.labels), "wrong": wrong}


def few_labeled(dataset: Dataset, n: int, seed: int) -> Splits:
    """Return all training images, of which n random ones per class keep their label; no images are held out."""
    assert dataset.train is not None
    labels, rng = np.full(len(dataset.train), -1, np.int64), np.random.default_rng(seed)
    for c in range(len(dataset.classes)):
        labels[rng.choice(np.flatnonzero(dataset.train.labels == c), n, replace=False)] = c
    train = replace(dataset.train, labels=labels)
    nothing = train.subset(np.zeros(0, np.int64))
    return Splits(train=train, validation=nothing, calibration=nothing, test=None)


def table() -> str:
    """One row per family, over seeds."""
    lines = [
        "| family | labels per class | test error | minimum to maximum | minutes | seeds |",
        "|---|---:|---:|---:|---:|---|",
    ]

    def setting(row: dict[str, Any]) -> tuple[str, int, float]:
        return row["family"], row["labels"], row["minutes"]

    found = [row for row in rows(RESULTS_FILE) if row["options"] == RESOLVED[row["family"]]]
    for (family, labels, _), each in groupby(sorted(found, key=setting), setting):
        group = list(each)
        errors = [row["wrong"] / row["n_test"] for row in group]
        minutes = np.mean([row["seconds"] for row in group]) / 60
        seeds = ", ".join(str(row["seed"]) for row in group)
        spread = f"{min(errors):.2%} to {max(errors):.2%}"
        lines.append(f"| {family} | {labels} | {np.mean(errors):.2%} | {spread} | {minutes:.1f} | {seeds} |")
    return "\n".join([*lines, "", provenance(found)]) + "\n"


if __name__ == "__main__":
    main()
