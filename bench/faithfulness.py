"""Faithfulness of attribution maps: deleting pixels in their order should change the prediction sooner than in any other order.

    python bench/faithfulness.py $DATA/fashion-mnist --minutes 10 --seeds 0 --out /tmp/trust

Pixels of test images are replaced by those of a baseline image that supports no class, the most important first, by
four rankings: attribution of the prediction against the second class, gradient magnitude, variance over training
images, random. Appends one line per model to bench/results/faithfulness.jsonl, unless it exists, and writes the table
next to it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from results import RESULTS, provenance, rows, write_table
from train_helpers import complete, model_arguments

from likely.base import to_unit
from likely.classifier import Predictor, load
from likely.classifier.explanation import baseline_image
from likely.evaluation.eval_split import eval_split, training_images
from likely.evaluation.faithfulness import deletion_fractions

RESULTS_FILE = RESULTS / "faithfulness.jsonl"
N_IMAGES, BLOCK = 500, 20
N_BOOTSTRAP = 10_000


def main() -> None:
    args = model_arguments(__doc__, "vaegan,gaussian,softmax", 10).parse_args()
    complete(args, RESULTS_FILE, measured)
    write_table(RESULTS_FILE, table())


def measured(folder: Path, data: str, seed: int) -> dict[str, Any]:
    """Return, for every ranking, the fraction of deleted pixels of each image at which the prediction changes."""
    classifier = load(folder)
    labeled, trained_on = eval_split(classifier, data).images, training_images(classifier, data)
    rng = np.random.default_rng(seed)
    chosen = np.sort(rng.permutation(len(labeled))[:N_IMAGES])
    some = np.sort(rng.permutation(len(trained_on))[:5000])
    variance = to_unit(trained_on.images.batch(some)).var(0)
    fractions: dict[str, list[float]] = {}
    for start in range(0, len(chosen), BLOCK):
        x = to_unit(labeled.images.batch(chosen[start : start + BLOCK]))
        baseline = baseline_image(classifier.model, x)
        scores = scores_of(classifier)
        noise = torch.Generator().manual_seed(seed + start)
        for name, fraction in deletion_fractions(scores, x, baseline, variance, rng=noise).items():
            fractions.setdefault(name, []).extend(fraction.tolist())
    return {"n": len(chosen), "deleted_fractions": fractions}


def scores_of(classifier: Predictor) -> Any:
    """Return the function from images to the logits of the posterior."""
    model, T, prior = classifier.model, classifier.decision_rule.temperature, classifier.log_prior
    return lambda x: model.log_scores(x) / T + prior.to(x)


def table() -> str:
    """One row per model."""
    found = rows(RESULTS_FILE)
    names = list(found[0]["deleted_fractions"])
    lines = [
        f"| data | model | seed | {' | '.join(names)} | next best minus attribution, points (95 % interval) |",
        "|---|---|---:|" + "---:|" * (len(names) + 1),
    ]
    for row in found:
        each = {name: np.array(fractions) for name, fractions in row["deleted_fractions"].items()}
        means = " | ".join(f"{values.mean():.3f}" for values in each.values())
        next_best = min((name for name in names if name != "attribution"), key=lambda name: each[name].mean())
        difference = 100 * (each[next_best] - each["attribution"])
        resampled = np.random.default_rng(0).integers(len(difference), size=(N_BOOTSTRAP, len(difference)))
        low, high = np.quantile(difference[resampled].mean(1), [0.025, 0.975])
        start = f"| {row['data']} | {row['kind']} | {row['seed']} | {means}"
        lines.append(f"{start} | {difference.mean():.1f} ({low:.1f} to {high:.1f}), {next_best} |")
    note = f"Mean fraction of deleted pixels at which the prediction changes, {found[0]['n']} test images. {provenance(found)}"
    return "\n".join([*lines, "", note]) + "\n"


if __name__ == "__main__":
    main()
