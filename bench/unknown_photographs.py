"""Rejection of unknown photographs: the image score against plain Mahalanobis distance and a softmax on the same features.

    (cd $DATA/cifar10 && python unpack.py /tmp/cifar10.npz)
    python bench/unknown_photographs.py $DATA/grocery --parking $DATA/parking-lot-camera --cifar /tmp/cifar10.npz \
        --out /tmp/unknown --far 0 1 2 3 4 --near 0 1 2 3 4 5

Far unknown images: models of 81 products, of two kinds of parking spots, and of fruit against packages are shown photographs
of other things, noise and constant colors. Near ones: ten of the 81 products are left out of training, others for each
seed, and are the unknown images of the test split. All rows use the same score and the default options of `likely train`.

The competitors have the features of the same backbone and are fitted to the training and validation images as the Gaussian
is: `mahalanobis`, the distance to the nearest class (Lee 2018), and `softmax`, the largest probability of a logistic
regression whose penalty the validation split of the first seed chooses. Appends one line per model to
bench/results/unknown_photographs.jsonl, unless it exists, and writes the table next to it.
"""

from __future__ import annotations

import argparse
import csv
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from grocery import manifest, write_manifest
from numpy.typing import NDArray
from PIL import Image
from results import RESULTS, arguments, measure_once, provenance, rows, write_table
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import Normalizer
from train_helpers import trained

from likely.classifier import Predictor, load
from likely.data.dataset import LabeledImages
from likely.data.image_dataset import ImageDataset
from likely.data.loading import load_dataset
from likely.evaluation import metrics
from likely.features.feature_extraction import FeaturePipeline
from likely.inference.decision import ConformalOutput

RESULTS_FILE = RESULTS / "unknown_photographs.jsonl"
FAR = ("grocery", "parking", "fruit-packages")
NEAR = "products"
N_UNKNOWN_PRODUCTS, N_PRODUCTS = 10, 81
ALPHA = 0.05
N_CIFAR, N_GENERATED, SIDE = 1000, 200, 128
PENALTIES = (1.0, 10.0, 100.0, 1000.0)
METHODS = ("likely", "mahalanobis", "softmax")
Floats: TypeAlias = NDArray[np.float64]


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("data", type=Path, help="Grocery Store data set")
    parser.add_argument("--parking", type=Path, required=True, help="photographs of parking spots, as class folders")
    parser.add_argument("--cifar", type=Path, required=True, help="CIFAR-10 as an .npz file")
    parser.add_argument("--backbone", default="lite0", help="as for `likely train` (default lite0)")
    parser.add_argument("--out", type=Path, required=True, help="folder for trained models and cached features")
    parser.add_argument("--far", type=int, nargs="*", default=[0], help="seeds of the models shown other things")
    parser.add_argument("--near", type=int, nargs="*", default=[0], help="seeds of the models without ten products")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    os.environ["LIKELY_CACHE"] = str(args.out / "cache")
    runs = [*((task, seed) for seed in args.far for task in FAR), *((NEAR, seed) for seed in args.near)]
    for task, seed in runs:
        key = {"task": task, "seed": seed, "backbone": Path(args.backbone).name}
        measure_once(RESULTS_FILE, key, args.threads, partial(measured, args, task, seed))
    write_table(RESULTS_FILE, table())


def measured(args: argparse.Namespace, task: str, seed: int) -> dict[str, Any]:
    """Train one model from the command line, and show all scores its test images and the unknown ones."""
    known, unknown_products = data_of(args, task, seed)
    words = ["--backbone", args.backbone, "--label-check-folds", 0, "--seed", seed, "--threads", args.threads]
    folder, _ = trained(str(known), args.out / f"{task}-{seed}", *words)
    scores = Scores(load(folder), known, args.out)
    test = scores.split("test")
    in_distribution = scores.of(test.images)
    found: dict[str, Any] = {
        "n": len(test),
        "accuracy": float((scores.predicted(test.images) == test.labels).mean()),
        "false_alarms": float((scores.p_values(test.images) <= ALPHA).mean()),
        "unknown": {},
    }
    unknown = {"unseen products": scores.load(unknown_products)} if unknown_products else others(args, task, scores)
    for name, images in unknown.items():
        values = scores.of(images)
        thresholds = {method: np.quantile(in_distribution[method], 1 - ALPHA) for method in METHODS}
        found["unknown"][name] = {
            "n": len(images),
            "rejected": float((scores.p_values(images) <= ALPHA).mean()),
            "auroc": {method: metrics.auroc(-in_distribution[method], -values[method]) for method in METHODS},
            "rejected_at_equal_false_alarms": {
                method: float((values[method] > thresholds[method]).mean()) for method in METHODS
            },
        }
    return found


def data_of(args: argparse.Namespace, task: str, seed: int) -> tuple[Path, Path | None]:
    """Return the data to train on, and a manifest of unseen products or None."""
    if task == "parking":
        return args.parking, None
    whole = manifest(args.data, args.out)
    if task == "grocery":
        return whole, None
    with whole.open(newline="") as file:
        lines = list(csv.DictReader(file))
    if task == "fruit-packages":
        path = args.out / f"{task}.csv"
        kinds = [dict(line, label=Path(line["file_name"]).parts[2]) for line in lines]
        write_manifest(path, (line for line in kinds if line["label"] in ("Fruit", "Packages")))
        return path, None
    names = sorted({line["label"] for line in lines})
    unseen = {names[c] for c in np.random.default_rng(seed).permutation(len(names))[:N_UNKNOWN_PRODUCTS]}
    paths = {is_unseen: args.out / f"{'un' * is_unseen}seen-{seed}.csv" for is_unseen in (False, True)}
    for is_unseen, path in paths.items():
        write_manifest(path, (line for line in lines if (line["label"] in unseen) == is_unseen))
    return paths[False], paths[True]


def others(args: argparse.Namespace, task: str, scores: Scores) -> dict[str, ImageDataset]:
    """Return images of other things than those of the task."""
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (N_GENERATED, SIDE, SIDE, 3), dtype=np.uint8)
    colors = rng.integers(0, 256, (N_GENERATED, 1, 1, 3), dtype=np.uint8).repeat(SIDE, 1).repeat(SIDE, 2)
    found = {"CIFAR-10": scores.load(args.cifar).subset(np.arange(N_CIFAR))}
    found |= {
        name: scores.predictor.load_images([Image.fromarray(pixels) for pixels in each]).images
        for name, each in (("noise", noise), ("constant", colors))
    }
    if task == "parking":
        return {"grocery": scores.load(manifest(args.data, args.out)), **found}
    return {"parking": scores.load(args.parking), **found}


@dataclass(frozen=True, eq=False)
class Scores:
    """Scores of images by three methods on the features of one model; the higher, the less like the known images."""

    predictor: Predictor
    data: Path
    out: Path

    def __post_init__(self) -> None:
        self.pipeline.enable_cache()

    @property
    def pipeline(self) -> FeaturePipeline:
        assert self.predictor.features is not None
        return self.predictor.features

    @cached_property
    def splits(self) -> Mapping[str, LabeledImages]:
        """Splits of the data that the model was trained on."""
        assert self.predictor.format is not None
        return load_dataset(str(self.data), self.predictor.format).relabel(self.predictor.labels).splits

    def split(self, name: str) -> LabeledImages:
        return self.splits[name]

    def load(self, data: Path) -> ImageDataset:
        """Return the test images of other data."""
        assert self.predictor.format is not None
        return load_dataset(str(data), self.predictor.format, splits=("test",)).splits["test"].images

    @lru_cache(maxsize=1)  # noqa: B019 (one instance at a time)
    def output(self, images: ImageDataset) -> ConformalOutput:
        """Return the decisions of the model."""
        return self.predictor.conformal_output(images, alpha=ALPHA)

    def of(self, images: ImageDataset) -> dict[str, Floats]:
        """Return the score of each image by each method, (N,)."""
        output = self.output(images)
        assert output.log_likelihood is not None
        probability = self.softmax.predict_proba(self.features(images)).max(1)
        return {
            "likely": output.score.double().numpy(),
            "mahalanobis": -output.log_likelihood.amax(1).double().numpy(),
            "softmax": -probability,
        }

    def predicted(self, images: ImageDataset) -> NDArray[np.int64]:
        """Return the predicted classes, (N,)."""
        return self.output(images).predicted.numpy()

    def p_values(self, images: ImageDataset) -> Floats:
        """Return the p-value of each image, (N,)."""
        return self.output(images).p_value.numpy()

    def features(self, images: ImageDataset) -> Floats:
        """Return the scaled features that the Gaussian sees, (N, D)."""
        scaled: Floats = self.pipeline.scaler(self.pipeline.unscaled(images)).numpy()
        return scaled

    @cached_property
    def softmax(self) -> Any:
        """Logistic regression fitted to the images that the Gaussian was fitted to."""
        fitted_to = [self.splits[name] for name in ("train", "validation") if name in self.splits]
        X, y = (
            np.concatenate(each) for each in zip(*((self.features(s.images), s.labels) for s in fitted_to), strict=True)
        )
        return logistic_regression(self.penalty).fit(X, y)

    @cached_property
    def penalty(self) -> float:
        """Inverse penalty that the validation split chooses, once for all models of the folder."""
        path = self.out / "penalty.txt"
        if "validation" not in self.splits:
            return PENALTIES[-2]
        if not path.exists():
            train, validation = (self.splits[name] for name in ("train", "validation"))
            X, V = self.features(train.images), self.features(validation.images)
            fitted = {C: logistic_regression(C).fit(X, train.labels) for C in PENALTIES}
            path.write_text(str(max(PENALTIES, key=lambda C: fitted[C].score(V, validation.labels))))
        return float(path.read_text())


def logistic_regression(C: float) -> Any:
    return make_pipeline(Normalizer(), LogisticRegression(C=C, max_iter=300))


def table() -> str:
    """One row per pair of known and unknown images: mean ± standard deviation over seeds."""
    lines = [
        "| known | unknown | models | AUROC: likely, Mahalanobis, softmax | rejected at α = 0.05 | false alarms "
        "| rejected at 5 % realized false alarms: likely, Mahalanobis, softmax |",
        "|---|---|---:|---:|---:|---:|---:|",
    ]
    found = rows(RESULTS_FILE)
    for task in (*FAR, NEAR):
        of_task = [row for row in found if row["task"] == task]
        for name in of_task[0]["unknown"] if of_task else ():
            each = [row["unknown"][name] for row in of_task]
            cells = [task, name, str(len(each))]
            cells.append(", ".join(spread([row["auroc"][method] for row in each]) for method in METHODS))
            cells.append(spread([row["rejected"] for row in each]))
            cells.append(spread([row["false_alarms"] for row in of_task]))
            equal = [[row["rejected_at_equal_false_alarms"][method] for row in each] for method in METHODS]
            cells.append(", ".join(map(spread, equal)))
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, "", *differences(found), provenance(found)]) + "\n"


def differences(found: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Yield the paired difference in AUROC on unseen products, with its interval."""
    aurocs = [row["unknown"]["unseen products"]["auroc"] for row in found if row["task"] == NEAR]
    for method in METHODS[1:] if len(aurocs) > 1 else ():
        delta = np.array([each["likely"] - each[method] for each in aurocs])
        # The draws overlap: Nadeau & Bengio 2003, Inference for the generalization error, section 4.
        overlap = N_UNKNOWN_PRODUCTS / (N_PRODUCTS - N_UNKNOWN_PRODUCTS)
        error = (delta.var(ddof=1) * (1 / len(delta) + overlap)) ** 0.5
        yield (
            f"Unseen products, AUROC of likely minus {method}: {delta.mean():+.3f}, 95 % interval "
            f"{delta.mean() - 1.96 * error:+.3f} to {delta.mean() + 1.96 * error:+.3f} (Nadeau & Bengio 2003), "
            f"{len(delta)} draws."
        )


def spread(values: Sequence[float]) -> str:
    """Return mean ± standard deviation."""
    return f"{np.mean(values):.3f}" + (f" ± {np.std(values, ddof=1):.3f}" if len(values) > 1 else "")


if __name__ == "__main__":
    main()
