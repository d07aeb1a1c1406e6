"""A product more in a shop's model, from a few photographs: what it costs, and what it does to the others.

    python bench/new_products.py $DATA/grocery --backbone $DATA/backbones/mobilenet_v2_1.0_224 --out /tmp/photos

Four of the 81 products in round are left out of the training and added from 5 of their training photographs, then from all.
Beside them stands the model that was trained on all products together. Appends a line for each product to
bench/results/new_products.jsonl, unless it is there, and writes the table beside it.
"""

from __future__ import annotations

import argparse
import csv
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from grocery import manifest, ours, shop_arguments, write_manifest
from results import RESULTS, measure_once, provenance, rows, write_table

from likely import Classifier
from likely.data.dataset import LabeledImages
from likely.data.loading import load_dataset

RESULTS_FILE = RESULTS / "new_products.jsonl"
N_NEW = 4
SIZES = (5, None)  # photographs; None for all


def main() -> None:
    args = shop_arguments(__doc__)
    data = manifest(args.data, args.out)
    for seed in args.seeds:
        joint, _ = ours(args, data, f"grocery-{args.stages}-{seed}", seed)
        whole = load_dataset(str(data), joint.predictor_.format).relabel(joint.labels)
        for c in np.random.default_rng(seed).permutation(len(joint.labels))[:N_NEW]:
            key = {"seed": seed, "product": joint.labels[c], "backbone": Path(args.backbone).name}
            of_product = partial(added, args, data, joint, whole.splits["train"], whole.splits["test"], int(c), seed)
            measure_once(RESULTS_FILE, key, args.threads, of_product)
    write_table(RESULTS_FILE, table())


def added(
    args: argparse.Namespace,
    data: Path,
    joint: Classifier,
    train: LabeledImages,
    test: LabeledImages,
    c: int,
    seed: int,
) -> dict[str, Any]:
    """A model of all products but c, to which c is added."""
    name = joint.labels[c]
    without = args.out / f"without-{c}-{seed}.csv"
    with data.open(newline="") as file:
        write_manifest(without, (line for line in csv.DictReader(file) if line["label"] != name))
    before, _ = ours(args, without, f"without-{args.stages}-{c}-{seed}", seed)
    of_class = np.flatnonzero(train.labels == c)
    together = rates(joint, test, joint.labels, c)
    answer: dict[str, Any] = {"n_train": len(of_class), "n_test": int((test.labels == c).sum()), "joint": together}
    for n in SIZES:
        selected = np.random.default_rng(seed).permutation(of_class)[:n]
        pixels = train.images.batch(selected).numpy().transpose(0, 2, 3, 1)
        before.predictor_.features.unscaled(train.subset(selected).images)  # features are there before the clock starts
        start = time.perf_counter()
        larger = before.extend(name, list(pixels))
        seconds = time.perf_counter() - start
        answer[str(n or "all")] = {"n": len(selected), "seconds": seconds, **rates(larger, test, joint.labels, c)}
    return answer


def rates(classifier: Classifier, test: LabeledImages, names: Sequence[str], c: int) -> dict[str, float]:
    """Accuracy on the photographs of product c, on the others', and on all; the test split's labels are places in `names`."""
    answers = np.array(classifier.labels)[classifier.log_posterior(test.images).argmax(1)]
    right, new = answers == np.array(names)[test.labels], test.labels == c
    return {"new": float(right[new].mean()), "old": float(right[~new].mean()), "all": float(right.mean())}


def table() -> str:
    found = rows(RESULTS_FILE)
    lines = [
        "| product | from | seconds | it is recognized | jointly trained | the other 80 are | jointly trained |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for row in found:
        for size in (str(n or "all") for n in SIZES):
            each = row[size]
            lines.append(
                f"| {row['product']} | {each['n']} | {each['seconds']:.2f} | {each['new']:.3f} | {row['joint']['new']:.3f} | "
                f"{each['old']:.4f} | {row['joint']['old']:.4f} |"
            )
    return "\n".join([*lines, "", provenance(found)]) + "\n"


if __name__ == "__main__":
    main()
