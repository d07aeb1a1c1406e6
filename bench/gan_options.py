"""Ablation of the options of `gan` on the embedded digits: one option at a time, with all labels and with ten per class.

    python bench/gan_options.py --seeds 0 1

Appends one line per variant and seed to bench/results/gan_options.jsonl, unless it exists, and writes two tables next
to it: all variants, and those with the largest effects. Test images select nothing.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from few_labels import few_labeled
from results import RESULTS, arguments, has_row, measure_once, provenance, resolved, rows, write_table

from likely.classifier import Predictor, save
from likely.classifier.trainer import ModelSpec, Trainer
from likely.data.dataset import Dataset, LabeledImages
from likely.data.loading import load_dataset
from likely.data.splits import Splits, make_splits
from likely.evaluation.extractors import ModelExtractor
from likely.evaluation.fidelity import fidelity
from likely.exceptions import DivergenceError
from likely.training.options import TrainingOptions

RESULTS_FILE = RESULTS / "gan_options.jsonl"
EPOCHS, LABELS = 40, 10
# Variant: family options and training options that differ from the defaults.
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
RESOLVED = {
    variant: resolved("gan", options, {"epochs": EPOCHS} | training)
    for variant, (options, training) in VARIANTS.items()
}
SUMMARY = (
    "preset generator",
    "preset classifier, as many steps",
    "architecture dense",
    "generator_architecture dense",
    "both dense",
    "feature_matching 1",
    "aux_class_weight 1",
    "noise 0.3",
    "norm fixed_weight_norm, noise 0.5",
    "norm spectral",
    "diff_augment none",
    "head auxiliary",
)


def main() -> None:
    args = arguments(__doc__).parse_args()
    torch.set_num_threads(args.threads)
    dataset = load_dataset("digits")
    keys = [
        {"variant": variant, "options": RESOLVED[variant], "seed": seed} for seed in args.seeds for variant in VARIANTS
    ]
    if missing := [key for key in keys if not has_row(RESULTS_FILE, key)]:
        with TemporaryDirectory() as folder:
            features = extractor(dataset, Path(folder))
            for key in missing:
                variant, seed = str(key["variant"]), int(str(key["seed"]))
                measure_once(RESULTS_FILE, key, args.threads, partial(measured, variant, seed, dataset, features))
                print(f"{variant}, seed {seed}", flush=True)
    write_table(RESULTS_FILE, table(SUMMARY), table(list(VARIANTS)))


def extractor(dataset: Dataset, folder: Path) -> ModelExtractor:
    """Train the softmax baseline on all labels; its features and predictions measure the samples."""
    trainer = Trainer(
        ModelSpec("softmax", training=TrainingOptions(epochs=EPOCHS)),
        make_splits(dataset, 0),
        dataset.classes,
        dataset.format,
    )
    predictor, _ = trained(trainer)
    assert predictor is not None
    return ModelExtractor(save(predictor, folder / "baseline"))


def measured(variant: str, seed: int, dataset: Dataset, features: ModelExtractor) -> dict[str, Any]:
    """Train with all labels and sample; train with ten labels per class; measure both on the test split."""
    test = dataset.splits["test"]
    found = {"epochs": EPOCHS, "n_test": len(test.labels), **with_all_labels(variant, seed, dataset, features)}
    start = time.perf_counter()
    few, found["few_rollbacks"] = trained(gan(variant, seed, dataset, few_labeled(dataset, LABELS, seed)))
    found["seconds"] = time.perf_counter() - start
    return found if few is None else found | {"few_accuracy": accuracy(few, test)}


def with_all_labels(variant: str, seed: int, dataset: Dataset, features: ModelExtractor) -> dict[str, Any]:
    """Return the accuracy and the sample quality of a GAN that is trained with all labels."""
    test = dataset.splits["test"]
    predictor, rollbacks = trained(gan(variant, seed, dataset, make_splits(dataset, seed)))
    if predictor is None:
        return {"rollbacks": None}
    found = fidelity(predictor, test, features, seed=seed)
    assert found.class_consistency is not None
    return {
        "rollbacks": rollbacks,
        "accuracy": accuracy(predictor, test),
        "frechet": found.frechet,
        "extractor": found.extractor,
        "recall": found.recall,
        "class_consistency": sum(found.class_consistency.n_consistent) / found.class_consistency.n,
    }


def gan(variant: str, seed: int, dataset: Dataset, splits: Splits) -> Trainer:
    """Return the untrained GAN of a variant."""
    options, training = VARIANTS[variant]
    spec = ModelSpec("gan", options, TrainingOptions.model_validate({"epochs": EPOCHS} | training), seed=seed)
    return Trainer(spec, splits, dataset.classes, dataset.format)


def trained(trainer: Trainer) -> tuple[Predictor | None, int | None]:
    """Train; return the predictor and the number of rollbacks, both None after divergence."""
    try:
        rollbacks = sum(step.note is not None for step in trainer.steps())
    except DivergenceError:
        return None, None
    return trainer.predictor, rollbacks


def accuracy(predictor: Predictor, test: LabeledImages) -> float:
    """Return the accuracy on labeled images."""
    return float((predictor.log_posterior(test.images).argmax(1) == test.labels).mean())


def table(variants: Sequence[str]) -> str:
    """One row per variant: means over seeds, and the range of the accuracies."""
    lines = [
        "| variant | accuracy | with 10 labels per class | class consistency | FID | recall | seconds | rollbacks |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    whole = rows(RESULTS_FILE)
    groups = {v: [row for row in whole if (row["variant"], row["options"]) == (v, RESOLVED[v])] for v in variants}
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
    extractors = "; ".join(sorted({row["extractor"] for row in found if "extractor" in row}))
    note = (
        f"Seeds {seeds}; {EPOCHS} epochs; {found[0]['n_test']} test images and as many generated images, in the features of "
        f"{extractors}. {provenance(found)}"
    )
    return "\n".join([*lines, "", note]) + "\n"


def _mean(group: list[dict[str, Any]], name: str, form: str) -> str:
    values = [row[name] for row in group if name in row]
    return format(np.mean(values), form) if values else ""


def _spread(group: list[dict[str, Any]], name: str) -> str:
    values = [row[name] for row in group if name in row]
    return f"{np.mean(values):.3f} ({min(values):.3f} to {max(values):.3f})" if values else ""


if __name__ == "__main__":
    main()
