"""Every option of `gan` on the embedded digits: one option changed at a time, with all labels and with ten a class.

    python bench/gan_options.py --seeds 0 1

Appends a line for each variant and seed to bench/results/gan_options.jsonl, unless it is there, and writes the table beside
it. Nothing is chosen by the test images that it measures on.
"""

from __future__ import annotations

import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from few_labels import few_labeled
from results import RESULTS, append, arguments, environment, provenance, resolved, rows, write_table

from likely import Classifier
from likely.data.dataset import Dataset, LabeledImages
from likely.data.loading import load_dataset
from likely.data.splits import Splits, make_splits
from likely.evaluation.extractors import ModelExtractor
from likely.evaluation.fidelity import fidelity
from likely.exceptions import DivergenceError

RESULTS_FILE = RESULTS / "gan_options.jsonl"
EPOCHS, LABELS = 40, 10
# What a row is called, the options and what the training does otherwise.
VARIANTS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "preset generator": ({}, {}),
    "preset classifier, as many steps": ({"preset": "classifier"}, {"epochs": 2 * EPOCHS}),
    "architecture dense": ({"architecture": "dense"}, {}),
    "generator_architecture dense": ({"generator_architecture": "dense"}, {}),
    "both dense": ({"architecture": "dense", "generator_architecture": "dense"}, {}),
    "generator_width 16": ({"generator_width": 16}, {}),
    "loss hinge": ({"loss": "hinge"}, {}),
    "head auxiliary": ({"head": "auxiliary"}, {}),
    "head auxiliary, loss wgan-gp": ({"head": "auxiliary", "loss": "wgan-gp"}, {}),
    "adversarial_weight 0, feature_matching 1": ({"adversarial_weight": 0.0, "feature_matching": 1.0}, {}),
    "feature_matching 1": ({"feature_matching": 1.0}, {}),
    "class_weight 1": ({"class_weight": 1.0}, {}),
    "aux_class_weight 0": ({"aux_class_weight": 0.0}, {}),
    "aux_class_weight 1": ({"aux_class_weight": 1.0}, {}),
    "g_lr_ratio 1": ({"g_lr_ratio": 1.0}, {}),
    "noise 0.3": ({"noise": 0.3}, {}),
    "norm none": ({"norm": "none"}, {}),
    "norm weight": ({"norm": "weight"}, {}),
    "norm fixed_weight_norm": ({"norm": "fixed_weight_norm"}, {}),
    "norm fixed_weight_norm, noise 0.5": ({"norm": "fixed_weight_norm", "noise": 0.5}, {}),
    "norm spectral": ({"norm": "spectral"}, {}),
    "diff_augment none": ({"diff_augment": "none"}, {}),
    "diff_augment color,shift,cutout": ({"diff_augment": "color,shift,cutout"}, {}),
    "latent_dims 8": ({"latent_dims": 8}, {}),
    "without moving average (ema_decay 0)": ({}, {"ema_decay": 0.0}),
}
HOW = {
    variant: resolved("gan", options, {"epochs": EPOCHS} | training)
    for variant, (options, training) in VARIANTS.items()
}


def main() -> None:
    parser = arguments(__doc__)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    dataset = load_dataset("digits")
    known = {(variant, row["seed"]) for variant, group in _measured().items() for row in group}
    todo = [(variant, seed) for seed in args.seeds for variant in VARIANTS if (variant, seed) not in known]
    if todo:
        with TemporaryDirectory() as folder:
            features = extractor(dataset, Path(folder))
            for variant, seed in todo:
                append(RESULTS_FILE, measured(variant, seed, dataset, features, args.threads))
                print(f"{variant}, seed {seed}", flush=True)
    write_table(RESULTS_FILE, table())


def extractor(dataset: Dataset, folder: Path) -> ModelExtractor:
    """The softmax baseline, trained once on all labels, whose features and predictions measure the samples."""
    baseline = Classifier("softmax", training={"epochs": EPOCHS}, random_state=0)
    _train(baseline, make_splits(dataset, 0), dataset)
    baseline.save(folder / "baseline")
    return ModelExtractor(baseline)


def measured(variant: str, seed: int, dataset: Dataset, features: ModelExtractor, threads: int) -> dict[str, object]:
    """Train with all labels and draw; train with ten labels a class among unlabeled images; both measured on test."""
    options, training = VARIANTS[variant]
    test = dataset.test
    assert test is not None
    row: dict[str, object] = {
        "variant": variant,
        "how": HOW[variant],
        "seed": seed,
        "epochs": EPOCHS,
        "n_test": len(test.labels),
        **with_all_labels(variant, seed, dataset, features),
    }
    few = Classifier("gan", options=options, training={"epochs": EPOCHS} | training, random_state=seed)
    start = time.perf_counter()
    row["few_rollbacks"], row["seconds"] = (
        _train(few, few_labeled(dataset, LABELS, seed), dataset),
        time.perf_counter() - start,
    )
    if row["few_rollbacks"] is not None:
        row["few_accuracy"] = _accuracy(few, test)
    return {**environment(threads), **row}


def with_all_labels(variant: str, seed: int, dataset: Dataset, features: ModelExtractor) -> dict[str, object]:
    """Accuracy, and what the generated images are."""
    options, training = VARIANTS[variant]
    test = dataset.test
    assert test is not None
    whole = Classifier("gan", options=options, training={"epochs": EPOCHS} | training, random_state=seed)
    rollbacks = _train(whole, make_splits(dataset, seed), dataset)
    if rollbacks is None:
        return {"rollbacks": None}
    found = fidelity(whole, test, features, seed=seed)
    assert found.class_consistency is not None
    return {
        "rollbacks": rollbacks,
        "accuracy": _accuracy(whole, test),
        "frechet": found.frechet,
        "extractor": found.extractor,
        "recall": found.recall,
        "class_consistency": sum(found.class_consistency.n_consistent) / found.class_consistency.n,
    }


def _train(classifier: Classifier, splits: Splits, dataset: Dataset) -> int | None:
    """How often the training had to be rolled back; None if it was diverged."""
    notes = 0
    try:
        for step in classifier.fit_steps(splits, dataset.classes, dataset.format):
            notes += step.note is not None
    except DivergenceError:
        return None
    classifier.finish(splits)
    return notes


def _accuracy(classifier: Classifier, test: LabeledImages) -> float:
    return float((classifier.log_posterior(test.images).argmax(1) == test.labels).mean())


def _measured() -> dict[str, list[dict[str, Any]]]:
    """What is known of each variant as it is today."""
    found = rows(RESULTS_FILE)
    return {
        variant: [row for row in found if (row["variant"], row["how"]) == (variant, how)]
        for variant, how in HOW.items()
    }


def table() -> str:
    """A row a variant, means over seeds; the accuracies' least and most beside them."""
    lines = [
        "| changed | accuracy | with 10 labels a class | samples of the right class | FID | recall | seconds | roll-backs |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    groups = _measured()
    found = [row for group in groups.values() for row in group]
    for variant, group in groups.items():
        if group:
            cells = [_spread(group, "accuracy"), _spread(group, "few_accuracy")]
            cells += [
                _mean(group, name, form)
                for name, form in (("class_consistency", ".2f"), ("frechet", ".3f"), ("recall", ".2f"))
            ]
            rollbacks = [row[name] for row in group for name in ("rollbacks", "few_rollbacks") if name in row]
            n_diverged = sum(each is None for each in rollbacks)
            cells += [_mean(group, "seconds", ".0f"), str(sum(each or 0 for each in rollbacks))]
            cells[-1] += f", {n_diverged} diverged" if n_diverged else ""
            lines.append(f"| {variant} | {' | '.join(cells)} |")
    seeds = ", ".join(str(seed) for seed in sorted({row["seed"] for row in found}))
    extractors = sorted({row["extractor"] for row in found if "extractor" in row})
    lines += [
        "",
        f"Seeds {seeds}; {EPOCHS} epochs; {found[0]['n_test']} test images, as many generated ones for FID and recall, in the "
        f"features of {'; '.join(extractors)}. {provenance(found)}",
    ]
    return "\n".join(lines) + "\n"


def _mean(group: list[dict[str, Any]], name: str, form: str) -> str:
    values = [row[name] for row in group if name in row]
    return format(np.mean(values), form) if values else ""


def _spread(group: list[dict[str, Any]], name: str) -> str:
    values = [row[name] for row in group if name in row]
    return f"{np.mean(values):.3f} ({min(values):.3f} to {max(values):.3f})" if values else ""


if __name__ == "__main__":
    main()
