"""Products that nobody was shown: our strangeness beside what a logistic regression of the same features is unsure of.

    python bench/unknown_products.py $DATA/grocery --backbone $DATA/backbones/mobilenet_v2_1.0_224 --out /tmp/photos \
        --seeds 0 1 2 3 4 5 6 7 8 9

Ten of the 81 products, others for each seed, are left out of the training and of the validation part; their photographs of the
test part are to be told from those of the other 71. The rival is tuned on the validation part. Appends a line for each seed to
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
from ledger import RESULTS, measure_once, provenance, rows, write_table
from scipy.special import logsumexp

from likely.data.dataset import load
from likely.evaluation import metrics

LEDGER = RESULTS / "unknown_products.jsonl"
N_LEFT_OUT = 10
N_RESAMPLED = 1000
ALPHA = 0.05
OURS, RIVALS = "strangeness", ("softmax", "energy")
Scores: TypeAlias = Sequence[np.ndarray]  # how sure of known images and of strange ones


def main() -> None:
    asked = shop_arguments(__doc__)
    data = manifest(asked.data, asked.out)
    for seed in asked.seeds:
        key = {"seed": seed, "backbone": Path(asked.backbone).name, "stages": asked.stages}
        measure_once(LEDGER, key, asked.threads, partial(measured, asked, data, seed))
    write_table(LEDGER, table())


def measured(asked: argparse.Namespace, data: Path, seed: int) -> dict[str, Any]:
    """One draw of ten: neither our model nor the rival was shown them."""
    with data.open(newline="") as file:
        lines = list(csv.DictReader(file))
    names = sorted({line["label"] for line in lines})
    strange = {names[c] for c in np.random.default_rng(seed).permutation(len(names))[:N_LEFT_OUT]}
    paths = {}
    for name, wanted in (("known", False), ("strange", True)):
        paths[name] = asked.out / f"{name}-{seed}.csv"
        write_manifest(paths[name], (line for line in lines if (line["label"] in strange) == wanted))
    classifier, _ = ours(asked, paths["known"], f"known-{asked.stages}-{seed}", seed)
    found = seen(classifier, paths["known"])
    others = Seen(classifier, load(str(paths["strange"]), classifier.format_, parts=("test",)).parts["test"])
    judged = [classifier.judge(each.part.images, alpha=ALPHA) for each in (found["test"], others)]
    answer: dict[str, Any] = {
        "n_known": len(found["test"].y),
        "n_strange": len(others.y),
        "false_alarms": float((judged[0].p_value <= ALPHA).double().mean()),
        "turned_away": float((judged[1].p_value <= ALPHA).double().mean()),
    }
    name, how, rival = next(rivals(found))
    logits = [rival.decision_function(each.X) for each in (found["test"], others)]
    scores = {
        OURS: [-judgement.strangeness.amin(1).numpy() for judgement in judged],
        "softmax": [(l - logsumexp(l, 1, keepdims=True)).max(1) for l in logits],
        "energy": [logsumexp(l, 1) for l in logits],
    }
    answer["auroc"] = {name: metrics.auroc(known, unknown) for name, (known, unknown) in scores.items()}
    answer["lead"] = {other: paired_auroc(scores[OURS], scores[other]) for other in RIVALS}
    return answer | {"rival": f"{name}, {how}"}


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
    found = rows(LEDGER)
    lines = [
        "| stages | seed | n known, strange | false alarms at alpha 0.05 | strange turned away | AUROC, strangeness | largest "
        "probability of LogisticRegression | its energy | ahead of the better one by (95 % interval) |",
        "|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for row in found:
        best = min(row["lead"].values(), key=lambda lead: lead[0])
        figures = " | ".join(f"{row['auroc'][name]:.4f}" for name in (OURS, *RIVALS))
        lines.append(
            f"| {row['stages']} | {row['seed']} | {row['n_known']:,}, {row['n_strange']:,} | {row['false_alarms']:.4f} | "
            f"{row['turned_away']:.4f} | {figures} | {best[0]:.4f} ({best[1]:.4f} to {best[2]:.4f}) |"
        )
    leads = [f"its lead over {name} {spread([row['lead'][name][0] for row in found])}" for name in RIVALS]
    means = [f"AUROC of {name} {spread([row['auroc'][name] for row in found])}" for name in (OURS, *RIVALS)]
    lines += ["", f"Means of {len(found)} draws and their standard errors: {'; '.join([*means, *leads])}."]
    return "\n".join([*lines, "", provenance(found)]) + "\n"


def spread(values: Sequence[float]) -> str:
    """Mean and standard error over draws, which share most of their products: it is what another draw would change."""
    error = np.std(values, ddof=1) / len(values) ** 0.5 if len(values) > 1 else np.nan
    return f"{np.mean(values):.4f} ± {error:.4f}"


if __name__ == "__main__":
    main()
