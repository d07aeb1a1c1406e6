"""Damage and deceit: what is left of a model and of its twin when images are damaged, or changed so as to deceive.

    python bench/robustness.py $DATA/fashion-mnist --minutes 10 --seeds 0 --out /tmp/trust

Appends a line for each model to bench/results/robustness.jsonl, unless it is there, and writes the tables beside it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from ledger import RESULTS, provenance, rows, write_table
from trained import complete, model_arguments

from likely import Classifier
from likely.evaluation.attacks import attack
from likely.evaluation.corruptions import CORRUPTIONS
from likely.evaluation.eval_split import eval_split
from likely.evaluation.robustness import measure_robustness

LEDGER = RESULTS / "robustness.jsonl"
N_DAMAGED, N_ATTACKED = 2000, 256
BUDGETS = (2.0, 8.0)  # of 255
ALPHA = 0.05


def main() -> None:
    asked = model_arguments(__doc__, "vaegan,softmax", 10).parse_args()
    complete(asked, LEDGER, measured)
    write_table(LEDGER, table())


def measured(folder: Path, data: str, seed: int) -> dict[str, Any]:
    classifier = Classifier.load(folder)
    part = eval_split(classifier, data).images
    order = np.random.default_rng(seed).permutation(len(part))
    damaged = measure_robustness(classifier, part.subset(np.sort(order[:N_DAMAGED])), seed=seed, alpha=ALPHA)
    some = part.subset(np.sort(order[:N_ATTACKED]))
    attack_success_rate = [attack(classifier, some, epsilon=budget, alpha=ALPHA, seed=seed) for budget in BUDGETS]
    rows = [*attack_success_rate[0], *(row for more in attack_success_rate[1:] for row in more if row.epsilon)]
    return {"damaged": damaged.model_dump(), "attacked": [row.model_dump() for row in rows]}


def table() -> str:
    found = rows(LEDGER)
    lines = [
        f"| data | classifier | seed | nothing | {' | '.join(CORRUPTIONS)} | mean | turned away at the strongest |",
        "|---|---|---:|---:|" + "---:|" * (len(CORRUPTIONS) + 2),
    ]
    for row in found:
        damaged = row["damaged"]["rows"]
        by_kind = [[each["accuracy"] for each in damaged if each["corruption"] == name] for name in CORRUPTIONS]
        strongest = np.mean([each["unknown_rate"] for each in damaged if each["strength"] == 5])
        means = " | ".join(f"{np.mean(values):.3f}" for values in by_kind)
        start = f"| {row['data']} | {row['kind']} | {row['seed']} | {row['damaged']['clean']['accuracy']:.3f}"
        lines.append(f"{start} | {means} | {np.mean(by_kind):.3f} | {strongest:.3f} |")
    lines += ["", f"Accuracy, mean over five strengths, {found[0]['damaged']['n']:,} images. Attacks:", ""]
    lines += ["| data | classifier | seed | attack | budget, of 255 | right | attack_success_rate | turned away |"]
    lines += ["|---|---|---:|---|---:|---:|---:|---:|"]
    for row in found:
        for each in row["attacked"]:
            start = f"| {row['data']} | {row['kind']} | {row['seed']} | {each['attack']} | {each['budget']:g}"
            lines.append(
                f"{start} | {each['accuracy']:.3f} | {each['attack_success_rate']:.3f} | {each['rejection_rate']:.3f} |"
            )
    note = f"{found[0]['attacked'][0]['n']} images. Deceived: wrong, and taken for known at alpha {ALPHA:g}."
    return "\n".join([*lines, "", f"{note} {provenance(found)}"]) + "\n"


if __name__ == "__main__":
    main()
