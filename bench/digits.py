"""The embedded digits over seeds: accuracy, calibration, false alarms, seconds.

    python bench/digits.py --seeds 0 1 2 3 4

Appends a line for each seed and family to bench/results/digits.jsonl, unless it is there, and writes the table beside it.
"""

from __future__ import annotations

import time

import numpy as np
import torch
from coverage import alarms, n_above
from results import RESULTS, append, arguments, environment, provenance, rows, write_table

from likely import Classifier
from likely.data.loading import load_dataset
from likely.data.splits import make_splits
from likely.evaluation.evaluate import evaluate

RESULTS_FILE = RESULTS / "digits.jsonl"
EPOCHS = 60
FAMILIES = {"vae": {}, "gaussian": {}, "softmax": {}}


def main() -> None:
    parser = arguments(__doc__)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    for seed in args.seeds:
        for family in FAMILIES:
            if not any((row["seed"], row["family"]) == (seed, family) for row in rows(RESULTS_FILE)):
                append(RESULTS_FILE, measured(family, seed, args.threads))
    write_table(RESULTS_FILE, table())


def measured(family: str, seed: int, threads: int) -> dict[str, object]:
    """Train on the digits' training split and measure on their test split, which nothing was chosen by."""
    dataset = load_dataset("digits", splits=("train",))
    splits = make_splits(dataset, seed)
    classifier = Classifier(family, training={"epochs": EPOCHS}, random_state=seed)
    start = time.perf_counter()
    for _ in classifier.fit_steps(splits, dataset.classes, dataset.format):
        pass
    classifier.finish(splits)
    seconds = time.perf_counter() - start
    test = load_dataset("digits", splits=("test",)).test
    assert test is not None
    found = evaluate(classifier, test, alpha=0.05).as_json()
    return {
        **environment(threads),
        "family": family,
        "seed": seed,
        "seconds": seconds,
        **{name: value for name, value in found.items() if name != "per_class"},
        "alarms": alarms(classifier, test),
    }


def table() -> str:
    """A row a family: the mean over seeds, and the range of the accuracy."""
    lines = [
        "| family | accuracy | least to most | nll | ece | bits/dim "
        "| false alarms at 0.05 | classes above their bound | seconds |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for family in FAMILIES:
        found = [row for row in rows(RESULTS_FILE) if row["family"] == family]
        mean = {
            name: np.mean([row[name] for row in found])
            for name in ("accuracy", "nll", "ece", "false_alarm_rate", "seconds")
        }
        spread = f"{min(row['accuracy'] for row in found):.4f} to {max(row['accuracy'] for row in found):.4f}"
        bits = "" if found[0]["bits_per_dim"] is None else f"{np.mean([row['bits_per_dim'] for row in found]):.3f}"
        above = f"{sum(n_above(row['alarms']) for row in found)} of {20 * len(found)}"
        lines.append(
            f"| {family} | {mean['accuracy']:.4f} | {spread} | {mean['nll']:.4f} | {mean['ece']:.4f} | {bits} | "
            f"{mean['false_alarm_rate']:.4f} | {above} | {mean['seconds']:.1f} |"
        )
    seeds = ", ".join(str(seed) for seed in sorted({row["seed"] for row in rows(RESULTS_FILE)}))
    lines += [
        "",
        f"Seeds {seeds}; {EPOCHS} epochs; {found[0]['n']} test images. " + provenance(rows(RESULTS_FILE)),
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
