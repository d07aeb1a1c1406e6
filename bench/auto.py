"""What `--model auto` goes by: from how many images of each class on a deep model of pixels is worth its minutes.

    python bench/auto.py $DATA/fashion-mnist --minutes 2 --seeds 0 1

Subsets of the training split are learned from, and others of the training split are answered: the test split chooses nothing.
Images are counted as `auto` does, without those that a training sets aside. Appends a line for each seed, family and number to
bench/results/auto.jsonl, unless it is there, and writes the table beside it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from results import RESULTS, arguments, measure_once, provenance, rows, write_table

from likely import Classifier
from likely.data.dataset import LabeledImages
from likely.data.loading import load_dataset
from likely.data.splits import split

RESULTS_FILE = RESULTS / "auto.jsonl"
FAMILIES = {"gaussian on random features": ("gaussian", {"features": "random"}), "vaegan": ("vaegan", {})}
PER_CLASS = (10, 30, 50, 100, 300)
N_ANSWERED = 5000


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("data")
    parser.add_argument("--minutes", type=float, default=2.0)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    labeled = load_dataset(args.data, splits=("train",)).splits["train"]
    for seed in args.seeds:
        for n, train, answered in subsets(labeled, seed):
            for kind in FAMILIES:
                key = {
                    "data": Path(args.data).stem,
                    "seed": seed,
                    "kind": kind,
                    "per_class": n,
                    "minutes": args.minutes,
                }
                training = {"minutes": args.minutes, "threads": args.threads}
                measure_once(RESULTS_FILE, key, args.threads, partial(measured, kind, train, answered, training, seed))
    write_table(RESULTS_FILE, table())


def subsets(labeled: LabeledImages, seed: int) -> Iterator[tuple[int, LabeledImages, LabeledImages]]:
    """For each number of images a class to train with: what to learn from, and what to answer."""
    order = np.random.default_rng(seed).permutation(len(labeled))
    answered, rest = labeled.subset(order[:N_ANSWERED]), order[N_ANSWERED:]
    for n in PER_CLASS:
        m = required_images(n)
        yield (
            n,
            labeled.subset(np.concatenate([rest[labeled.labels[rest] == c][:m] for c in np.unique(labeled.labels)])),
            answered,
        )


def required_images(n: int) -> int:
    """How many images of a class leave n to train with once some are set aside."""
    m = n
    while len(split(np.zeros(m, np.int64), seed=0).train) < n:
        m += 1
    return m


def measured(
    kind: str, train: LabeledImages, answered: LabeledImages, training: dict[str, Any], seed: int
) -> dict[str, float]:
    """The accuracy on what is to be answered, and the seconds that learning took."""
    family, features = FAMILIES[kind]
    classifier, begun = Classifier(family, features=features, training=training, random_state=seed), time.perf_counter()
    classifier.fit(shown(train), train.labels)
    seconds = time.perf_counter() - begun
    return {"accuracy": float((classifier.predict(shown(answered)) == answered.labels).mean()), "seconds": seconds}


def shown(labeled: LabeledImages) -> np.ndarray:
    """(N, H, W, C) uint8."""
    return labeled.images.batch(np.arange(len(labeled))).numpy().transpose(0, 2, 3, 1)


def table() -> str:
    found = rows(RESULTS_FILE)
    lines = ["| data | images a class | family | accuracy, each seed | seconds |", "|---|---:|---|---:|---:|"]
    groups: dict[tuple[str, int, str], list[dict[str, Any]]] = {}
    for row in found:
        groups.setdefault((row["data"], row["per_class"], row["kind"]), []).append(row)
    for (data, n, kind), each in sorted(groups.items()):
        accuracies = ", ".join(f"{row['accuracy']:.3f}" for row in each)
        lines.append(f"| {data} | {n} | {kind} | {accuracies} | {np.mean([row['seconds'] for row in each]):.0f} |")
    return "\n".join([*lines, "", f"{N_ANSWERED:,} images answered. {provenance(found)}"]) + "\n"


if __name__ == "__main__":
    main()
