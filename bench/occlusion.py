"""Missing pixels: a generative classifier that marginalizes hidden pixels, against baselines on filled-in images.

    python bench/occlusion.py $DATA/fashion-mnist --minutes 10 --seeds 0 --out /tmp/trust

The baseline is trained as usual, and with random erasing (Zhong 2020) as softmax+erasing; hidden pixels are replaced by
the mean color of the observed ones, as in that training. Masks: a random square of half the area, and the left half.
Appends one line per model to bench/results/occlusion.jsonl, unless it exists, and writes the table next to it.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from results import RESULTS, provenance, rows, write_table
from train_helpers import complete, model_arguments

from likely.base import SupportsMissingPixels, to_eight_bit, to_unit
from likely.classifier import Predictor, load
from likely.data.dataset import LabeledImages
from likely.evaluation import metrics
from likely.evaluation.eval_split import eval_split
from likely.inference.posterior import log_posterior
from likely.training.augment import fill_masked

RESULTS_FILE = RESULTS / "occlusion.jsonl"
MASKS = ("nothing", "square", "left half")
BLOCK = 250


def main() -> None:
    args = model_arguments(__doc__, "vaegan,softmax,softmax+erasing", 10).parse_args()
    complete(args, RESULTS_FILE, measured)
    write_table(RESULTS_FILE, table())


def measured(folder: Path, data: str, seed: int) -> dict[str, Any]:
    """Return the metrics under every mask."""
    classifier = load(folder)
    labeled = eval_split(classifier, data).images
    return {"n": len(labeled), **{mask: masked_metrics(mask, classifier, labeled) for mask in MASKS}}


@torch.inference_mode()
def masked_metrics(mask: str, classifier: Predictor, labeled: LabeledImages) -> dict[str, float]:
    """Return accuracy, ECE and images per second under a mask."""
    scores, start = [], time.perf_counter()
    masks = hidden_pixels(mask, len(labeled), *labeled.images.shape[1:])
    for at in range(0, len(labeled), BLOCK):
        block = np.arange(at, min(at + BLOCK, len(labeled)))
        x, observed = to_unit(labeled.images.batch(block)), ~masks[torch.from_numpy(block)]
        model = classifier.model
        if mask == "nothing":
            scores.append(model.log_scores(x))
        elif isinstance(model, SupportsMissingPixels):
            scores.append(model.observed_log_likelihood(x, observed))
        else:
            scores.append(model.log_scores(to_unit(to_eight_bit(fill_masked(x, observed)))))
    found = log_posterior(torch.cat(scores), classifier.log_prior, classifier.decision_rule.temperature).numpy()
    return {
        "accuracy": metrics.accuracy(found, labeled.labels),
        "ece": metrics.ece(found, labeled.labels),
        "per_second": len(labeled) / (time.perf_counter() - start),
    }


def hidden_pixels(mask: str, n: int, H: int, W: int) -> torch.Tensor:
    """Return the mask of hidden pixels of n images, (n, H, W) bool, equal for all models."""
    hidden = torch.zeros(n, H, W, dtype=torch.bool)
    if mask == "left half":
        hidden[:, :, : W // 2] = True
    elif mask == "square":
        rng, height, width = np.random.default_rng(0), round(H / 2**0.5), round(W / 2**0.5)
        for i in range(n):
            top, left = rng.integers(H - height + 1), rng.integers(W - width + 1)
            hidden[i, top : top + height, left : left + width] = True
    return hidden


def table() -> str:
    """One row per model."""
    lines = [
        "| data | model | seed | accuracy, whole image | square hidden | left half hidden | ECE, square | ECE, left half "
        "| images/s, square hidden |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    found = rows(RESULTS_FILE)
    for row in found:
        accuracy = " | ".join(f"{row[mask]['accuracy']:.4f}" for mask in MASKS)
        ece = " | ".join(f"{row[mask]['ece']:.4f}" for mask in MASKS[1:])
        per_second = row["square"]["per_second"]
        lines.append(f"| {row['data']} | {row['kind']} | {row['seed']} | {accuracy} | {ece} | {per_second:,.0f} |")
    return "\n".join([*lines, "", provenance(found)]) + "\n"


if __name__ == "__main__":
    main()
