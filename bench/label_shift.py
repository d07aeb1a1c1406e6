"""Label shift: accuracy of `--prior adapt` against the training prior and the true prior.

    python bench/label_shift.py $DATA/fashion-mnist --models vaegan,softmax --minutes 10 --seeds 0 --out /tmp/trust

Twenty priors from Dirichlet(0.3), each with a random sample of test images whose labels `adapt` does not use; and
twenty samples under the training prior, where nothing can be gained. Appends one line per model to
bench/results/label_shift.jsonl, unless it exists, and writes the table next to it.
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
N_SAMPLES, CONCENTRATION = 20, 0.3
TEST_FRACTION = 0.25  # of the test images in a sample
ALPHA = 0.05
N_BOOTSTRAP = 10_000


def main() -> None:
    args = model_arguments(__doc__, "vaegan,softmax", 10).parse_args()
    complete(args, RESULTS_FILE, measured)
    write_table(RESULTS_FILE, table())


def measured(folder: Path, data: str, seed: int) -> dict[str, object]:
    """Return the accuracy of every sample under the training prior, the estimated and the true one."""
    classifier = load(folder)
    labeled, rng = eval_split(classifier, data).images, np.random.default_rng(seed)
    outputs, K = classifier.outputs(labeled.images), len(classifier.labels)
    found: dict[str, Any] = {}
    training_prior = np.exp(classifier.log_prior.numpy())
    for kind in ("shifted", "unshifted"):
        samples = []
        for _ in range(N_SAMPLES):
            prior = rng.dirichlet(np.full(K, CONCENTRATION)) if kind == "shifted" else training_prior
            chosen = resampled(labeled.labels, prior, rng)
            samples.append(accuracies(classifier, outputs, labeled.labels, chosen, prior))
        found[kind] = samples
    return {"n_draw": len(chosen), **found}


def resampled(labels: np.ndarray, prior: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Sample images under a class prior without replacement, as many as TEST_FRACTION or the rarest class allows."""
    counts = np.bincount(labels, minlength=len(prior))
    n = int(min(TEST_FRACTION * len(labels), (counts / np.maximum(prior, 1e-9)).min()))
    wanted = np.minimum(rng.multinomial(n, prior / prior.sum()), counts)
    return np.concatenate([rng.choice(np.flatnonzero(labels == c), n, replace=False) for c, n in enumerate(wanted)])


def accuracies(
    classifier: Predictor, outputs: ModelOutputs, labels: np.ndarray, chosen: np.ndarray, prior: np.ndarray
) -> dict[str, float]:
    """Return the accuracy of a sample under each prior, and the L1 error of the estimated one."""
    labeled = outputs.subset(torch.from_numpy(chosen))
    found = adapt_prior(classifier, [labeled], ALPHA)
    priors = {
        "trained": classifier.log_prior,
        "adapted": found.prior_estimate.log_prior,
        "true": torch.from_numpy(prior).log(),
    }
    correct = {}
    for name, log_prior in priors.items():
        posterior = log_posterior(labeled.log_scores, log_prior, classifier.decision_rule.temperature)
        correct[name] = float((posterior.argmax(1).numpy() == labels[chosen]).mean())
    return {
        **correct,
        "off": float(np.abs(found.prior_estimate.log_prior.exp().numpy() - prior).sum()),
        "n": len(chosen),
    }


def table() -> str:
    """One row per model."""
    lines = [
        "| data | model | seed | accuracy, training prior | adapted | true prior | fraction of the possible gain (95 % "
        "interval) | mean loss without a shift, points |",
        "|---|---|---:|---:|---:|---:|---:|---:|",
    ]
    found = rows(RESULTS_FILE)
    for row in found:
        each = {name: np.array([sample[name] for sample in row["shifted"]]) for name in ("trained", "adapted", "true")}
        gains, possible = each["adapted"] - each["trained"], each["true"] - each["trained"]
        loss = 100 * np.mean([sample["trained"] - sample["adapted"] for sample in row["unshifted"]])
        means = " | ".join(f"{values.mean():.4f}" for values in each.values())
        lines.append(
            f"| {row['data']} | {row['kind']} | {row['seed']} | {means} | {relative_gain(gains, possible)} | {loss:.2f} |"
        )
    note = f"Means over {N_SAMPLES} priors from Dirichlet({CONCENTRATION:g}). {provenance(found)}"
    return "\n".join([*lines, "", note]) + "\n"


def relative_gain(gains: np.ndarray, possible: np.ndarray) -> str:
    """Return the ratio of the sums, with its bootstrap interval if the possible gain of every resample is positive."""
    again = np.random.default_rng(0).integers(len(gains), size=(N_BOOTSTRAP, len(gains)))
    total = possible[again].sum(1)
    if (total <= 0).any():
        return f"{gains.sum() / possible.sum():.2f} (too little to gain for an interval)"
    low, high = np.quantile(gains[again].sum(1) / total, [0.025, 0.975])
    return f"{gains.sum() / possible.sum():.2f} ({low:.2f} to {high:.2f})"


if __name__ == "__main__":
    main()
