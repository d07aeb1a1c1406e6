"""Robustness of a model and of its baseline against corruptions and white-box attacks.

    python bench/robustness.py $DATA/fashion-mnist --minutes 10 --seeds 0 --out /tmp/trust

Appends one line per model to bench/results/robustness.jsonl, unless it exists, and writes the tables next to it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from results import RESULTS, provenance, rows, write_table
from train_helpers import complete, model_arguments

from likely.classifier import load
from likely.evaluation.attacks import Target, attack
from likely.evaluation.corruptions import CORRUPTIONS
from likely.evaluation.eval_split import eval_split
from likely.evaluation.robustness import measure_robustness

RESULTS_FILE = RESULTS / "robustness.jsonl"
N_CORRUPTED, N_ATTACKED = 2000, 256
EPSILONS = (2.0, 8.0)  # of 255
ALPHA = 0.05


def main() -> None:
    args = model_arguments(__doc__, "vaegan,softmax", 10).parse_args()
    complete(args, RESULTS_FILE, measured)
    write_table(RESULTS_FILE, table())


def measured(folder: Path, data: str, seed: int) -> dict[str, Any]:
    """Return the results under corruptions and attacks on random test images."""
    classifier = load(folder)
    labeled = eval_split(classifier, data).images
    order = np.random.default_rng(seed).permutation(len(labeled))
    corruptions = measure_robustness(classifier, labeled.subset(np.sort(order[:N_CORRUPTED])), seed=seed, alpha=ALPHA)
    some = labeled.subset(np.sort(order[:N_ATTACKED]))
    clean, *others = [attack(Target(classifier, ALPHA), some, epsilon=epsilon, seed=seed) for epsilon in EPSILONS]
    rows = [*clean, *(row for other in others for row in other if row.epsilon)]
    return {"corruptions": corruptions.model_dump(), "attacks": [row.model_dump() for row in rows]}


def table() -> str:
    """Accuracy under corruptions and under attacks, one row per model."""
    found = rows(RESULTS_FILE)
    lines = [
        f"| data | model | seed | clean | {' | '.join(CORRUPTIONS)} | mean | rejected at strength 5 |",
        "|---|---|---:|---:|" + "---:|" * (len(CORRUPTIONS) + 2),
    ]
    for row in found:
        corruptions = row["corruptions"]["rows"]
        by_kind = [[each["accuracy"] for each in corruptions if each["corruption"] == name] for name in CORRUPTIONS]
        strongest = np.mean([each["unknown_rate"] for each in corruptions if each["strength"] == 5])
        means = " | ".join(f"{np.mean(values):.3f}" for values in by_kind)
        start = f"| {row['data']} | {row['kind']} | {row['seed']} | {row['corruptions']['clean']['accuracy']:.3f}"
        lines.append(f"{start} | {means} | {np.mean(by_kind):.3f} | {strongest:.3f} |")
    lines += ["", f"Accuracy, mean over five strengths, {found[0]['corruptions']['n']:,} images. Attacks:", ""]
    lines += ["| data | model | seed | attack | ε · 255 | accuracy | attack success | rejected |"]
    lines += ["|---|---|---:|---|---:|---:|---:|---:|"]
    for row in found:
        for each in row["attacks"]:
            start = f"| {row['data']} | {row['kind']} | {row['seed']} | {each['attack']} | {each['epsilon']:g}"
            lines.append(
                f"{start} | {each['accuracy']:.3f} | {each['attack_success_rate']:.3f} | {each['rejection_rate']:.3f} |"
            )
    note = f"{found[0]['attacks'][0]['n']} images. Attack success: a wrong prediction that is not rejected at alpha {ALPHA:g}."
    return "\n".join([*lines, "", f"{note} {provenance(found)}"]) + "\n"


if __name__ == "__main__":
    main()
