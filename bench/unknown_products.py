"""Detection of photographs of unknown products: nonconformity against the confidence of a logistic regression.

    python bench/unknown_products.py $DATA/grocery --backbone $DATA/backbones/mobilenet_v2_1.0_224 --out /tmp/photos \
        --seeds 0 1 2 3 4 5 6 7 8 9

Ten of the 81 products, others for each seed, are excluded from training and validation and are the out-of-distribution
(OOD) images of the test split. The competitor is tuned on the validation split, and rejects images below the alpha
quantile of its confidence there. Appends one line per seed to bench/results/unknown_products.jsonl, unless it exists,
and writes a summary and the table of all seeds next to it.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from grocery import FeatureSplit, competitors, feature_splits, manifest, shop_arguments, train_gaussian, write_manifest
from numpy.typing import NDArray
from results import RESULTS, measure_once, provenance, rows, write_table
from scipy.special import logsumexp

from likely.data.loading import load_dataset
from likely.evaluation import metrics

RESULTS_FILE = RESULTS / "unknown_products.jsonl"
N_OOD_PRODUCTS = 10
N_RESAMPLES = 1000
ALPHA = 0.05
Floats: TypeAlias = NDArray[np.float64]
Scores: TypeAlias = Sequence[Floats]  # confidence in known and in OOD images
NONCONFORMITY, PROBABILITY = "nonconformity", "our largest probability"  # the latter does not reject
CONFIDENCES: Mapping[str, Callable[[Floats], Floats]] = {
    "softmax": lambda logits: (logits - logsumexp(logits, 1, keepdims=True)).max(1),
    "energy": lambda logits: logsumexp(logits, 1),
}
RATES = {"false_alarms": "known images rejected", "rejection_rate": "OOD images rejected"}
NAMES = {
    NONCONFORMITY: "nonconformity of `gaussian`",
    PROBABILITY: "largest probability of `gaussian`",
    "softmax": "largest probability of LogisticRegression",
    "energy": "energy of LogisticRegression",
}


def main() -> None:
    args = shop_arguments(__doc__)
    data = manifest(args.data, args.out)
    for seed in args.seeds:
        key = {"seed": seed, "backbone": Path(args.backbone).name, "stages": args.stages}
        measure_once(RESULTS_FILE, key, args.threads, partial(measured, args, data, seed))
    write_table(RESULTS_FILE, summary(), full_table())


def measured(args: argparse.Namespace, data: Path, seed: int) -> dict[str, Any]:
    """Train both classifiers without ten products, and detect these."""
    paths = split_manifest(data, args.out, seed)
    predictor, _ = train_gaussian(args, paths["known"], f"known-{args.stages}-{seed}", seed)
    splits = feature_splits(predictor, paths["known"])
    assert predictor.format is not None
    ood = FeatureSplit.of(predictor, load_dataset(str(paths["ood"]), predictor.format, splits=("test",)).splits["test"])
    pair = splits["test"], ood
    outputs = [predictor.conformal_output(each.labeled.images, alpha=ALPHA) for each in pair]
    name, hyperparameters, fitted = next(competitors(splits))
    scores: dict[str, Scores] = {
        NONCONFORMITY: [-output.score.numpy() for output in outputs],
        PROBABILITY: [output.log_posterior.amax(1).numpy() for output in outputs],
    }
    rejected = {NONCONFORMITY: [(output.p_value <= ALPHA).numpy() for output in outputs]}
    for kind, confidence in CONFIDENCES.items():
        scores[kind] = [confidence(fitted.decision_function(each.X)) for each in pair]
        threshold = np.quantile(confidence(fitted.decision_function(splits["validation"].X)), ALPHA)
        rejected[kind] = [each < threshold for each in scores[kind]]
    return {
        "n_known": len(pair[0].y),
        "n_ood": len(ood.y),
        "false_alarms": {kind: float(known.mean()) for kind, (known, _) in rejected.items()},
        "rejection_rate": {kind: float(unknown.mean()) for kind, (_, unknown) in rejected.items()},
        "auroc": {kind: metrics.auroc(known, unknown) for kind, (known, unknown) in scores.items()},
        "delta": {kind: paired_auroc(scores[NONCONFORMITY], scores[kind]) for kind in CONFIDENCES},
        "competitor": f"{name}, {hyperparameters}",
    }


def split_manifest(data: Path, out: Path, seed: int) -> dict[str, Path]:
    """Write manifests of the known and of the OOD products."""
    with data.open(newline="") as file:
        lines = list(csv.DictReader(file))
    names = sorted({line["label"] for line in lines})
    ood = {names[c] for c in np.random.default_rng(seed).permutation(len(names))[:N_OOD_PRODUCTS]}
    paths = {kind: out / f"{kind}-{seed}.csv" for kind in ("known", "ood")}
    for kind, path in paths.items():
        write_manifest(path, (line for line in lines if (line["label"] in ood) == (kind == "ood")))
    return paths


def paired_auroc(a: Scores, b: Scores) -> list[float]:
    """Return the AUROC of a minus that of b on the same images, with its 95 % bootstrap interval."""
    rng, found = np.random.default_rng(0), []
    for _ in range(N_RESAMPLES):
        resampled = [rng.integers(len(scores), size=len(scores)) for scores in a]
        of_a, of_b = (metrics.auroc(each[0][resampled[0]], each[1][resampled[1]]) for each in (a, b))
        found.append(of_a - of_b)
    low, high = np.quantile(found, [0.025, 0.975])
    return [metrics.auroc(*a) - metrics.auroc(*b), float(low), float(high)]


def summary() -> str:
    """One row per score: mean and standard error over seeds."""
    found = rows(RESULTS_FILE)
    lines = [
        f"| score | AUROC | nonconformity minus this | {RATES['false_alarms']} | {RATES['rejection_rate']} |",
        "|---|---:|---:|---:|---:|",
    ]
    for kind, name in NAMES.items():
        cells = [spread([row["auroc"][kind] for row in found])]
        cells.append(spread([row["delta"][kind][0] for row in found]) if kind in CONFIDENCES else "")
        cells += [spread([row[rate][kind] for row in found]) if kind in found[0][rate] else "" for rate in RATES]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    note = (
        f"Mean ± standard error over {len(found)} choices of {N_OOD_PRODUCTS} products; rejection at α = {ALPHA:g}. "
        f"{provenance(found)}"
    )
    return "\n".join([*lines, "", note]) + "\n"


def full_table() -> str:
    """One row per seed."""
    found = rows(RESULTS_FILE)
    kinds = ", ".join((NONCONFORMITY, *CONFIDENCES))
    lines = [
        f"| stages | seed | n known, OOD | {RATES['false_alarms']} at α = {ALPHA:g}: {kinds} "
        f"| {RATES['rejection_rate']}: {kinds} | {' | '.join(f'AUROC of {name}' for name in NAMES.values())} "
        "| nonconformity minus the better of the last two (95 % interval) |",
        "|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for row in found:
        best = min(row["delta"].values(), key=lambda delta: delta[0])
        fractions = [", ".join(f"{row[rate][kind]:.3f}" for kind in (NONCONFORMITY, *CONFIDENCES)) for rate in RATES]
        values = [f"{row['auroc'][kind]:.3f}" for kind in NAMES]
        numbers = [str(row["stages"]), str(row["seed"]), f"{row['n_known']:,}, {row['n_ood']:,}"]
        delta = f"{best[0]:.3f} ({best[1]:.3f} to {best[2]:.3f})"
        lines.append(f"| {' | '.join([*numbers, *fractions, *values, delta])} |")
    return "\n".join([*lines, "", provenance(found)]) + "\n"


def spread(values: Sequence[float]) -> str:
    """Return mean ± standard error over seeds."""
    error = np.std(values, ddof=1) / len(values) ** 0.5 if len(values) > 1 else np.nan
    return f"{np.mean(values):.3f} ± {error:.3f}"


if __name__ == "__main__":
    main()
