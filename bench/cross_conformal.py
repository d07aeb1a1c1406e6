"""Cross-conformal prediction: test images ranked by the final model against test images ranked in each fold by its model.

    python bench/cross_conformal.py $DATA/grocery --parking $DATA/parking-lot-camera --out /tmp/cross --seeds 0 1 2 3 4

Cross-conformal p-values rank an image in each fold among the scores of the fold, by the model of the other folds (Vovk 2015,
Cross-conformal predictors, eq. 4). `likely` ranks the score by the model of all images among the same scores, because a model
and its five fold models would be six times as large and as slow. Both are computed here, from the same fits:

- parking: two kinds of parking spots; unknown are photographs of groceries.
- grocery: 71 products, of whose training and validation images a fifth is held out; unknown are ten other products, and
  parking spots. The test images of the data set come from other visits to the shop: they are not exchangeable.

Appends one line per model to bench/results/cross_conformal.jsonl, unless it exists, and writes the table next to it.
"""

from __future__ import annotations

import argparse
import csv
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from grocery import manifest, write_manifest
from numpy.typing import NDArray
from results import RESULTS, arguments, measure_once, provenance, rows, write_table

from likely.base import Scorer
from likely.classifier.calibration import DEFAULT_OPTIONS, fit_like
from likely.classifier.scoring import model_outputs
from likely.classifier.trainer import ModelSpec, Trainer
from likely.data.dataset import LabeledImages
from likely.data.image_dataset import ImageDataset
from likely.data.loading import load_dataset
from likely.data.preprocessing import ImageOptions
from likely.data.splits import group_folds
from likely.evaluation import metrics
from likely.experiment.config import split_dataset
from likely.features.feature_extractors import FeatureOptions
from likely.features.pretrained import with_backbone_defaults
from likely.inference.image_score import ImageScore, components
from likely.inference.posterior import log_posterior_uniform

RESULTS_FILE = RESULTS / "cross_conformal.jsonl"
TASKS = ("parking", "grocery")
HELD_OUT = "held out"
N_UNKNOWN_PRODUCTS = 10
ALPHA = 0.05
SIZES = ("n", "n_groups", "n_fitted", "n_fitted_groups")
Floats: TypeAlias = NDArray[np.float64]


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("data", type=Path, help="Grocery Store data set")
    parser.add_argument("--parking", type=Path, required=True, help="photographs of parking spots, as class folders")
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=TASKS, help="known images (default: all)")
    parser.add_argument("--backbone", default="lite0", help="as for `likely train` (default lite0)")
    parser.add_argument("--out", type=Path, required=True, help="folder for manifests and cached features")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    os.environ["LIKELY_CACHE"] = str(args.out / "cache")
    for task in args.tasks:
        for seed in args.seeds:
            key = {"task": task, "seed": seed, "backbone": Path(args.backbone).name}
            measure_once(RESULTS_FILE, key, args.threads, partial(measured, args, task, seed))
    write_table(RESULTS_FILE, table())


def measured(args: argparse.Namespace, task: str, seed: int) -> dict[str, Any]:
    """Train one model and its fold models; rank known and unknown images in both ways."""
    features = FeatureOptions(features="backbone", backbone=args.backbone)
    paths = (
        grocery(args, seed)
        if task == "grocery"
        else {"train": args.parking, "groceries": manifest(args.data, args.out)}
    )
    whole = load_dataset(paths.pop("train"), with_backbone_defaults(ImageOptions(), features), splits=("train",))
    # Without the test split of the source, a fifth is held out.
    dataset, splits = split_dataset(replace(whole, available=("train",)), seed)
    trainer = Trainer(ModelSpec(features=features, seed=seed), splits, dataset.classes, dataset.format)
    for _ in trainer.steps():
        pass
    folds, test = Folds(trainer), splits.test
    assert test is not None
    assert dataset.format is not None
    held_out = folds.p_values(test.images)
    found: dict[str, Any] = {
        "n": len(test),
        "n_groups": test.n_groups,
        "n_fitted": len(folds.pool),
        "n_fitted_groups": folds.pool.n_groups,
        "n_dims": folds.vectors.images.shape[0],
        "images": {HELD_OUT: compared(held_out, held_out)},
    }
    for name, path in paths.items():
        images = next(iter(load_dataset(path, dataset.format, splits=("test",), fewest_classes=0).splits.values()))
        found["images"][name] = compared(folds.p_values(images.images), held_out)
    return found


def grocery(args: argparse.Namespace, seed: int) -> dict[str, Path]:
    """Return manifests of the products to train on, of their test images, and of the unseen products, and other images."""
    with manifest(args.data, args.out).open(newline="") as file:
        lines = list(csv.DictReader(file))
    names = sorted({line["label"] for line in lines})
    unseen = set(np.random.default_rng(seed).permutation(names)[:N_UNKNOWN_PRODUCTS])
    conditions: Mapping[str, Callable[[Mapping[str, str]], bool]] = {
        "train": lambda line: line["label"] not in unseen and line["split"] != "test",
        "other visits": lambda line: line["label"] not in unseen and line["split"] == "test",
        "unseen products": lambda line: line["label"] in unseen and line["split"] == "test",
    }
    paths = {}
    for name, condition in conditions.items():
        paths[name] = args.out / f"{name.replace(' ', '-')}-{seed}.csv"
        # A single split: that of training images, of which some are held out, or of test images.
        split = "train" if name == "train" else "test"
        write_manifest(paths[name], (dict(line, split=split) for line in filter(condition, lines)))
    return {**paths, "parking spots": args.parking}


def compared(p: PValues, held_out: PValues) -> dict[str, Any]:
    """Return fractions of rejected images and AUROCs against held-out known images, [by the final model, in the folds]."""
    return {
        "n": len(p.final),
        "rejected": [float((each <= ALPHA).mean()) for each in p],
        "changed": float(((p.final <= ALPHA) != (p.in_folds <= ALPHA)).mean()),
        "auroc": [metrics.auroc(known, each) for known, each in zip(held_out, p, strict=True)],
    }


class PValues(NamedTuple):
    """p-values of images, (N,): ranked by the final model, and in each fold by its model."""

    final: Floats
    in_folds: Floats


@dataclass(frozen=True, eq=False)
class Folds:
    """The folds of a cross-conformal model, their models and image scores, fitted as in its calibration."""

    trainer: Trainer

    @cached_property
    def pool(self) -> LabeledImages:
        """Images that the model was fitted to."""
        assert self.trainer.plan.cross_conformal
        return self.trainer.plan.final_images(self.trainer.splits).labeled()

    @cached_property
    def vectors(self) -> LabeledImages:
        """Features of the pool."""
        return self.trainer.pipeline.vectors(self.pool)

    @cached_property
    def fold(self) -> NDArray[np.int64]:
        """Fold of each image of the pool, (N,)."""
        return group_folds(self.pool, DEFAULT_OPTIONS.n_folds, self.trainer.spec.seed)

    @cached_property
    def members(self) -> list[NDArray[np.int64]]:
        """Indices of the images of each fold that calibrate: one of each group."""
        one = self.pool.one_per_group(self.trainer.spec.seed)
        return [one[self.fold[one] == k] for k in range(DEFAULT_OPTIONS.n_folds)]

    @cached_property
    def models(self) -> list[Scorer]:
        """Model of each fold, fitted to the images outside it."""
        pipeline, K = self.trainer.pipeline, len(self.trainer.classes)
        rest = (self.vectors.subset(np.flatnonzero(self.fold != k)) for k in range(DEFAULT_OPTIONS.n_folds))
        return [fit_like(pipeline, vectors, self.trainer.plan, K, self.trainer.spec.seed) for vectors in rest]

    @cached_property
    def scores(self) -> list[tuple[ImageScore, Floats]]:
        """Image score of each fold, whose distributions are those of the other folds, and the scores of its images."""
        found = [
            self.components(model, self.pool.subset(i).images)
            for model, i in zip(self.models, self.members, strict=True)
        ]
        rest = [[each for each in found if each is not own] for own in found]
        fitted = [ImageScore.fit({name: torch.cat([each[name] for each in of]) for name in of[0]}) for of in rest]
        scores = [score(own).numpy() for score, own in zip(fitted, found, strict=True)]
        calibrated = self.trainer.predictor.decision_rule.image_calibrator.scores.numpy()
        np.testing.assert_allclose(np.concatenate(scores), calibrated, rtol=1e-3)  # those of the calibration
        return list(zip(fitted, scores, strict=True))

    @torch.inference_mode()
    def components(self, model: Scorer, images: ImageDataset) -> dict[str, torch.Tensor]:
        """Return the components of the image score by one model, (N,) each."""
        outputs = model_outputs(model, self.trainer.pipeline.model_inputs(images))
        uniform = log_posterior_uniform(outputs.log_scores, self.trainer.predictor.decision_rule.temperature)
        return components(outputs, uniform, torch.zeros_like(outputs.log_scores))

    def p_values(self, images: ImageDataset) -> PValues:
        """Return the p-values of images in both ways."""
        final = self.trainer.predictor.conformal_output(images, alpha=ALPHA).p_value.double().numpy()
        n_above = np.zeros(len(images))
        for model, (score, calibration) in zip(self.models, self.scores, strict=True):
            s = score(self.components(model, images)).numpy()
            n_above += len(calibration) - np.searchsorted(np.sort(calibration), s)
        return PValues(final, (1 + n_above) / (1 + sum(len(scores) for _, scores in self.scores)))


def table() -> str:
    """One row per set of images: mean ± standard deviation over seeds."""
    found = rows(RESULTS_FILE)
    lines = [
        "| known | images | models | rejected at α = 0.05: final model, in folds | difference | status differs "
        "| AUROC: final model, in folds | difference |",
        "|---|---|---:|---:|---:|---:|---:|---:|",
    ]
    for task in TASKS:
        of_task = [row for row in found if row["task"] == task]
        for name in of_task[0]["images"] if of_task else ():
            each = [row["images"][name] for row in of_task]
            cells = [task, name, str(len(each))]
            cells += pair([row["rejected"] for row in each])
            cells.append(spread([row["changed"] for row in each]))
            cells += ["–", "–"] if name == HELD_OUT else pair([row["auroc"] for row in each])
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, "", *sizes(found), provenance(found)]) + "\n"


def sizes(found: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Yield the numbers of images and groups, and the size of five whitening matrices of each task."""
    for task in TASKS:
        of_task = [row for row in found if row["task"] == task]
        if of_task:
            mean = {name: f"{np.mean([row[name] for row in of_task]):,.0f}" for name in SIZES}
            megabytes = DEFAULT_OPTIONS.n_folds * of_task[0]["n_dims"] ** 2 * 8 / 1e6
            yield (
                f"{task}: {mean['n']} images in {mean['n_groups']} groups held out, {mean['n_fitted']} in "
                f"{mean['n_fitted_groups']} fitted; five fold models take {megabytes:.0f} MB more."
            )


def pair(values: Sequence[Sequence[float]]) -> list[str]:
    """Return two columns, each as mean ± standard deviation, in a cell, and the difference second − first in another."""
    both = np.array(values)
    difference = both[:, 1] - both[:, 0]
    sd = f" ± {difference.std(ddof=1):.4f}" if len(difference) > 1 else ""
    return [", ".join(map(spread, both.T)), f"{difference.mean():+.4f}{sd}"]


def spread(values: Sequence[float]) -> str:
    """Return mean ± standard deviation."""
    return f"{np.mean(values):.3f}" + (f" ± {np.std(values, ddof=1):.3f}" if len(values) > 1 else "")


if __name__ == "__main__":
    main()
