"""Class-incremental learning: the tenth class added from few images, against joint training of all ten classes.

    python bench/new_classes.py $DATA/fashion-mnist --models vaegan --minutes 10 --out /tmp/trust

Classes 0, 3, 6 and 9 are the added class, one per run. Appends one line per run to bench/results/new_classes.jsonl,
unless it exists, and writes the table next to it.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
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
    """Write the data without one class to an .npz file."""
    args.out.mkdir(parents=True, exist_ok=True)
    path = args.out / f"{Path(args.data).stem}{WITHOUT}{new}.npz"
    arrays: dict[str, Any] = {}
    for name, labeled in (("train", dataset.train), ("test", dataset.test)) if not path.exists() else ():
        assert labeled is not None
        others = np.flatnonzero(labeled.labels != new)
        arrays[f"x_{name}"] = labeled.images.batch(others).permute(0, 2, 3, 1).numpy()
        arrays[f"y_{name}"] = np.array(dataset.classes)[labeled.labels[others]]
    if arrays:
        np.savez(path, **arrays)
    return str(path)


def joint(classifier: Classifier, dataset: Dataset) -> dict[str, Any]:
    """Return the recall of each class of a model that was trained on all classes jointly."""
    assert dataset.test is not None
    return {"recall": recalls(classifier.predictor_, dataset.test, dataset.classes)}


def later(classifier: Classifier, dataset: Dataset, new: int, seed: int) -> dict[str, Any]:
    """Return recalls and seconds after adding the class from various numbers of images."""
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
    """Return the recall of each class on the test images."""
    predicted = np.array(classifier.labels)[classifier.log_posterior(test.images).argmax(1)]
    correct = predicted == np.array(classes)[test.labels]
    return [float(correct[test.labels == c].mean()) for c in range(len(classes))]


def table() -> str:
    """One row per added class and number of images."""
    found = rows(RESULTS_FILE)
    lines = [
        "| added class | images | accuracy | joint training | accuracy on the others | joint training | recall of the class "
        "| joint training | seconds |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    joint_recall = {_setting(row): row["recall"] for row in found if row["new"] is None}
    for row in found:
        reference = joint_recall.get(_setting(row))
        for n in COUNTS if row["new"] is not None and reference else ():
            pairs = zip(_three(row[str(n)]["recall"], row["new"]), _three(reference or (), row["new"]), strict=True)
            cells = " | ".join(f"{a:.4f} | {b:.4f}" for a, b in pairs)
            lines.append(f"| {row['new']} | {n} | {cells} | {row[str(n)]['seconds']:.1f} |")
    settings = "; ".join(
        sorted(
            {f"{row['kind']} on {_setting(row)[0]}, {row['minutes']:g} minutes, seed {row['seed']}" for row in found}
        )
    )
    return "\n".join([*lines, "", f"{settings}. {provenance(found)}"]) + "\n"


def _setting(row: dict[str, Any]) -> tuple[object, ...]:
    """Return data, family, seed and minutes, which identify the joint training of a run."""
    return row["data"].partition(WITHOUT)[0], row["kind"], row["seed"], row["minutes"]


def _three(recall: Sequence[float], new: int) -> tuple[float, float, float]:
    """Return the mean recall of all classes and of all but the new one, and the recall of the new one."""
    others = [value for c, value in enumerate(recall) if c != new]
    return float(np.mean(recall)), float(np.mean(others)), recall[new]


if __name__ == "__main__":
    main()
