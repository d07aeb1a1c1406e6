"""A class that comes later: nine classes trained, the tenth learned from a few images, beside all ten trained together.

    python bench/new_classes.py $DATA/fashion-mnist --models vaegan --minutes 10 --out /tmp/trust

Every third class is the tenth alternately. Appends a line for each to bench/results/new_classes.jsonl, unless it is there, and
writes the table beside it.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
from results import RESULTS, append, environment, provenance, rows, write_table
from train_helpers import model_arguments, unmeasured

from likely import Classifier
from likely.classifier import Predictor
from likely.data.dataset import Dataset, LabeledImages
from likely.data.loading import load_dataset

RESULTS_FILE = RESULTS / "new_classes.jsonl"
COUNTS = (5, 50, 500)
EVERY = 3
WITHOUT = "-without-"


def main() -> None:
    args = model_arguments(__doc__, "vaegan", 10).parse_args()
    dataset = load_dataset(args.data)
    for new in (None, *range(0, len(dataset.classes), EVERY)):
        data = args.data if new is None else without(dataset, new, args)
        for key, folder in unmeasured(argparse.Namespace(**vars(args) | {"data": data}), RESULTS_FILE):
            classifier, seed = Classifier.load(folder), int(str(key["seed"]))
            found = joint(classifier, dataset) if new is None else later(classifier, dataset, new, seed)
            append(RESULTS_FILE, {**environment(args.threads), **key, "new": new, **found})
    write_table(RESULTS_FILE, table())


def without(dataset: Dataset, new: int, args: argparse.Namespace) -> str:
    """The data less one class, as an .npz file."""
    args.out.mkdir(parents=True, exist_ok=True)
    path, arrays = args.out / f"{Path(args.data).stem}{WITHOUT}{new}.npz", {}
    for name, labeled in (("train", dataset.train), ("test", dataset.test)) if not path.exists() else ():
        assert labeled is not None
        kept = np.flatnonzero(labeled.labels != new)
        arrays[f"x_{name}"] = labeled.images.batch(kept).permute(0, 2, 3, 1).numpy()
        arrays[f"y_{name}"] = np.array(dataset.classes)[labeled.labels[kept]]
    if arrays:
        np.savez(path, **arrays)
    return str(path)


def joint(classifier: Classifier, dataset: Dataset) -> dict[str, Any]:
    """How often each class is recognized by a model that learned all together."""
    assert dataset.test is not None
    return {"recall": recalls(classifier.predictor_, dataset.test, dataset.classes)}


def later(classifier: Classifier, dataset: Dataset, new: int, seed: int) -> dict[str, Any]:
    """The same after the class was learned from so many images, and the seconds that this took."""
    train, test, rng = dataset.train, dataset.test, np.random.default_rng(seed)
    assert train is not None
    assert test is not None
    own = rng.permutation(np.flatnonzero(train.labels == new))
    found: dict[str, Any] = {"before": recalls(classifier.predictor_, test, dataset.classes)}
    for n in COUNTS:
        images = train.images.batch(own[:n]).permute(0, 2, 3, 1).numpy()
        start = time.perf_counter()
        larger = classifier.extend(dataset.classes[new], images)
        seconds = time.perf_counter() - start
        found[str(n)] = {"recall": recalls(larger.predictor_, test, dataset.classes), "seconds": seconds}
    return found


def recalls(classifier: Predictor, test: LabeledImages, classes: tuple[str, ...]) -> list[float]:
    """The share of each class's test images that are recognized."""
    said = np.array(classifier.labels)[classifier.log_posterior(test.images).argmax(1)]
    right = said == np.array(classes)[test.labels]
    return [float(right[test.labels == c].mean()) for c in range(len(classes))]


def table() -> str:
    found = rows(RESULTS_FILE)
    lines = [
        "| data | classifier | tenth class | images of it | accuracy, all ten | trained together | the nine | trained together "
        "| the tenth | trained together | seconds |",
        "|---|---|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    together = {_known_by(row): row["recall"] for row in found if row["new"] is None}
    for row in found:
        reference = together.get(_known_by(row))
        for n in COUNTS if row["new"] is not None and reference else ():
            pairs = zip(_three(row[str(n)]["recall"], row["new"]), _three(reference, row["new"]), strict=True)
            cells = " | ".join(f"{a:.4f} | {b:.4f}" for a, b in pairs)
            lines.append(
                f"| {_known_by(row)[0]} | {row['kind']} | {row['new']} | {n} | {cells} | {row[str(n)]['seconds']:.1f} |"
            )
    return "\n".join([*lines, "", provenance(found)]) + "\n"


def _known_by(row: dict[str, Any]) -> tuple[object, ...]:
    """What a model of all classes has in common with one that learned one of them later; the data first."""
    return row["data"].partition(WITHOUT)[0], row["kind"], row["seed"], row["minutes"]


def _three(recall: list[float], new: int) -> tuple[float, float, float]:
    """Over all classes, over all but the new one, and of that one: the test split has as many images of each."""
    others = [value for c, value in enumerate(recall) if c != new]
    return float(np.mean(recall)), float(np.mean(others)), recall[new]


if __name__ == "__main__":
    main()
