"""None of these: how well images of no known class are told from those of known ones, and what that costs in false alarms.

    python bench/unknowns.py $DATA/fashion-mnist --models vaegan,softmax --minutes 10 --seeds 0 --out /tmp/trust

OOD images play no role in training, choice or calibration. The calibration is repeated on ten random halves of the images that
the training set aside, the other half fitting the nonconformity. Appends a line for each model to bench/results/unknowns.jsonl,
unless it is there, and writes the tables beside it.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import ood_images
from results import RESULTS, provenance, rows, write_table
from train_helpers import complete, model_arguments

from likely.base import ModelOutputs
from likely.classifier import Predictor, load
from likely.classifier.calibration import calibrate, uses_cross_conformal
from likely.data import arrays
from likely.data.dataset import LabeledImages, concatenate
from likely.data.image_dataset import ArrayDataset, ImageDataset
from likely.data.loading import load_dataset
from likely.data.preprocessing import ImageFormat
from likely.data.splits import Splits
from likely.evaluation.eval_split import eval_split
from likely.evaluation.metrics import auroc, beta_binomial_bound
from likely.experiment import held_out_splits
from likely.features.feature_extractors import FeatureOptions
from likely.inference.posterior import log_posterior

RESULTS_FILE = RESULTS / "unknowns.jsonl"
N_SPLITS = 10
ALPHAS = (0.01, 0.05, 0.1)


def main() -> None:
    args = model_arguments(__doc__, "vaegan,softmax", 10).parse_args()
    complete(args, RESULTS_FILE, measured)
    write_table(RESULTS_FILE, table())


def measured(folder: Path, data: str, seed: int) -> dict[str, Any]:
    classifier = load(folder)
    if classifier.features is not None:
        classifier.features.enable_cache()
    labeled = eval_split(classifier, data).images
    kinds = ood_images.of(Path(data), *as_they_are(classifier, labeled, data), seed)
    examined = {name: classifier.outputs(brought_to(classifier.format, pixels)) for name, pixels in kinds.items()}
    own, rule = classifier.outputs(labeled.images), classifier.decision_rule
    sureness = -rule(own, classifier.log_prior, 0.05).nonconformity.amin(1).numpy()
    found: dict[str, Any] = {"n": len(labeled), "ood_images": {}}
    for name, each in examined.items():
        strange = -rule(each, classifier.log_prior, 0.05).nonconformity.amin(1).numpy()
        rates = {str(a): float((rule(each, classifier.log_prior, a).p_value <= a).double().mean()) for a in ALPHAS}
        found["ood_images"][name] = {
            "n": len(strange),
            "auroc": auroc(sureness, strange),
            "by_probability": auroc(largest_probability(classifier, own), largest_probability(classifier, each)),
            "unknown_rate": rates,
        }
    return found | {"splits": splits(classifier, folder, own, labeled.labels)}


def as_they_are(classifier: Predictor, labeled: LabeledImages, data: str) -> tuple[np.ndarray, ImageFormat]:
    """Known images (N, C, H, W) and their format: the data's own, if a model has them enlarged.

    A OOD image of the same size is enlarged as they are. Otherwise it would be told by how fine its detail is.
    """
    if data != "digits":
        own = load_dataset(data, splits=("test",))
        if own.format != classifier.format and own.test is not None:
            assert own.format is not None
            return own.test.images.batch(np.arange(min(len(own.test), ood_images.MOST))).numpy(), own.format
    assert classifier.format is not None
    return labeled.images.batch(np.arange(min(len(labeled), ood_images.MOST))).numpy(), classifier.format


def brought_to(format: ImageFormat | None, pixels: np.ndarray) -> ImageDataset:
    """Images (N, C, H, W) as a model takes them."""
    if format is not None and pixels.shape[1:] == format.shape:
        return ArrayDataset(pixels, str)
    return arrays.images(pixels.transpose(0, 2, 3, 1), format)


def largest_probability(classifier: Predictor, examined: ModelOutputs) -> np.ndarray:
    """log max_c p(c | x), what softmax classifiers are usually args (Hendrycks & Gimpel 2017)."""
    T = classifier.decision_rule.temperature
    return log_posterior(examined.log_scores, classifier.log_prior, T).amax(1).numpy()


def splits(classifier: Predictor, folder: Path, own: ModelOutputs, labels: np.ndarray) -> list[dict[str, Any]]:
    """Measure false alarms on the test images over ten calibrations, with 95% bounds over all classes, alphas and splits."""
    initial, rng = held_out_splits(classifier, folder), np.random.default_rng(0)
    K, n = len(classifier.labels), np.bincount(labels, minlength=len(classifier.labels))
    features = classifier.features.options if classifier.features is not None else FeatureOptions()
    crosses = uses_cross_conformal(classifier.family, features, classifier.shape)
    counts = np.array(initial.calibration.class_counts(K)) + np.array(initial.train.class_counts(K)) * crosses
    alphas = [alpha for alpha in ALPHAS if min(counts) >= 1 / alpha]
    level, found = 1 - 0.05 / (K * len(alphas) * N_SPLITS), []
    for i in range(N_SPLITS):
        again = initial if crosses else resplit(initial, rng)  # cross-conformal folds depend on the seed
        rule = calibrate(classifier.input_pipeline, again, classifier.log_prior, i, crosses)
        for alpha in alphas:
            output = rule(own, classifier.log_prior, alpha)
            p_own = output.p_values.numpy()[np.arange(len(labels)), labels]
            raised = np.bincount(labels[p_own <= alpha], minlength=K)
            bounds = [beta_binomial_bound(int(a), int(b), alpha, level) for a, b in zip(n, counts, strict=True)]
            rejection_rate = float((output.p_value <= alpha).double().mean())
            found.append({"alpha": alpha, "raised": raised.tolist(), "bound": bounds, "rejection_rate": rejection_rate})
    return found


def resplit(splits: Splits, rng: np.random.Generator) -> Splits:
    """Split validation and calibration images again, with as many calibration images of each class as before."""
    held_out = concatenate([splits.validation, splits.calibration])
    counts = np.bincount(splits.calibration.labels)
    selected = [rng.permutation(np.flatnonzero(held_out.labels == c))[:n] for c, n in enumerate(counts)]
    calibrates = np.isin(np.arange(len(held_out)), np.concatenate(selected))
    validation, calibration = (held_out.subset(np.flatnonzero(mask)) for mask in (~calibrates, calibrates))
    return replace(splits, validation=validation, calibration=calibration)


def table() -> str:
    found = rows(RESULTS_FILE)
    lines = [
        "| data | classifier | seed | minutes | OOD images | n | AUROC | AUROC by the largest probability | rejected at "
        "alpha 0.01 | at 0.05 | at 0.1 |",
        "|---|---|---:|---:|---|---:|---:|---:|---:|---:|---:|",
    ]
    for row in found:
        for name, each in row["ood_images"].items():
            rates = " | ".join(f"{each['unknown_rate'][str(alpha)]:.4f}" for alpha in ALPHAS)
            start = f"| {row['data']} | {row['kind']} | {row['seed']} | {row['minutes']:g} | {name}"
            lines.append(f"{start} | {each['n']:,} | {each['auroc']:.4f} | {each['by_probability']:.4f} | {rates} |")
    lines += ["", f"The known images' own, over {N_SPLITS} calibrations:", ""]
    lines += [
        "| data | classifier | seed | alpha | false alarms | least to most | classes above their bound |",
        "|---|---|---:|---:|---:|---:|---:|",
    ]
    for row in found:
        for alpha in ALPHAS:
            of = [split for split in row["splits"] if split["alpha"] == alpha]
            if of:
                rates = [sum(split["raised"]) / row["n"] for split in of]
                above = sum(a > b for split in of for a, b in zip(split["raised"], split["bound"], strict=True))
                start = f"| {row['data']} | {row['kind']} | {row['seed']} | {alpha:g} | {np.mean(rates):.4f}"
                lines.append(
                    f"{start} | {min(rates):.4f} to {max(rates):.4f} | {above} of {len(of) * len(of[0]['raised'])} |"
                )
    return "\n".join([*lines, "", provenance(found)]) + "\n"


if __name__ == "__main__":
    main()
