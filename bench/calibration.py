"""Calibration of posteriors of every family, before and after temperature scaling.

    python bench/calibration.py $DATA/fashion-mnist --minutes 2 --seeds 0 --out /tmp/trust

Appends one line per model to bench/results/calibration.jsonl, unless it exists, and writes the table next to it.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from results import RESULTS, provenance, rows, write_table
from train_helpers import complete, model_arguments

from likely.classifier import load
from likely.evaluation import metrics
from likely.evaluation.eval_split import eval_split
from likely.inference.posterior import log_posterior, log_uniform
from likely.models import FAMILIES

RESULTS_FILE = RESULTS / "calibration.jsonl"


def main() -> None:
    args = model_arguments(__doc__, ",".join(FAMILIES), 2).parse_args()
    complete(args, RESULTS_FILE, measured)
    write_table(RESULTS_FILE, table())


@torch.inference_mode()
def measured(folder: Path, data: str, seed: int) -> dict[str, object]:
    """Return accuracy and ECE on test images; the temperature was fitted to validation images."""
    classifier = load(folder)
    labeled, T = eval_split(classifier, data).images, classifier.decision_rule.temperature
    scores = classifier.outputs(labeled.images).log_scores
    before, after = (log_posterior(scores, classifier.log_prior, each).numpy() for each in (1.0, T))
    predicted = [
        log_posterior(scores, log_uniform(len(classifier.labels)), each).argmax(1).numpy() for each in (1.0, T)
    ]
    return {
        "n": len(labeled),
        "accuracy": metrics.accuracy(after, labeled.labels),
        "temperature": T,
        "ece_before": metrics.ece(before, labeled.labels),
        "ece": metrics.ece(after, labeled.labels),
        "changed": int(np.sum(predicted[0] != predicted[1])),
    }


def table() -> str:
    """One row per model."""
    lines = [
        "| data | model | seed | minutes | accuracy | temperature | ECE at T = 1 | ECE | predictions changed under a "
        "uniform prior |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    found = rows(RESULTS_FILE)
    for row in found:
        start = f"| {row['data']} | {row['kind']} | {row['seed']} | {row['minutes']:g} | {row['accuracy']:.4f}"
        rest = (
            f"{row['temperature']:.2f} | {row['ece_before']:.4f} | {row['ece']:.4f} | {row['changed']} of {row['n']:,}"
        )
        lines.append(f"{start} | {rest} |")
    return "\n".join([*lines, "", provenance(found)]) + "\n"


if __name__ == "__main__":
    main()
