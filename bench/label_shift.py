"""Another class mix: what `--prior adapt` gains over the training's, beside what the true mix would.

    python bench/label_shift.py $DATA/fashion-mnist --models vaegan,softmax --minutes 10 --seeds 0 --out /tmp/trust

Twenty mixes from Dirichlet(0.3), each a draw of test images in that mix, whose labels `adapt` does not see; and twenty draws in
the training's own mix, where there is nothing to gain. Appends a line for each model to bench/results/label_shift.jsonl, unless
it is there, and writes the table beside it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from results import RESULTS, provenance, rows, write_table
from train_helpers import complete, model_arguments

from likely.base import ModelOutputs
from likely.classifier import Predictor, load
from likely.classifier.prior_adaptation import adapt_prior
from likely.evaluation.eval_split import eval_split
from likely.inference.posterior import log_posterior

RESULTS_FILE = RESULTS / "label_shift.jsonl"
N_DRAWS, CONCENTRATION, SHARE = 20, 0.3, 0.25  # of the test images are in a draw
ALPHA = 0.05
N_BOOTSTRAP = 10_000


def main() -> None:
    args = model_arguments(__doc__, "vaegan,softmax", 10).parse_args()
    complete(args, RESULTS_FILE, measured)
    write_table(RESULTS_FILE, table())


def measured(folder: Path, data: str, seed: int) -> dict[str, object]:
    """Accuracy of every draw under the training's mix, the estimated one and the true one."""
    classifier = load(folder)
    labeled, rng = eval_split(classifier, data).images, np.random.default_rng(seed)
    examined, K = classifier.outputs(labeled.images), len(classifier.labels)
    found: dict[str, Any] = {}
    usual = np.exp(classifier.log_prior.numpy())
    for kind in ("shifted", "unshifted"):
        draws = []
        for _ in range(N_DRAWS):
            mix = rng.dirichlet(np.full(K, CONCENTRATION)) if kind == "shifted" else usual
            chosen = resampled(labeled.labels, mix, rng)
            draws.append(accuracies(classifier, examined, labeled.labels, chosen, mix))
        found[kind] = draws
    return {"n_draw": len(chosen), **found}


def resampled(labels: np.ndarray, mix: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Images in a mix, none of them twice: as many as the fraction, or as the rarest class allows."""
    counts = np.bincount(labels, minlength=len(mix))
    n = int(min(SHARE * len(labels), (counts / np.maximum(mix, 1e-9)).min()))
    wanted = np.minimum(rng.multinomial(n, mix / mix.sum()), counts)
    return np.concatenate([rng.choice(np.flatnonzero(labels == c), n, replace=False) for c, n in enumerate(wanted)])


def accuracies(
    classifier: Predictor, examined: ModelOutputs, labels: np.ndarray, chosen: np.ndarray, mix: np.ndarray
) -> dict[str, float]:
    these = torch.from_numpy(chosen)
    labeled = examined.subset(these)
    found = adapt_prior(classifier, [labeled], ALPHA)
    priors = {
        "trained": classifier.log_prior,
        "adapted": found.prior_estimate.log_prior,
        "true": torch.from_numpy(mix).log(),
    }
    right = {}
    for name, prior in priors.items():
        posterior = log_posterior(labeled.log_scores, prior, classifier.decision_rule.temperature)
        right[name] = float((posterior.argmax(1).numpy() == labels[chosen]).mean())
    return {**right, "off": float(np.abs(found.prior_estimate.log_prior.exp().numpy() - mix).sum()), "n": len(chosen)}


def table() -> str:
    lines = [
        "| data | classifier | seed | accuracy, training's mix | adapted | true mix | share of the possible gain (95 % "
        "interval) | mean loss where nothing shifted, points |",
        "|---|---|---:|---:|---:|---:|---:|---:|",
    ]
    found = rows(RESULTS_FILE)
    for row in found:
        each = {name: np.array([draw[name] for draw in row["shifted"]]) for name in ("trained", "adapted", "true")}
        gains, possible = each["adapted"] - each["trained"], each["true"] - each["trained"]
        loss = 100 * np.mean([draw["trained"] - draw["adapted"] for draw in row["unshifted"]])
        means = " | ".join(f"{values.mean():.4f}" for values in each.values())
        lines.append(
            f"| {row['data']} | {row['kind']} | {row['seed']} | {means} | {relative_gain(gains, possible)} | {loss:.2f} |"
        )
    note = f"{N_DRAWS} mixes from Dirichlet({CONCENTRATION:g}), means over them. {provenance(found)}"
    return "\n".join([*lines, "", note]) + "\n"


def relative_gain(gains: np.ndarray, possible: np.ndarray) -> str:
    """Of the sums, with its bootstrap interval where every resample leaves something to gain."""
    again = np.random.default_rng(0).integers(len(gains), size=(N_BOOTSTRAP, len(gains)))
    total = possible[again].sum(1)
    if (total <= 0).any():
        return f"{gains.sum() / possible.sum():.2f} (too little to gain for an interval)"
    low, high = np.quantile(gains[again].sum(1) / total, [0.025, 0.975])
    return f"{gains.sum() / possible.sum():.2f} ({low:.2f} to {high:.2f})"


if __name__ == "__main__":
    main()
