"""Class-incremental learning of shop products: a product added from a few photographs, against joint training.

    python bench/new_products.py $DATA/grocery --backbone $DATA/backbones/mobilenet_v2_1.0_224 --out /tmp/photos

Each of four of the 81 products is excluded from training and added from 5 of its training photographs, then from all.
The comparison is the model that was trained on all products jointly. Appends one line per product to
bench/results/new_products.jsonl, unless it exists, and writes the table next to it.
"""

from __future__ import annotations

import argparse
import csv
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from grocery import load_splits, manifest, pipeline_of, shop_arguments, train_gaussian, write_manifest
from results import RESULTS, measure_once, provenance, rows, write_table

from likely.classifier import Predictor
from likely.classifier.class_incremental import extend
from likely.data.dataset import LabeledImages

RESULTS_FILE = RESULTS / "new_products.jsonl"
N_NEW = 4
SIZES = (5, None)  # photographs; None for all


def main() -> None:
    args = shop_arguments(__doc__)
    data = manifest(args.data, args.out)
    for seed in args.seeds:
        joint, _ = train_gaussian(args, data, f"grocery-{args.stages}-{seed}", seed)
        splits = load_splits(data, joint)
        for c in np.random.default_rng(seed).permutation(len(joint.labels))[:N_NEW].tolist():
            key = {"seed": seed, "product": joint.labels[c], "backbone": Path(args.backbone).name}
            before = partial(without_product, args, data, joint.labels[c], seed)
            measure_once(RESULTS_FILE, key, args.threads, partial(measured, before, joint, splits, c, seed))
    write_table(RESULTS_FILE, table())


def without_product(args: argparse.Namespace, data: Path, name: str, seed: int) -> Predictor:
    """Train without a product."""
    identifier = name.replace("/", "-")
    path = args.out / f"without-{identifier}-{seed}.csv"
    with data.open(newline="") as file:
        write_manifest(path, (line for line in csv.DictReader(file) if line["label"] != name))
    return train_gaussian(args, path, f"without-{args.stages}-{identifier}-{seed}", seed)[0]


def measured(
    train: partial[Predictor], joint: Predictor, splits: Mapping[str, LabeledImages], c: int, seed: int
) -> dict[str, Any]:
    """Add product c to the model that `train` returns, from a few of its photographs and from all."""
    before, images, test = train(), splits["train"], splits["test"]
    of_class = np.flatnonzero(images.labels == c)
    found: dict[str, Any] = {
        "n_train": len(of_class),
        "n_test": int((test.labels == c).sum()),
        "joint": accuracies(joint, test, joint.labels, c),
    }
    for n in SIZES:
        selected = np.random.default_rng(seed).permutation(of_class)[:n]
        pixels = images.images.batch(selected).numpy().transpose(0, 2, 3, 1)
        pipeline_of(before).unscaled(images.subset(selected).images)  # cache the features before timing
        start = time.perf_counter()
        larger = extend(before, joint.labels[c], list(pixels))
        seconds = time.perf_counter() - start
        found[str(n or "all")] = {
            "n": len(selected),
            "seconds": seconds,
            **accuracies(larger, test, joint.labels, c),
        }
    return found


def accuracies(predictor: Predictor, test: LabeledImages, names: Sequence[str], c: int) -> dict[str, float]:
    """Return the accuracy on photographs of product c, of the others and of all; `names` are those of the test labels."""
    predicted = np.array(predictor.labels)[predictor.log_posterior(test.images).argmax(1)]
    correct, new = predicted == np.array(names)[test.labels], test.labels == c
    return {"new": float(correct[new].mean()), "old": float(correct[~new].mean()), "all": float(correct.mean())}


def table() -> str:
    """One row per product and number of photographs."""
    found = rows(RESULTS_FILE)
    lines = [
        "| product | photographs | seconds | recall | joint training | accuracy on the others | joint training |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for row in found:
        for each in (row[str(n or "all")] for n in SIZES):
            lines.append(
                f"| {row['product']} | {each['n']} | {each['seconds']:.2f} | {each['new']:.3f} | {row['joint']['new']:.3f} | "
                f"{each['old']:.4f} | {row['joint']['old']:.4f} |"
            )
    return "\n".join([*lines, "", provenance(found)]) + "\n"


if __name__ == "__main__":
    main()
