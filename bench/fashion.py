"""Mixture-prior VAE against its softmax baseline on Fashion-MNIST: equal trunk, equal number of epochs.

    python bench/fashion.py $DATA/fashion-mnist --minutes 10 --seeds 0 1 2 --out /tmp/fashion

Trains both models from the command line, measures them in one process, and appends one line per seed to
bench/results/fashion.jsonl, unless it exists; writes the table next to it. Interrupted trainings are resumed.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from coverage import alarms, n_above
from results import RESULTS, arguments, measure_once, provenance, rows, write_table
from train_helpers import history, trained

from likely import Classifier
from likely.benchmark.metrics import interleaved_timing
from likely.evaluation.eval_split import EvalSplit, eval_split
from likely.evaluation.evaluate import EvaluationResult, evaluate
from likely.evaluation.metrics import paired_bootstrap

RESULTS_FILE = RESULTS / "fashion.jsonl"
N_TIMED = 4000
COLUMNS: Mapping[str, Callable[[dict[str, Any]], tuple[float, str]]] = {
    "accuracy": lambda r: (r["vae"]["accuracy"], ".4f"),
    "baseline": lambda r: (r["baseline"]["accuracy"], ".4f"),
    "ECE": lambda r: (r["vae"]["ece"], ".4f"),
    "ECE, baseline": lambda r: (r["baseline"]["ece"], ".4f"),
    "bits/dim": lambda r: (r["vae"]["bits_per_dim"], ".3f"),
    "false-alarm rate at α = 0.05": lambda r: (r["vae"]["false_alarm_rate"], ".4f"),
    "classes above their bound": lambda r: (float(n_above(r["alarms"])), ".0f"),
    "epochs": lambda r: (float(r["epochs"]), ".0f"),
    "`predict_proba`, images/s": lambda r: (r["predict_proba_per_second"]["vae"], ",.0f"),
    "relative to baseline": lambda r: (r["throughput_ratio"][1], ".2f"),
    "`classify`, images/s": lambda r: (r["answer_per_second"], ",.0f"),
    "peak memory, GB": lambda r: (r["peak_memory_gb"], ".2f"),
}


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("data", help="Fashion-MNIST")
    parser.add_argument("--minutes", type=float, default=10.0, help="training time of the VAE (default 10)")
    parser.add_argument("--out", type=Path, required=True, help="folder for trained models")
    args = parser.parse_args()
    for seed in args.seeds:
        key = {"seed": seed, "minutes": args.minutes}
        measure_once(RESULTS_FILE, key, args.threads, partial(measured, args, seed))
    write_table(RESULTS_FILE, table())


def measured(args: argparse.Namespace, seed: int) -> dict[str, Any]:
    """Train both models of one seed and measure them on the same images."""
    common = ["--seed", seed, "--threads", args.threads]
    vae, memory = trained(args.data, args.out / f"vae-{seed}", "--model", "vae", "--minutes", args.minutes, *common)
    epochs = len(history(vae))
    words = ["--model", "softmax", "--epochs", epochs, "--label-check-folds", 0, *common]
    baseline, _ = trained(args.data, args.out / f"baseline-{seed}", *words)
    torch.set_num_threads(args.threads)
    models = {"vae": Classifier.load(vae), "baseline": Classifier.load(baseline)}
    chosen = eval_split(models["vae"].predictor_, args.data)
    found = {
        name: evaluate(model.predictor_, chosen.images, alpha=0.05, skipped=chosen.n_skipped)
        for name, model in models.items()
    }
    return {
        "epochs": epochs,
        "baseline_seconds": float(history(baseline)[-1]["seconds"]),
        "peak_memory_gb": memory,
        **{name: {k: v for k, v in result.as_json().items() if k != "per_class"} for name, result in found.items()},
        "delta_vs_baseline": accuracy_difference(found["vae"], found["baseline"]),
        "alarms": alarms(models["vae"].predictor_, chosen.images),
        **throughput(models, chosen),
    }


def accuracy_difference(a: EvaluationResult, b: EvaluationResult) -> list[float]:
    """Return the accuracy of a minus that of b, and its 95 % interval by the paired bootstrap."""
    correct_a, correct_b = (found.log_posterior.argmax(1) == found.labels for found in (a, b))
    interval = paired_bootstrap(correct_a, correct_b, np.random.default_rng(0))
    return [float(correct_a.mean() - correct_b.mean()), *interval]


def throughput(models: dict[str, Classifier], chosen: EvalSplit, repeats: int = 25) -> dict[str, Any]:
    """Median images per second of `predict_proba` for both models, interleaved, and of `classify`, and the paired ratio.

    `classify` comes after all pairs, because its many values would evict the images from the cache.
    """
    images = chosen.images.images.batch(np.arange(min(N_TIMED, len(chosen.images)))).permute(0, 2, 3, 1).numpy()
    seconds = interleaved_timing(
        {
            "vae": lambda: models["vae"].predict_proba(images),
            "baseline": lambda: models["baseline"].predict_proba(images),
        },
        repeats,
    ) | interleaved_timing({"classify": lambda: models["vae"].classify(images)}, repeats)
    ratios = seconds["baseline"] / seconds["vae"]
    per_second = {name: len(images) / float(np.median(each)) for name, each in seconds.items()}
    return {
        "predict_proba_per_second": {name: per_second[name] for name in ("vae", "baseline")},
        "answer_per_second": per_second["classify"],
        "throughput_ratio": [float(np.quantile(ratios, q)) for q in (0, 0.5, 1)],
    }


def table() -> str:
    """One row per seed, then the means."""
    found = rows(RESULTS_FILE)
    titles = [*COLUMNS, "Δ accuracy (95 % interval)"]
    lines = ["| seed | " + " | ".join(titles) + " |", "|---|" + "---:|" * len(titles)]
    for row in found:
        cells = [format(*column(row)) for column in COLUMNS.values()]
        cells.append("{:+.4f} ({:+.4f} to {:+.4f})".format(*row["delta_vs_baseline"]))
        lines.append(f"| {row['seed']} | " + " | ".join(cells) + " |")
    if len(found) > 1:
        means = [format(np.mean([c(row)[0] for row in found]), c(found[0])[1]) for c in COLUMNS.values()]
        means.append(format(np.mean([row["delta_vs_baseline"][0] for row in found]), "+.4f"))
        lines.append("| mean | " + " | ".join(means) + " |")
    minutes = "/".join(f"{m:g}" for m in sorted({row["minutes"] for row in found}))
    return "\n".join([*lines, "", f"{minutes} minutes of training. {provenance(found)}"]) + "\n"


if __name__ == "__main__":
    main()
