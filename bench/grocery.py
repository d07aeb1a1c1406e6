"""Products of a shop: our density of a backbone's features beside scikit-learn's classifiers of the same features.

The photographs are of 81 products of 43 kinds (Klasson 2019), in a training, a validation and a test split of their own.

    python bench/grocery.py $DATA/grocery --backbone $DATA/backbones/mobilenet_v2_1.0_224 --out /tmp/photos

Rivals are tuned on the validation split, and ours chooses its shrinkage by it. Appends a line for each seed to
bench/results/grocery.jsonl, unless it is there, and writes the table beside it.
"""

from __future__ import annotations

import argparse
import csv
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from results import RESULTS, arguments, measure_once, provenance, rows, write_table
from sklearn.base import ClassifierMixin
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import Normalizer, StandardScaler
from train_helpers import trained

from likely import Classifier
from likely.classifier import load
from likely.data.dataset import LabeledImages
from likely.data.loading import load_dataset
from likely.evaluation import metrics
from likely.inference.hierarchy import Level, levels
from likely.inference.posterior import log_posterior, log_uniform

RESULTS_FILE = RESULTS / "grocery.jsonl"
OURS, UNIFORM = "gaussian", "gaussian, --prior uniform"
SMALLEST = -690.0  # nats: a probability of zero, as kNN has it, is none to take means of
SCALINGS: Mapping[str, Callable[[], Any]] = {
    "as they are": lambda: "passthrough",
    "l2": Normalizer,
    "standard": StandardScaler,
}
RIVALS: Mapping[str, tuple[Callable[[float], ClassifierMixin], tuple[float, ...]]] = {
    "LogisticRegression": (lambda C: LogisticRegression(C=C, max_iter=300), (0.01, 0.1, 1.0, 10.0, 100.0)),
    "LDA": (lambda s: LinearDiscriminantAnalysis(solver="lsqr", shrinkage=s), (0.01, 0.03, 0.1, 0.2, 0.3, 0.5)),
    "kNN": (lambda k: KNeighborsClassifier(int(k)), (1, 3, 5, 9, 15)),
}


def main() -> None:
    args = shop_arguments(__doc__)
    for seed in args.seeds:
        key = {"seed": seed, "backbone": Path(args.backbone).name, "stages": args.stages}
        measure_once(RESULTS_FILE, key, args.threads, partial(measured, args, seed))
    write_table(RESULTS_FILE, table())


def shop_arguments(what: str | None) -> argparse.Namespace:
    """What was args of a benchmark of products, its threads and its own cache set."""
    parser = arguments(what)
    parser.add_argument("data", type=Path)
    parser.add_argument("--backbone", required=True)
    parser.add_argument("--stages", type=int, default=4)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    os.environ["LIKELY_CACHE"] = str(args.out / "cache")  # as on a machine that has never seen these images
    return args


def measured(args: argparse.Namespace, seed: int) -> dict[str, Any]:
    """Ours, trained by the command line, and everybody's values."""
    data = manifest(args.data, args.out)
    classifier, seconds = ours(args, data, f"grocery-{args.stages}-{seed}", seed)
    return {"seconds": seconds, "known": beside(classifier, seen(classifier, data))}


def ours(args: argparse.Namespace, data: Path, name: str, seed: int) -> tuple[Classifier, float]:
    """Our classifier, trained by the command line, and the seconds that this took."""
    words = [
        "--model",
        "gaussian",
        "--backbone",
        args.backbone,
        "--backbone-stages",
        args.stages,
        "--label-check-folds",
        0,
    ]
    words += ["--seed", seed, "--threads", args.threads]
    start = time.perf_counter()
    folder, _ = trained(str(data), args.out / name, *words)
    seconds = time.perf_counter() - start
    classifier = load(folder)
    assert classifier.features is not None
    classifier.features.enable_cache()
    return classifier, seconds


def seen(classifier: Classifier, data: Path) -> dict[str, Seen]:
    """Every part of the data."""
    whole = load_dataset(str(data), classifier.format).relabel(classifier.labels)
    return {name: Seen(classifier, labeled) for name, labeled in whole.splits.items()}


class Seen:
    """A part's images as everybody here sees them: unscaled features, (N, D), and labels."""

    def __init__(self, classifier: Classifier, labeled: LabeledImages) -> None:
        assert classifier.features is not None
        self.labeled = labeled
        self.X = classifier.features.unscaled(labeled.images).numpy()
        self.y = labeled.labels


def manifest(data: Path, out: Path) -> Path:
    """The data's own lists as one table, products named "Apple/Golden-Delicious"."""
    out.mkdir(parents=True, exist_ok=True)
    if not (out / "images").exists():
        (out / "images").symlink_to(data.resolve())
    with (data / "classes.csv").open(newline="") as file:
        names = {int(row["Class ID (int)"]): _name(row) for row in csv.DictReader(file)}
    path = out / "grocery.csv"
    with path.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["file_name", "label", "split"])
        for split in ("train", "val", "test"):
            for line in (data / f"{split}.txt").read_text().splitlines():
                name, fine, _ = (word.strip() for word in line.split(","))
                table.writerow([f"images/{name}", names[int(fine)], split])
    return path


def write_manifest(path: Path, lines: Iterable[Mapping[str, str]]) -> None:
    """Some lines of a manifest as one of their own."""
    with path.open("w", newline="") as file:
        table = csv.DictWriter(file, ["file_name", "label", "split"])
        table.writeheader()
        table.writerows(lines)


def _name(row: Mapping[str, str]) -> str:
    fine, coarse = row["Class Name (str)"], row["Coarse Class Name (str)"]
    return fine if fine == coarse else f"{coarse}/{fine}"


def rivals(found: Mapping[str, Seen]) -> Iterator[tuple[str, str, ClassifierMixin]]:
    """Each rival as it does best on the validation split, and how that is."""
    for name, (make, values) in RIVALS.items():
        tried = []
        for scaling, scale in SCALINGS.items():
            for value in values:
                rival = make_pipeline(scale(), make(value)).fit(found["train"].X, found["train"].y)
                tried.append((rival.score(found["validation"].X, found["validation"].y), scaling, value, rival))
        _, scaling, value, best = max(tried, key=lambda each: each[0])
        yield name, f"{scaling}, {value:g}", best


def beside(classifier: Classifier, found: Mapping[str, Seen]) -> dict[str, Any]:
    """Accuracy on the test split, fine and coarse, and the paired difference to each rival."""
    test = found["test"]
    (level,) = levels(classifier.labels)
    scores = classifier.outputs(test.labeled.images).log_scores
    priors = {OURS: classifier.log_prior, UNIFORM: log_uniform(len(classifier.labels))}
    answer: dict[str, Any] = {"n": len(test.y)}
    rights = {}
    for name, log_prior in priors.items():
        log_p = log_posterior(scores, log_prior, classifier.decision_rule.temperature)
        answer[name], rights[name] = values(log_p, test.y, level)
    for name, how, rival in rivals(found):
        theirs, right = values(torch.from_numpy(rival.predict_proba(test.X)).log(), test.y, level)
        sure = metrics.paired_bootstrap(rights[OURS], right, np.random.default_rng(0))
        answer[name] = {"chosen": how, **theirs, "delta": [answer[OURS]["fine"] - theirs["fine"], *sure]}
    return answer


def values(log_p: torch.Tensor, y: np.ndarray, level: Level) -> tuple[dict[str, float], np.ndarray]:
    """Of posteriors (N, K): accuracy, that of the groups that classes belong to, ece; and which answers are right, (N,)."""
    log_p = log_p.clamp_min(SMALLEST)
    right, group = log_p.argmax(1).numpy() == y, level.group.numpy()
    by_group = level.log_posterior(log_p).argmax(1).numpy() == group[y]
    return {"fine": float(right.mean()), "coarse": float(by_group.mean()), "ece": metrics.ece(log_p.numpy(), y)}, right


def shown(found: Mapping[str, float]) -> str:
    """Three cells of the table."""
    return " | ".join(f"{found[name]:.4f}" for name in ("fine", "coarse", "ece"))


def table() -> str:
    found = rows(RESULTS_FILE)
    lines = [
        "| classifier | backbone | stages | seed | tuned to | fine | coarse | ece | ours is ahead by, points (95 % interval) |",
        "|---|---|---:|---:|---|---:|---:|---:|---:|",
    ]
    for row in found:
        known, start = row["known"], f"| {row['backbone']} | {row['stages']} | {row['seed']}"
        for name in (OURS, UNIFORM):
            lines.append(f"| {name} {start} | | {shown(known[name])} | |")
        for name in RIVALS:
            each = known[name]
            delta = "{:.2f} ({:.2f} to {:.2f})".format(*(100 * v for v in each["delta"]))
            verdict = "ahead" if each["delta"][1] > 0 else "behind" if each["delta"][2] < 0 else "a tie"
            lines.append(f"| {name} {start} | {each['chosen']} | {shown(each)} | {delta}: {verdict} |")
    seconds = ", ".join(f"{row['seconds']:.0f}" for row in found)
    lines += ["", f"Features and training of all products: {seconds} seconds. {provenance(found)}"]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
