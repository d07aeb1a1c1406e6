"""Fashion-MNIST: the mixture-prior VAE against its softmax baseline, after as many epochs, with the same trunk.

    python bench/fashion.py $DATA/fashion-mnist --minutes 10 --seeds 0 1 2 --out /tmp/fashion

Trains by the command line, one model after the other, measures both in one process, and appends a line for each seed to
bench/results/fashion.jsonl; the table beside it is written from all its lines. A seed that has its line is not run again,
and a training that was interrupted goes on.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from coverage import alarms, n_above
from results import RESULTS, append, arguments, environment, provenance, rows, write_table
from train_helpers import history, trained

from likely import Classifier
from likely.benchmark.metrics import interleaved_timing
from likely.evaluation.eval_split import EvalSplit, eval_split
from likely.evaluation.evaluate import EvaluationResult, evaluate
from likely.evaluation.metrics import paired_bootstrap

RESULTS_FILE = RESULTS / "fashion.jsonl"


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("data")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    for seed in args.seeds:
        if not any(row["seed"] == seed and row["minutes"] == args.minutes for row in rows(RESULTS_FILE)):
            append(RESULTS_FILE, measured(args.data, seed, args.minutes, args.threads, args.out))
    write_table(RESULTS_FILE, table())


def measured(data: str, seed: int, minutes: float, threads: int, out: Path) -> dict[str, object]:
    """Train both models of one seed and measure them side by side."""
    common = ["--seed", seed, "--threads", threads]
    vae, memory = trained(data, out / f"vae-{seed}", "--model", "vae", "--minutes", minutes, *common)
    epochs = len(history(vae))
    baseline, _ = trained(
        data, out / f"baseline-{seed}", "--model", "softmax", "--epochs", epochs, "--label-check-folds", 0, *common
    )
    torch.set_num_threads(threads)
    models = {"vae": Classifier.load(vae), "baseline": Classifier.load(baseline)}
    chosen = eval_split(models["vae"].predictor_, data)
    found = {
        name: evaluate(model.predictor_, chosen.images, alpha=0.05, skipped=chosen.n_skipped)
        for name, model in models.items()
    }
    return {
        **environment(threads),
        "seed": seed,
        "minutes": minutes,
        "epochs": epochs,
        "baseline_seconds": float(history(baseline)[-1]["seconds"]),
        "peak_memory_gb": memory,
        **{name: {k: v for k, v in a.as_json().items() if k != "per_class"} for name, a in found.items()},
        "delta_vs_baseline": accuracy_difference(found["vae"], found["baseline"]),
        "alarms": alarms(models["vae"].predictor_, chosen.images),
        **throughput(models, chosen),
    }


def accuracy_difference(a: EvaluationResult, b: EvaluationResult) -> list[float]:
    """How much more accurate a is than b on the same images, and the 95 % interval of the paired bootstrap."""
    right = [found.log_posterior.argmax(1) == found.labels for found in (a, b)]
    return [float(right[0].mean() - right[1].mean()), *paired_bootstrap(*right, np.random.default_rng(0))]


def throughput(models: dict[str, Classifier], chosen: EvalSplit, repeats: int = 25) -> dict[str, object]:
    """Images a second of predict_proba for both, alternately, and of answer; medians, and the ratio pair by pair.

    `answer` comes after all the pairs: its values by the hundred thousand would leave the next call a cold memory.
    """
    images = chosen.images.images.batch(np.arange(4000)).permute(0, 2, 3, 1).numpy()
    calls = {
        "vae": lambda: models["vae"].predict_proba(images),
        "baseline": lambda: models["baseline"].predict_proba(images),
    }
    seconds = interleaved_timing(calls, repeats) | interleaved_timing(
        {"answer": lambda: models["vae"].classify(images)}, repeats
    )
    ratios = seconds["baseline"] / seconds["vae"]
    return {
        "predict_proba_per_second": {
            name: len(images) / float(np.median(seconds[name])) for name in ("vae", "baseline")
        },
        "answer_per_second": len(images) / float(np.median(seconds["answer"])),
        "throughput_ratio": [float(np.quantile(ratios, q)) for q in (0, 0.5, 1)],
    }


def table() -> str:
    """The results as Markdown: a row a seed, then the mean and the range over seeds."""
    found = rows(RESULTS_FILE)
    columns = {
        "accuracy": lambda r: (r["vae"]["accuracy"], ".4f"),
        "baseline accuracy": lambda r: (r["baseline"]["accuracy"], ".4f"),
        "ece": lambda r: (r["vae"]["ece"], ".4f"),
        "baseline ece": lambda r: (r["baseline"]["ece"], ".4f"),
        "bits/dim": lambda r: (r["vae"]["bits_per_dim"], ".3f"),
        "false alarms at 0.05": lambda r: (r["vae"]["false_alarm_rate"], ".4f"),
        "classes above their bound": lambda r: (float(n_above(r["alarms"])), ".0f"),
        "epochs": lambda r: (float(r["epochs"]), ".0f"),
        "predict_proba, images/s": lambda r: (r["predict_proba_per_second"]["vae"], ",.0f"),
        "relative to baseline": lambda r: (r["throughput_ratio"][1], ".2f"),
        "answer, images/s": lambda r: (r["answer_per_second"], ",.0f"),
        "peak memory, GB": lambda r: (r["peak_memory_gb"], ".2f"),
    }
    titles = [*columns, "Δ vs. baseline (95 % interval)"]
    lines = ["| seed | " + " | ".join(titles) + " |", "|---|" + "---:|" * len(titles)]
    for row in found:
        cells = [format(*column(row)) for column in columns.values()]
        cells.append("{:+.4f} ({:+.4f} to {:+.4f})".format(*row["delta_vs_baseline"]))
        lines.append(f"| {row['seed']} | " + " | ".join(cells) + " |")
    if len(found) > 1:
        means = [format(np.mean([c(r)[0] for r in found]), c(found[0])[1]) for c in columns.values()]
        means.append(format(np.mean([row["delta_vs_baseline"][0] for row in found]), "+.4f"))
        lines.append("| mean | " + " | ".join(means) + " |")
    minutes = sorted({row["minutes"] for row in found})
    lines += ["", f"{'/'.join(f'{m:g}' for m in minutes)} minutes of training. " + provenance(found)]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
