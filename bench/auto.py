"""Choice of `--model auto`: number of images per class from which a deep model of pixels beats a Gaussian on random features.

    python bench/auto.py $DATA/fashion-mnist --minutes 2 --seeds 0 1

Training and evaluation use disjoint subsets of the training split; the test split selects nothing. Images are counted
as `auto` does, without those that are held out. Appends one line per seed, family and number to
bench/results/auto.jsonl, unless it exists, and writes the table next to it.
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
N_EVALUATED = 5000


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("data", help="data set, as for `likely train`")
    parser.add_argument("--minutes", type=float, default=2.0, help="training time of each model (default 2)")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    labeled = load_dataset(args.data, splits=("train",)).splits["train"]
    for seed in args.seeds:
        for n, train, evaluated in subsets(labeled, seed):
            for kind in FAMILIES:
                key = {
                    "data": Path(args.data).stem,
                    "seed": seed,
                    "kind": kind,
                    "per_class": n,
                    "minutes": args.minutes,
                }
                training = {"minutes": args.minutes, "threads": args.threads}
                measure_once(RESULTS_FILE, key, args.threads, partial(measured, kind, train, evaluated, training, seed))
    write_table(RESULTS_FILE, table())


def subsets(labeled: LabeledImages, seed: int) -> Iterator[tuple[int, LabeledImages, LabeledImages]]:
    """Yield each number of training images per class with the images to train on and the images to evaluate on."""
    order = np.random.default_rng(seed).permutation(len(labeled))
    evaluated, rest = labeled.subset(order[:N_EVALUATED]), order[N_EVALUATED:]
    for n in PER_CLASS:
        m = required_images(n)
        yield (
            n,
            labeled.subset(np.concatenate([rest[labeled.labels[rest] == c][:m] for c in np.unique(labeled.labels)])),
            evaluated,
        )


def required_images(n: int) -> int:
    """Return the number of images of a class of which n remain for training after the held-out splits."""
    m = n
    while len(split(np.zeros(m, np.int64), seed=0).train) < n:
        m += 1
    return m


def measured(
    kind: str, train: LabeledImages, evaluated: LabeledImages, training: dict[str, Any], seed: int
) -> dict[str, float]:
    """Return the accuracy on the evaluation images and the seconds of training."""
    family, features = FAMILIES[kind]
    classifier, start = Classifier(family, features=features, training=training, random_state=seed), time.perf_counter()
    classifier.fit(to_array(train), train.labels)
    seconds = time.perf_counter() - start
    return {"accuracy": float((classifier.predict(to_array(evaluated)) == evaluated.labels).mean()), "seconds": seconds}


def to_array(labeled: LabeledImages) -> np.ndarray:
    """Return the pixels, (N, H, W, C) uint8."""
    return labeled.images.batch(np.arange(len(labeled))).numpy().transpose(0, 2, 3, 1)


def table() -> str:
    """One row per number of images and model."""
    found = rows(RESULTS_FILE)
    lines = ["| data | images per class | model | accuracy by seed | seconds |", "|---|---:|---|---:|---:|"]
    groups: dict[tuple[str, int, str], list[dict[str, Any]]] = {}
    for row in found:
        groups.setdefault((row["data"], row["per_class"], row["kind"]), []).append(row)
    for (data, n, kind), each in sorted(groups.items()):
        accuracies = ", ".join(f"{row['accuracy']:.3f}" for row in each)
        lines.append(f"| {data} | {n} | {kind} | {accuracies} | {np.mean([row['seconds'] for row in each]):.0f} |")
    return "\n".join([*lines, "", f"{N_EVALUATED:,} evaluation images. {provenance(found)}"]) + "\n"


if __name__ == "__main__":
    main()
