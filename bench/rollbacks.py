"""Many tiny trainings of `gan` and `flow` on the embedded digits, one seed after the other: how often one goes astray.

    python bench/rollbacks.py --seeds $(seq 0 199)

A training whose loss turns NaN or explodes is rolled back with half the learning rate; one that does so again and again is
diverged with a sentence. Whatever ends otherwise must have finite weights and answers: that is checked of every run. Appends
a line for each family and seed to bench/results/rollbacks.jsonl, unless it is there, and writes the table beside it.
"""

from __future__ import annotations

import math
import time

import torch
from results import RESULTS, append, arguments, environment, provenance, rows, write_table

from likely import Classifier, models
from likely.data.dataset import Dataset
from likely.data.loading import load_dataset
from likely.data.splits import make_splits
from likely.evaluation.metrics import clopper_pearson
from likely.exceptions import DivergenceError
from likely.training.options import TrainingOptions

RESULTS_FILE = RESULTS / "rollbacks.jsonl"
EPOCHS = 3
# At the default rate, and at ten times that, where trouble is likelier.
RUNS = {
    "gan": ("gan", {"width": 8}, 1.0),
    "gan, ten times the rate": ("gan", {"width": 8}, 10.0),
    "flow": ("flow", {"width": 8, "n_couplings": 2}, 1.0),
    "flow, ten times the rate": ("flow", {"width": 8, "n_couplings": 2}, 10.0),
}


def main() -> None:
    parser = arguments(__doc__)
    parser.set_defaults(seeds=range(200), threads=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    dataset, known = load_dataset("digits"), {(row["run"], row["seed"]) for row in rows(RESULTS_FILE)}
    for seed in args.seeds:
        for run in RUNS:
            if (run, seed) not in known:
                append(RESULTS_FILE, measured(run, seed, dataset, args.threads))
    write_table(RESULTS_FILE, table())


def measured(run: str, seed: int, dataset: Dataset, threads: int) -> dict[str, object]:
    """One training, and whether it ended with finite numbers, with how many roll-backs, or diverged."""
    family, options, times = RUNS[run]
    splits, start = make_splits(dataset, seed), time.perf_counter()
    better = models.family(family).options_type(**options).training_defaults
    rate = TrainingOptions().with_defaults(better).learning_rate * times
    classifier = Classifier(
        family, options=options, training={"epochs": EPOCHS, "learning_rate": rate}, random_state=seed
    )
    notes: list[str] = []
    diverged, unreported = None, 0
    try:
        for step in classifier.fit_steps(splits, dataset.classes, dataset.format):
            notes += [step.note] if step.note else []
            unreported += step.note is None and not all(math.isfinite(loss) for loss in step.losses.values())
        classifier.finish(splits)
        weights = all(t.isfinite().all() for t in classifier.predictor_.model.state_dict().values())
        test = dataset.test
        assert test is not None
        unreported += not (
            weights and bool(torch.isfinite(torch.from_numpy(classifier.log_posterior(test.images))).all())
        )
    except DivergenceError as error:
        diverged = str(error)
    return {
        **environment(threads),
        "run": run,
        "seed": seed,
        "epochs": EPOCHS,
        "learning_rate": rate,
        "rollbacks": notes,
        "diverged": diverged,
        "unreported": unreported,
        "seconds": time.perf_counter() - start,
    }


def table() -> str:
    """A row a kind of run."""
    lines = [
        "| run | seeds | rolled back | 95 % interval | diverged with a sentence | NaN unreported | seconds a run |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    found = rows(RESULTS_FILE)
    for run in RUNS:
        group = [row for row in found if row["run"] == run]
        if group:
            n, back = len(group), sum(bool(row["rollbacks"]) or row["diverged"] is not None for row in group)
            sure = clopper_pearson(back, n)
            cells = [str(n), f"{back / n:.1%}", f"{sure.low:.1%} to {sure.high:.1%}"]
            cells += [
                str(sum(row["diverged"] is not None for row in group)),
                str(sum(row["unreported"] for row in group)),
            ]
            lines.append(f"| {run} | {' | '.join(cells)} | {sum(row['seconds'] for row in group) / n:.1f} |")
    return "\n".join([*lines, "", f"{EPOCHS} epochs of the digits. {provenance(found)}"]) + "\n"


if __name__ == "__main__":
    main()
