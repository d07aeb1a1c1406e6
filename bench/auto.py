"""What `--model auto` goes by: from how many images of each class on a deep model of pixels is worth its minutes.

    python bench/auto.py $DATA/fashion-mnist --minutes 2 --seeds 0 1

Subsets of the training part are learned from, and others of the training part are answered: the test part chooses nothing.
Appends a line for each seed, family and number to bench/results/auto.jsonl, unless it is there, and writes the table beside it.
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import torch
from ledger import RESULTS, append, arguments, circumstances, provenance, rows, write_table

from likely import Classifier
from likely.data.dataset import load

LEDGER = RESULTS / "auto.jsonl"
FAMILIES = {"gaussian on random features": ("gaussian", {"features": "random"}), "vaegan": ("vaegan", {})}
PER_CLASS = (10, 30, 50, 100, 300)
N_ANSWERED = 5000


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("data")
    parser.add_argument("--minutes", type=float, default=2.0)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    part = load(asked.data, parts=("train",)).parts["train"]
    for seed in asked.seeds:
        order = np.random.default_rng(seed).permutation(len(part))
        answered, rest = part.subset(order[:N_ANSWERED]), order[N_ANSWERED:]
        for n in PER_CLASS:
            learned = [rest[part.labels[rest] == c][:n] for c in range(part.labels.max() + 1)]
            lesson = part.subset(np.concatenate(learned))
            for kind, (family, features) in FAMILIES.items():
                key = {
                    "data": Path(asked.data).stem,
                    "seed": seed,
                    "kind": kind,
                    "per_class": n,
                    "minutes": asked.minutes,
                }
                if any(key.items() <= row.items() for row in rows(LEDGER)):
                    continue
                training = {"minutes": asked.minutes, "threads": asked.threads}
                classifier, begun = (
                    Classifier(family, features=features, training=training, random_state=seed),
                    time.time(),
                )
                classifier.fit(shown(lesson), lesson.labels)
                took = time.time() - begun
                right = classifier.predict(shown(answered)) == answered.labels
                append(
                    LEDGER, {**circumstances(asked.threads), **key, "accuracy": float(right.mean()), "seconds": took}
                )
    write_table(LEDGER, table())


def shown(part: object) -> np.ndarray:
    """(N, H, W, C) uint8."""
    return part.images.batch(np.arange(len(part))).numpy().transpose(0, 2, 3, 1)


def table() -> str:
    found = rows(LEDGER)
    lines = ["| data | images a class | family | accuracy, each seed | seconds |", "|---|---:|---|---:|---:|"]
    groups: dict[tuple[str, int, str], list[dict]] = {}
    for row in found:
        groups.setdefault((row["data"], row["per_class"], row["kind"]), []).append(row)
    for (data, n, kind), each in sorted(groups.items()):
        accuracies = ", ".join(f"{row['accuracy']:.3f}" for row in each)
        lines.append(f"| {data} | {n} | {kind} | {accuracies} | {np.mean([row['seconds'] for row in each]):.0f} |")
    return "\n".join([*lines, "", f"{N_ANSWERED:,} images answered. {provenance(found)}"]) + "\n"


if __name__ == "__main__":
    main()
