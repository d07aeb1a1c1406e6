"""Ten thousand classes of 1,280 numbers: training, and the five most probable classes of ten thousand images.

    python bench/many_classes.py --seeds 0

The numbers are drawn: a Gaussian for each class, all of one covariance, ten images each. Posteriors are timed against one
linear layer of the same size, in rounds. Appends a line for each seed to bench/results/many_classes.jsonl, unless it is there,
and writes the table beside it.
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable
from functools import partial
from statistics import median
from typing import Any

import numpy as np
import torch
from results import RESULTS, arguments, measure_once, provenance, rows, write_table

from likely import Classifier
from likely.training.device import tune_malloc

RESULTS_FILE = RESULTS / "many_classes.jsonl"
K, D, PER_CLASS, N, TOP = 10_000, 1280, 10, 10_000, 5
N_ROUNDS, AT_ONCE = 5, 256
APART = 0.15  # the spread of the means, in units of the spread within: such that not all are stats apart


def main() -> None:
    args = arguments(__doc__).parse_args()
    torch.set_num_threads(args.threads)
    for seed in args.seeds:
        measure_once(RESULTS_FILE, {"seed": seed}, args.threads, partial(measured, seed))
    write_table(RESULTS_FILE, table())


def measured(seed: int) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    means = APART * rng.standard_normal((K, D), np.float32)
    y = np.repeat(np.arange(K), PER_CLASS)
    X = means[y] + rng.standard_normal((len(y), D), np.float32)
    y_new = rng.integers(K, size=N)
    X_new = means[y_new] + rng.standard_normal((N, D), np.float32)
    before, start = peak(), time.perf_counter()
    classifier = Classifier("gaussian", random_state=seed).fit(X, y)
    seconds, after = time.perf_counter() - start, peak()
    tune_malloc()
    weight = torch.randn(K, D)

    def ours() -> None:
        classifier.predict_topk(X_new, TOP)

    def linear() -> None:
        for x in torch.split(torch.from_numpy(X_new), AT_ONCE):
            torch.nn.functional.linear(x, weight)

    rounds = [(timed(ours), timed(linear)) for _ in range(N_ROUNDS)]
    labels, log_p = classifier.predict_topk(X_new, TOP)
    return {
        "fit_seconds": seconds,
        "data_gb": X.nbytes / 1e9,
        "peak_gb_before": before,
        "peak_gb_fit": after,
        "peak_gb": peak(),
        "top_seconds": median(a for a, _ in rounds),
        "linear_seconds": median(b for _, b in rounds),
        "ratio": median(a / b for a, b in rounds),
        "accuracy": float((labels[:, 0] == y_new).mean()),
        "among_five": float((labels == y_new[:, None]).any(1).mean()),
        "sure_of_five": float(np.exp(log_p).sum(1).mean()),
    }


def timed(work: Callable[[], None]) -> float:
    start = time.perf_counter()
    with torch.inference_mode():
        work()
    return time.perf_counter() - start


def peak() -> float:
    """The most memory that the process has held so far, GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e9


def table() -> str:
    found = rows(RESULTS_FILE)
    lines = [
        "| seed | training, s | data, GB | peak memory, GB | top five of 10,000, s | a linear layer, s | ratio | accuracy | "
        "among the five | p of the five |",
        "|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for row in found:
        lines.append(
            f"| {row['seed']} | {row['fit_seconds']:.0f} | {row['data_gb']:.2f} | {row['peak_gb']:.2f} | "
            f"{row['top_seconds']:.2f} | {row['linear_seconds']:.2f} | {row['ratio']:.2f} | {row['accuracy']:.4f} | "
            f"{row['among_five']:.4f} | {row['sure_of_five']:.4f} |"
        )
    note = (
        f"{K:,} classes, {D:,} numbers, {PER_CLASS} images a class; medians of {N_ROUNDS} rounds. {provenance(found)}"
    )
    return "\n".join([*lines, "", note]) + "\n"


if __name__ == "__main__":
    main()
