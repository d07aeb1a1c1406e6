"""Detection of out-of-distribution (OOD) images, and the false alarms that it costs.

    python bench/unknowns.py $DATA/fashion-mnist --models vaegan,softmax --minutes 10 --seeds 0 --out /tmp/trust

OOD images play no role in training, model selection or calibration. Calibration is repeated on ten random halves of the
held-out images, the other half of which fits the nonconformity score. Appends one line per model to
bench/results/unknowns.jsonl, unless it exists, and writes a summary and the full tables next to it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import ood_images
from numpy.typing import NDArray
from results import RESULTS, provenance, rows, write_table
from train_helpers import complete, model_arguments

from likely.base import ModelOutputs
from likely.classifier import Predictor, load
from likely.classifier.calibration import FitPlan, calibrate
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
ALPHA = "0.05"  # of the summary
TRANSFORMED = ("constant", "noise", "inverted", "half shuffled", "upside down")


def main() -> None:
    args = model_arguments(__doc__, "vaegan,softmax", 10).parse_args()
    complete(args, RESULTS_FILE, measured)
    write_table(RESULTS_FILE, summary(), full_tables())


def measured(folder: Path, data: str, seed: int) -> dict[str, Any]:
    """Return AUROC and rejection rate for each kind of OOD image, and the false alarms of repeated calibrations."""
    predictor = load(folder)
    if predictor.features is not None:
        predictor.features.enable_cache()
    labeled = eval_split(predictor, data).images
    kinds = ood_images.of(Path(data), *stored_images(predictor, labeled, data), seed)
    known, rule, log_prior = predictor.outputs(labeled.images), predictor.decision_rule, predictor.log_prior

    def typicality(outputs: ModelOutputs) -> NDArray[np.float64]:
        return -rule(outputs, log_prior, 0.05).score.numpy()

    found: dict[str, Any] = {"n": len(labeled), "ood_images": {}}
    for name, pixels in kinds.items():
        ood = predictor.outputs(preprocessed(predictor.format, pixels))
        found["ood_images"][name] = {
            "n": len(ood.log_scores),
            "auroc": auroc(typicality(known), typicality(ood)),
            "by_probability": auroc(largest_probability(predictor, known), largest_probability(predictor, ood)),
            "unknown_rate": {str(a): float((rule(ood, log_prior, a).p_value <= a).double().mean()) for a in ALPHAS},
        }
    return found | {"splits": list(false_alarms(predictor, folder, known, labeled.labels))}


def stored_images(predictor: Predictor, labeled: LabeledImages, data: str) -> tuple[NDArray[np.uint8], ImageFormat]:
    """Return known images (N, C, H, W) and their format, at the size of the data even if the model enlarges them.

    OOD images of that size are enlarged in the same manner; otherwise their finer detail alone would reveal them.
    """
    images, format = labeled.images, predictor.format
    if data != "digits":
        own = load_dataset(data, splits=("test",))
        if own.format != predictor.format and own.test is not None:
            images, format = own.test.images, own.format
    assert format is not None
    return images.batch(np.arange(min(len(images), ood_images.MAX_IMAGES))).numpy(), format


def preprocessed(format: ImageFormat | None, pixels: NDArray[np.uint8]) -> ImageDataset:
    """Return images (N, C, H, W) in the format of the model."""
    if format is not None and pixels.shape[1:] == format.shape:
        return ArrayDataset(pixels, str)
    return arrays.images(pixels.transpose(0, 2, 3, 1), format)


def largest_probability(predictor: Predictor, outputs: ModelOutputs) -> NDArray[np.float64]:
    """Return log max_c p(c | x), (N,): the maximum softmax probability (Hendrycks & Gimpel 2017)."""
    log_p = log_posterior(outputs.log_scores, predictor.log_prior, predictor.decision_rule.temperature)
    return log_p.amax(1).numpy()


def false_alarms(
    predictor: Predictor, folder: Path, known: ModelOutputs, labels: NDArray[np.int64]
) -> Iterator[dict[str, Any]]:
    """Yield the false alarms on test images over ten calibrations, with 95 % bounds over all classes, alphas and splits."""
    initial, rng = held_out_splits(predictor, folder), np.random.default_rng(0)
    K, n = len(predictor.labels), np.bincount(labels, minlength=len(predictor.labels))
    features = predictor.features.options if predictor.features is not None else FeatureOptions()
    plan = FitPlan.choose(predictor.family, features, initial, K)
    calibration = plan.final_images(initial) if plan.cross_conformal else initial.calibration
    counts = np.array(calibration.class_counts(K))
    alphas = [alpha for alpha in ALPHAS if min(counts) >= 1 / alpha]
    level = 1 - 0.05 / (K * len(alphas) * N_SPLITS)
    for i in range(N_SPLITS):
        again = initial if plan.cross_conformal else resplit(initial, rng)  # cross-conformal folds depend on the seed
        rule = calibrate(predictor.input_pipeline, again, predictor.log_prior, i, plan)
        for alpha in alphas:
            output = rule(known, predictor.log_prior, alpha)
            p_true = output.p_values.numpy()[np.arange(len(labels)), labels]
            raised = np.bincount(labels[p_true <= alpha], minlength=K)
            bounds = [beta_binomial_bound(int(a), int(b), alpha, level) for a, b in zip(n, counts, strict=True)]
            rejection_rate = float((output.p_value <= alpha).double().mean())
            yield {"alpha": alpha, "raised": raised.tolist(), "bound": bounds, "rejection_rate": rejection_rate}


def resplit(splits: Splits, rng: np.random.Generator) -> Splits:
    """Split validation and calibration images again, with as many calibration images of each class as before."""
    held_out = concatenate([splits.validation, splits.calibration])
    counts = np.bincount(splits.calibration.labels)
    selected = [rng.permutation(np.flatnonzero(held_out.labels == c))[:n] for c, n in enumerate(counts)]
    calibrates = np.isin(np.arange(len(held_out)), np.concatenate(selected))
    validation, calibration = (held_out.subset(np.flatnonzero(mask)) for mask in (~calibrates, calibrates))
    return replace(splits, validation=validation, calibration=calibration)


def summary() -> str:
    """One row per model: AUROC and rejection rate for each kind of OOD image, and the rejected fraction of known images."""
    found = rows(RESULTS_FILE)
    lines = [
        f"| data | model | known, rejected at {ALPHA} | {' | '.join(TRANSFORMED)} | other images |",
        "|---|---|---:|" + "---:|" * len(TRANSFORMED) + "---|",
    ]
    for row in found:
        kinds = row["ood_images"]
        rates = [split["rejection_rate"] for split in row["splits"] if split["alpha"] == float(ALPHA)]
        known = f"{np.mean(rates):.3f} ({min(rates):.3f} to {max(rates):.3f})"
        cells = [known, *(_cell(kinds[name]) for name in TRANSFORMED)]
        cells.append("; ".join(f"{name}: {_cell(each)}" for name, each in kinds.items() if name not in TRANSFORMED))
        lines.append(f"| {row['data']} | {row['kind']} | {' | '.join(cells)} |")
    seeds = ", ".join(sorted({str(row["seed"]) for row in found}))
    note = (
        f"OOD images: AUROC of the nonconformity score / AUROC of the largest probability / fraction rejected at α = {ALPHA}. "
        f"Known images: fraction rejected, mean and range over {N_SPLITS} calibrations. Seed {seeds}. {provenance(found)}"
    )
    return "\n".join([*lines, "", note]) + "\n"


def _cell(kind: dict[str, Any]) -> str:
    return f"{kind['auroc']:.4f} / {kind['by_probability']:.4f} / {kind['unknown_rate'][ALPHA]:.4f}"


def full_tables() -> str:
    """All kinds of OOD images at all alphas, and the class-conditional false alarms."""
    found = rows(RESULTS_FILE)
    lines = [
        "| data | model | seed | minutes | OOD images | n | AUROC | AUROC of the largest probability | rejected at "
        "α = 0.01 | 0.05 | 0.1 |",
        "|---|---|---:|---:|---|---:|---:|---:|---:|---:|---:|",
    ]
    for row in found:
        for name, kind in row["ood_images"].items():
            rejected = " | ".join(f"{kind['unknown_rate'][str(alpha)]:.4f}" for alpha in ALPHAS)
            start = f"| {row['data']} | {row['kind']} | {row['seed']} | {row['minutes']:g} | {name}"
            lines.append(f"{start} | {kind['n']:,} | {kind['auroc']:.4f} | {kind['by_probability']:.4f} | {rejected} |")
    lines += ["", f"Class-conditional false alarms, p_c ≤ α for the true class c, over {N_SPLITS} calibrations:", ""]
    lines += [
        "| data | model | seed | alpha | false-alarm rate | minimum to maximum | classes above their bound |",
        "|---|---|---:|---:|---:|---:|---:|",
    ]
    for row in found:
        for alpha in ALPHAS:
            splits = [split for split in row["splits"] if split["alpha"] == alpha]
            if splits:
                rates = [sum(split["raised"]) / row["n"] for split in splits]
                n_above = sum(a > b for split in splits for a, b in zip(split["raised"], split["bound"], strict=True))
                start = f"| {row['data']} | {row['kind']} | {row['seed']} | {alpha:g} | {np.mean(rates):.4f}"
                n_classes = len(splits) * len(splits[0]["raised"])
                lines.append(f"{start} | {min(rates):.4f} to {max(rates):.4f} | {n_above} of {n_classes} |")
    return "\n".join([*lines, "", provenance(found)]) + "\n"


if __name__ == "__main__":
    main()
