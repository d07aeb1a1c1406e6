"""Ten labels a class: `gan` in its classifier preset beside unlabeled images, and the baseline on the same labels alone.

    python bench/few_labels.py $DATA/mnist --minutes 30 --seeds 0 1 2

Nothing is set aside and nothing is chosen by test images: the last averaged weights are measured, once, on the test split.
Appends a line for each seed and family to bench/results/few_labels.jsonl, unless it is there, and writes the table beside it.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace

import numpy as np
import torch
from results import RESULTS, append, arguments, environment, provenance, resolved, rows, write_table

from likely import Classifier
from likely.data.dataset import Dataset
from likely.data.loading import load_dataset
from likely.data.splits import Splits

RESULTS_FILE = RESULTS / "few_labels.jsonl"
FAMILIES: dict[str, dict[str, object]] = {
    "gan": {"preset": "classifier"},
    "softmax": {},
}
HOW = {family: resolved(family, options, {}) for family, options in FAMILIES.items()}
BASELINE_EPOCHS = 500  # of the 100 labeled images


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("data")
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--labels", type=int, default=10)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    for seed in args.seeds:
        for family in FAMILIES:
            known = [
                (row["seed"], row["family"], row["minutes"], row["labels"], row["how"]) for row in rows(RESULTS_FILE)
            ]
            if (seed, family, args.minutes, args.labels, HOW[family]) not in known:
                append(RESULTS_FILE, measured(family, seed, args) | {"how": HOW[family]})
    write_table(RESULTS_FILE, table())


def measured(family: str, seed: int, args: argparse.Namespace) -> dict[str, object]:
    dataset = load_dataset(args.data)
    splits, length = few_labeled(dataset, args.labels, seed), {"minutes": args.minutes}
    if family == "softmax":
        splits, length = replace(splits, train=splits.train.labeled()), {"epochs": BASELINE_EPOCHS}
    classifier = Classifier(
        family, options=FAMILIES[family], training=length | {"threads": args.threads}, random_state=seed
    )
    notes, start = [], time.perf_counter()
    for step in classifier.fit_steps(splits, dataset.classes, dataset.format):
        notes += [step.note] if step.note else []
        if step.ends_epoch and family == "gan":
            print(f"seed {seed}  epoch {step.epoch + 1}  {step.elapsed:,.0f} s  {dict(step.losses)}", flush=True)
    classifier.finish(splits)
    test = dataset.test
    assert test is not None
    wrong = int((classifier.log_posterior(test.images).argmax(1) != test.labels).sum())
    return {
        **environment(args.threads),
        "family": family,
        "seed": seed,
        "labels": args.labels,
        "minutes": args.minutes,
        "seconds": time.perf_counter() - start,
        "epochs": step.epoch + 1,
        "rollbacks": notes,
        "n_test": len(test.labels),
        "wrong": wrong,
    }


def few_labeled(dataset: Dataset, n: int, seed: int) -> Splits:
    """The training images, of which n of each class, drawn by the seed, keep their label; nothing is set aside."""
    assert dataset.train is not None
    labels, rng = np.full(len(dataset.train), -1, np.int64), np.random.default_rng(seed)
    for c in range(len(dataset.classes)):
        labels[rng.choice(np.flatnonzero(dataset.train.labels == c), n, replace=False)] = c
    train = replace(dataset.train, labels=labels)
    nothing = train.subset(np.zeros(0, np.int64))
    return Splits(train=train, validation=nothing, calibration=nothing, test=None)


def table() -> str:
    """The results as Markdown: a row a family, over seeds."""
    lines = [
        "| family | labels a class | test error | least to most | minutes | seeds |",
        "|---|---:|---:|---:|---:|---|",
    ]
    found = [row for row in rows(RESULTS_FILE) if row["how"] == HOW[row["family"]]]
    groups = {(row["family"], row["labels"], row["minutes"]): [] for row in found}
    for row in found:
        groups[row["family"], row["labels"], row["minutes"]].append(row)
    for (family, labels, _), group in groups.items():
        errors = [row["wrong"] / row["n_test"] for row in group]
        minutes = np.mean([row["seconds"] for row in group]) / 60
        seeds = ", ".join(str(row["seed"]) for row in group)
        spread = f"{min(errors):.2%} to {max(errors):.2%}"
        lines.append(f"| {family} | {labels} | {np.mean(errors):.2%} | {spread} | {minutes:.1f} | {seeds} |")
    return "\n".join([*lines, "", provenance(found)]) + "\n"


if __name__ == "__main__":
    main()
