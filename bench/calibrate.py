"""Calibration with images from another source: false alarms before and after `likely calibrate`.

    python bench/calibrate.py $DATA/grocery --parking $DATA/parking-lot-camera --out /tmp/calibrate

Gaussians, on features of photographs and on the pixels of digits, see images of their classes from a source that differs from
that of their calibration images: the test split of the Grocery Store data set, and darkened, blurred or noisy test images of
the other data sets. In each of 100 draws, 200 of these calibrate the model and all others test it. The unknown images are those
of the other data set of photographs. Appends one line per source to bench/results/calibrate.jsonl, unless it exists, and writes
the table next to it.
"""

from __future__ import annotations

import argparse
import math
import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from grocery import manifest
from numpy.typing import NDArray
from results import RESULTS, arguments, measure_once, provenance, rows, write_table
from torch import Tensor
from train_helpers import trained

from likely.classifier import Predictor, load
from likely.classifier.recalibration import recalibrate
from likely.data.dataset import LabeledImages, image_hashes
from likely.data.image_dataset import ArrayDataset, ImageDataset
from likely.evaluation import metrics
from likely.evaluation.corruptions import corrupted
from likely.evaluation.eval_split import eval_split, ood_images
from likely.inference.decision import DecisionRule
from likely.inference.posterior import log_posterior

RESULTS_FILE = RESULTS / "calibrate.jsonl"
N_DRAWS, N_CALIBRATION, ALPHA, SEED = 100, 200, 0.05, 0
OPTIONS = {"digits": ("--model", "gaussian")}
DARKNESS = 0.6  # fraction of the brightness that a darkened photograph lacks


class Source(NamedTuple):
    """Images that calibrate and test a model: a change of the test split of the data that it was trained on."""

    data: str
    name: str
    change: Callable[[ImageDataset], ImageDataset]


def darkened(images: ImageDataset) -> ImageDataset:
    pixels = images.to_array()
    return ArrayDataset(np.rint((1 - DARKNESS) * pixels).astype(np.uint8), images.name)


def materialized(images: ImageDataset) -> ImageDataset:
    """Compute all images once."""
    return ArrayDataset(images.to_array(), images.name)


SOURCES = (
    Source("grocery", "test split", materialized),
    Source("parking", "test split", materialized),
    Source("parking", "darkened", darkened),
    Source("parking", "blurred", lambda images: materialized(corrupted(images, "blur", 2, SEED))),
    Source("digits", "test split", materialized),
    Source("digits", "noisy", lambda images: materialized(corrupted(images, "noise", 3, SEED))),
)


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("data", type=Path, help="Grocery Store data set")
    parser.add_argument("--parking", type=Path, required=True, help="photographs of parking spots, as class folders")
    parser.add_argument("--out", type=Path, required=True, help="folder for trained models and cached features")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    os.environ["LIKELY_CACHE"] = str(args.out / "cache")
    for source in SOURCES:
        key = {"data": source.data, "source": source.name, "n_calibration": N_CALIBRATION, "n_draws": N_DRAWS}
        measure_once(RESULTS_FILE, key, args.threads, partial(measured, args, source))
    write_table(RESULTS_FILE, table())


def measured(args: argparse.Namespace, source: Source) -> dict[str, Any]:
    """Train the model, run it on all images once, and calibrate it in every draw."""
    paths = {"grocery": manifest(args.data, args.out), "parking": args.parking, "digits": Path("digits")}
    data = str(paths[source.data])
    words = ["--label-check-folds", 0, "--threads", args.threads, *OPTIONS.get(source.data, ())]
    folder, _ = trained(data, args.out / source.data, *words)
    predictor, other = load(folder), {"grocery": "parking", "parking": "grocery"}.get(source.data)
    if predictor.features is not None:
        predictor.features.enable_cache()
    test = eval_split(predictor, data).images
    pixels = source.change(test.images)
    images = LabeledImages(pixels, test.labels, image_hashes(pixels.to_array()))
    unknown = None if other is None else ood_images(predictor, str(paths[other])).images
    outputs = predictor.outputs(pixels)
    known, of_unknown = (
        predictor.decide(outputs, alpha=ALPHA),
        unknown and predictor.conformal_output(unknown.images, alpha=ALPHA),
    )
    found, rng = [], np.random.default_rng(SEED)
    for _ in range(N_DRAWS):
        chosen, rest = np.split(rng.permutation(len(images)), [N_CALIBRATION])
        rule = recalibrate(predictor, images.subset(chosen), ALPHA).predictor.decision_rule
        found.append(
            {
                "false_alarms": _rejected(rule, known.image_score[rest]),
                "unknown_rejected": of_unknown and _rejected(rule, of_unknown.image_score),
                "log_loss": _log_loss(predictor, outputs.log_scores[rest], images.labels[rest], rule.temperature),
            }
        )
    rule = predictor.decision_rule
    before = {
        "false_alarms": _rejected(rule, known.image_score),
        "unknown_rejected": of_unknown and _rejected(rule, of_unknown.image_score),
        "log_loss": _log_loss(predictor, outputs.log_scores, images.labels, rule.temperature),
    }
    draws = {name: [draw[name] for draw in found] for name in before}
    return {"n_test": len(images) - N_CALIBRATION, "calibration": known.calibration, "before": before, "after": draws}


def _rejected(rule: DecisionRule, scores: Tensor) -> float:
    """Return the fraction of images with these scores that is rejected."""
    return round(float((rule.image_calibrator.p_values(scores, ALPHA) <= ALPHA).double().mean()), 6)


def _log_loss(predictor: Predictor, log_scores: Tensor, labels: NDArray[np.int64], temperature: float) -> float:
    return round(metrics.nll(log_posterior(log_scores, predictor.log_prior, temperature).numpy(), labels), 6)


def table() -> str:
    """One row per source: mean ± standard deviation over draws."""
    lines = [
        "| model, trained on | calibrated with 200 of | tested with | false alarms before | after | draws above their bound "
        "| log loss before | after | unknown rejected before | after |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    order = [(source.data, source.name) for source in SOURCES]
    found = sorted(rows(RESULTS_FILE), key=lambda row: order.index((row["data"], row["source"])))
    for row in found:
        before, after, n_test = row["before"], row["after"], row["n_test"]
        bound = metrics.beta_binomial_bound(n_test, N_CALIBRATION, ALPHA)
        n_above = sum(round(rate * n_test) > bound for rate in after["false_alarms"])
        cells = [row["data"], row["source"], f"{n_test:,}"]
        cells += [f"{before['false_alarms']:.3f}", spread(after["false_alarms"]), f"{n_above} of {N_DRAWS}"]
        cells += [f"{before['log_loss']:.3f}", spread(after["log_loss"])]
        unknown = before["unknown_rejected"]
        cells += ["", ""] if unknown is None else [f"{unknown:.3f}", spread(after["unknown_rejected"])]
        lines.append(f"| {' | '.join(cells)} |")
    k = math.floor(ALPHA * (N_CALIBRATION + 1))
    means = [np.mean(row["after"]["false_alarms"]) for row in found]
    expected = f"{k / (N_CALIBRATION + 1):.4f} in expectation"
    notes = (
        f"Fractions at α = {ALPHA:g}, mean ± standard deviation over {N_DRAWS} draws. The guarantee is at most {expected}; a "
        "draw exceeds its beta-binomial bound with a probability of at most 0.05. Largest mean over draws: "
        f"{max(means, default=math.nan):.4f}."
    )
    return "\n".join([*lines, "", f"{notes} {provenance(found)}"]) + "\n"


def spread(values: Sequence[float]) -> str:
    return f"{np.mean(values):.3f} ± {np.std(values, ddof=1):.3f}"


if __name__ == "__main__":
    main()
