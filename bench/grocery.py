"""Shop products (Klasson 2019): the Gaussian model of backbone features against scikit-learn classifiers of the same features.

    python bench/grocery.py $DATA/grocery --out /tmp/photos

The validation split selects the hyperparameters of the scikit-learn classifiers, which are then fitted to training and
validation images, as the Gaussian is. Appends one line per seed to
bench/results/grocery.jsonl, unless it exists, and writes the table next to it.
"""

from __future__ import annotations

import argparse
import csv
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from results import RESULTS, arguments, measure_once, provenance, rows, write_table
from sklearn.base import ClassifierMixin
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import Normalizer, StandardScaler
from train_helpers import trained

from likely.classifier import Predictor, load
from likely.data.dataset import LabeledImages
from likely.data.loading import load_dataset
from likely.evaluation import metrics
from likely.features.feature_extraction import FeaturePipeline
from likely.inference.hierarchy import Level, levels
from likely.inference.posterior import log_posterior, log_uniform

RESULTS_FILE = RESULTS / "grocery.jsonl"
GAUSSIAN, UNIFORM = "gaussian", "gaussian, --prior uniform"
MIN_LOG_P = -690.0  # nats; kNN has probabilities of zero
SCALINGS: Mapping[str, Callable[[], Any]] = {
    "unscaled": lambda: "passthrough",
    "l2": Normalizer,
    "standard": StandardScaler,
}
COMPETITORS: Mapping[str, tuple[Callable[[float], ClassifierMixin], tuple[float, ...]]] = {
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


def shop_arguments(description: str | None) -> argparse.Namespace:
    """Parse the arguments of a benchmark of products; set the threads and a feature cache of its own."""
    parser = arguments(description)
    parser.add_argument("data", type=Path, help="Grocery Store data set")
    parser.add_argument("--backbone", default="lite0", help="as for `likely train` (default lite0)")
    parser.add_argument(
        "--stages", type=int, default=8, help="stages of the backbone whose features are used (default 8)"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for trained models and cached features")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    os.environ["LIKELY_CACHE"] = str(args.out / "cache")  # no features of earlier runs
    return args


def measured(args: argparse.Namespace, seed: int) -> dict[str, Any]:
    """Train from the command line; compare accuracy and calibration with the competitors."""
    data = manifest(args.data, args.out)
    predictor, seconds = train_gaussian(args, data, f"grocery-{args.stages}-{seed}", seed)
    return {"seconds": seconds, "known": compared(predictor, feature_splits(predictor, data))}


def train_gaussian(args: argparse.Namespace, data: Path, name: str, seed: int) -> tuple[Predictor, float]:
    """Train a Gaussian on backbone features from the command line; return it and the seconds."""
    words = ["--model", "gaussian", "--backbone", args.backbone, "--backbone-stages", args.stages]
    words += ["--label-check-folds", 0, "--seed", seed, "--threads", args.threads]
    start = time.perf_counter()
    folder, _ = trained(str(data), args.out / name, *words)
    seconds = time.perf_counter() - start
    predictor = load(folder)
    pipeline_of(predictor).enable_cache()
    return predictor, seconds


def pipeline_of(predictor: Predictor) -> FeaturePipeline:
    """Return the feature pipeline, which every model of this benchmark has."""
    assert predictor.features is not None
    return predictor.features


def load_splits(data: Path, predictor: Predictor) -> Mapping[str, LabeledImages]:
    """Return the splits of the data in the format and with the class indices of a model."""
    assert predictor.format is not None
    return load_dataset(str(data), predictor.format).relabel(predictor.labels).splits


def feature_splits(predictor: Predictor, data: Path) -> dict[str, FeatureSplit]:
    """Return the features of every split."""
    return {name: FeatureSplit.of(predictor, images) for name, images in load_splits(data, predictor).items()}


@dataclass(frozen=True)
class FeatureSplit:
    """Images of a split with their unscaled features X (N, D) and labels y (N,)."""

    labeled: LabeledImages
    X: NDArray[np.float32]
    y: NDArray[np.int64]

    @classmethod
    def of(cls, predictor: Predictor, labeled: LabeledImages) -> FeatureSplit:
        """Compute the features."""
        return cls(labeled, pipeline_of(predictor).unscaled(labeled.images).numpy(), labeled.labels)


def manifest(data: Path, out: Path) -> Path:
    """Write the lists of the data set as one manifest, with class names such as "Apple/Golden-Delicious"."""
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
    """Write lines of a manifest to another manifest."""
    with path.open("w", newline="") as file:
        table = csv.DictWriter(file, ["file_name", "label", "split"])
        table.writeheader()
        table.writerows(lines)


def _name(row: Mapping[str, str]) -> str:
    fine, coarse = row["Class Name (str)"], row["Coarse Class Name (str)"]
    return fine if fine == coarse else f"{coarse}/{fine}"


def competitors(splits: Mapping[str, FeatureSplit]) -> Iterator[tuple[str, str, ClassifierMixin]]:
    """Yield each competitor with the hyperparameters that are best on the validation split, and a description of these."""
    train, validation = splits["train"], splits["validation"]
    for name, (make, values) in COMPETITORS.items():
        tried = []
        for scaling, scale in SCALINGS.items():
            for value in values:
                fitted = make_pipeline(scale(), make(value)).fit(train.X, train.y)
                tried.append((fitted.score(validation.X, validation.y), scaling, value))
        _, scaling, value = max(tried, key=lambda each: each[0])
        refitted = make_pipeline(SCALINGS[scaling](), make(value))
        both = np.concatenate([train.X, validation.X]), np.concatenate([train.y, validation.y])
        yield name, f"{scaling}, {value:g}", refitted.fit(*both)


def compared(predictor: Predictor, splits: Mapping[str, FeatureSplit]) -> dict[str, Any]:
    """Return accuracy, fine and coarse, and ECE on the test split, and the paired difference to each competitor."""
    test = splits["test"]
    (level,) = levels(predictor.labels)
    scores = predictor.outputs(test.labeled.images).log_scores
    priors = {GAUSSIAN: predictor.log_prior, UNIFORM: log_uniform(len(predictor.labels))}
    found: dict[str, Any] = {"n": len(test.y)}
    correct = {}
    for name, log_prior in priors.items():
        log_p = log_posterior(scores, log_prior, predictor.decision_rule.temperature)
        found[name], correct[name] = metrics_of(log_p, test.y, level)
    for name, hyperparameters, fitted in competitors(splits):
        values, own_correct = metrics_of(torch.from_numpy(fitted.predict_proba(test.X)).log(), test.y, level)
        interval = metrics.paired_bootstrap(correct[GAUSSIAN], own_correct, np.random.default_rng(0))
        difference = found[GAUSSIAN]["fine"] - values["fine"]
        found[name] = {"chosen": hyperparameters, **values, "delta": [difference, *interval]}
    return found


def metrics_of(log_p: torch.Tensor, y: NDArray[np.int64], level: Level) -> tuple[dict[str, float], NDArray[np.bool_]]:
    """Return accuracy, accuracy by group of classes and ECE of log-posteriors (N, K), and the correct predictions (N,)."""
    log_p = log_p.clamp_min(MIN_LOG_P)
    correct, group = log_p.argmax(1).numpy() == y, level.group.numpy()
    by_group = level.log_posterior(log_p).argmax(1).numpy() == group[y]
    values = {"fine": float(correct.mean()), "coarse": float(by_group.mean()), "ece": metrics.ece(log_p.numpy(), y)}
    return values, correct


def table() -> str:
    """One row per classifier and seed."""
    found = rows(RESULTS_FILE)
    lines = [
        "| classifier | seed | scaling, hyperparameter | accuracy, 81 products | accuracy, 43 kinds | ECE "
        "| `gaussian` minus this, points (95 % interval) |",
        "|---|---:|---|---:|---:|---:|---:|",
    ]
    for row in found:
        for name in (GAUSSIAN, UNIFORM, *COMPETITORS):
            each = row["known"][name]
            delta = "{:.2f} ({:.2f} to {:.2f})".format(*(100 * v for v in each["delta"])) if "delta" in each else ""
            values = " | ".join(f"{each[metric]:.4f}" for metric in ("fine", "coarse", "ece"))
            lines.append(f"| {name} | {row['seed']} | {each.get('chosen', '')} | {values} | {delta} |")
    seconds = ", ".join(f"{row['seconds']:.0f}" for row in found)
    networks = ", ".join(sorted({f"{row['backbone']}, {row['stages']} stages" for row in found}))
    note = f"Features of {networks}. Feature extraction and training: {seconds} seconds. {provenance(found)}"
    return "\n".join([*lines, "", note]) + "\n"


if __name__ == "__main__":
    main()
