"""Products that nobody was shown: our nonconformity beside what a logistic regression of the same features is unsure of.

    python bench/unknown_products.py $DATA/grocery --backbone $DATA/backbones/mobilenet_v2_1.0_224 --out /tmp/photos \
        --seeds 0 1 2 3 4 5 6 7 8 9

Ten of the 81 products, others for each seed, are left out of the training and of the validation split; their photographs of the
test split are to be told from those of the other 71. The rival is tuned on the validation split, and rejects what it is less
sure of than of all but a fraction of alpha of that part's images. Appends a line for each seed to
bench/results/unknown_products.jsonl, unless it is there, and writes the table beside it.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from grocery import Seen, manifest, ours, rivals, seen, shop_arguments, write_manifest
from results import RESULTS, measure_once, provenance, rows, write_table
from scipy.special import logsumexp

from likely.data.loading import load_dataset
from likely.evaluation import metrics

RESULTS_FILE = RESULTS / "unknown_products.jsonl"
N_LEFT_OUT = 10
N_RESAMPLED = 1000
ALPHA = 0.05
OURS, RIVALS = "nonconformity", ("softmax", "energy")
POSTERIOR = "our largest probability"  # says how sure of its class an image is, and is not what turns it away
RATES = {"false_alarms": "false alarms", "rejection_rate": "OOD rejected"}
Scores: TypeAlias = Sequence[np.ndarray]  # how sure of known images and of strange ones


def main() -> None:
    args = shop_arguments(__doc__)
    data = manifest(args.data, args.out)
    for seed in args.seeds:
        key = {"seed": seed, "backbone": Path(args.backbone).name, "stages": args.stages}
        measure_once(RESULTS_FILE, key, args.threads, partial(measured, args, data, seed))
    write_table(RESULTS_FILE, table())


def measured(args: argparse.Namespace, data: Path, seed: int) -> dict[str, Any]:
    """One draw of ten: neither our model nor the rival was shown them."""
    with data.open(newline="") as file:
        lines = list(csv.DictReader(file))
    names = sorted({line["label"] for line in lines})
    strange = {names[c] for c in np.random.default_rng(seed).permutation(len(names))[:N_LEFT_OUT]}
    paths = {}
    for name, wanted in (("known", False), ("strange", True)):
        paths[name] = args.out / f"{name}-{seed}.csv"
        write_manifest(paths[name], (line for line in lines if (line["label"] in strange) == wanted))
    classifier, _ = ours(args, paths["known"], f"known-{args.stages}-{seed}", seed)
    found = seen(classifier, paths["known"])
    others = Seen(
        classifier, load_dataset(str(paths["strange"]), classifier.predictor_.format, splits=("test",)).splits["test"]
    )
    outputs = [classifier.conformal_output(each.labeled.images, alpha=ALPHA) for each in (found["test"], others)]
    name, how, rival = next(rivals(found))
    *logits, of_validation = (rival.decision_function(each.X) for each in (found["test"], others, found["validation"]))
    sure = {"softmax": lambda l: (l - logsumexp(l, 1, keepdims=True)).max(1), "energy": lambda l: logsumexp(l, 1)}
    scores = {
        OURS: [-output.nonconformity.amin(1).numpy() for output in outputs],
        POSTERIOR: [output.log_posterior.amax(1).numpy() for output in outputs],
        **{kind: [how_sure(l) for l in logits] for kind, how_sure in sure.items()},
    }
    away = {OURS: [(output.p_value <= ALPHA).numpy() for output in outputs]}
    for kind, how_sure in sure.items():
        least = np.quantile(how_sure(of_validation), ALPHA)
        away[kind] = [each < least for each in scores[kind]]
    return {
        "n_known": len(found["test"].y),
        "n_ood": len(others.y),
        "false_alarms": {kind: float(known.mean()) for kind, (known, _) in away.items()},
        "rejection_rate": {kind: float(unknown.mean()) for kind, (_, unknown) in away.items()},
        "auroc": {kind: metrics.auroc(known, unknown) for kind, (known, unknown) in scores.items()},
        "delta": {kind: paired_auroc(scores[OURS], scores[kind]) for kind in RIVALS},
        "rival": f"{name}, {how}",
    }


def paired_auroc(ours: Scores, theirs: Scores) -> list[float]:
    """How far the AUROC of ours is above that of theirs on the same images, with its bootstrap interval, 95 %."""
    rng, found = np.random.default_rng(0), []
    for _ in range(N_RESAMPLED):
        these = [rng.integers(len(scores), size=len(scores)) for scores in ours]
        a, b = (metrics.auroc(each[0][these[0]], each[1][these[1]]) for each in (ours, theirs))
        found.append(a - b)
    low, high = np.quantile(found, [0.025, 0.975])
    return [metrics.auroc(*ours) - metrics.auroc(*theirs), float(low), float(high)]


def table() -> str:
    found = rows(RESULTS_FILE)
    lines = [
        "| stages | seed | n known, OOD | false alarms at alpha 0.05: ours, softmax, energy | OOD rejected: ours, "
        "softmax, energy | AUROC of nonconformity | of our largest probability | of LogisticRegression's (softmax) | of its "
        "energy | nonconformity ahead of the better one of these two by (95 % interval) |",
        "|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for row in found:
        best = min(row["delta"].values(), key=lambda delta: delta[0])
        fractions = [", ".join(f"{row[kind][name]:.3f}" for name in (OURS, *RIVALS)) for kind in RATES]
        values = [f"{row['auroc'][name]:.3f}" for name in (OURS, POSTERIOR, *RIVALS)]
        numbers = [str(row["stages"]), str(row["seed"]), f"{row['n_known']:,}, {row['n_ood']:,}"]
        delta = f"{best[0]:.3f} ({best[1]:.3f} to {best[2]:.3f})"
        lines.append(f"| {' | '.join([*numbers, *fractions, *values, delta])} |")
    means = [f"AUROC of {name} {spread([row['auroc'][name] for row in found])}" for name in (OURS, POSTERIOR, *RIVALS)]
    means += [f"delta of {OURS} over {name} {spread([row['delta'][name][0] for row in found])}" for name in RIVALS]
    for kind, words in RATES.items():
        means += [f"{words} by {name} {spread([row[kind][name] for row in found])}" for name in (OURS, *RIVALS)]
    lines += ["", f"Means of {len(found)} draws and their standard errors: {'; '.join(means)}."]
    return "\n".join([*lines, "", provenance(found)]) + "\n"


def spread(values: Sequence[float]) -> str:
    """Mean and standard error over draws, which share most of their products: it is what another draw would change."""
    error = np.std(values, ddof=1) / len(values) ** 0.5 if len(values) > 1 else np.nan
    return f"{np.mean(values):.3f} ± {error:.3f}"


if __name__ == "__main__":
    main()
