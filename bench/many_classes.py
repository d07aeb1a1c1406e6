"""Ten thousand classes of 1,280-dimensional vectors: training time, and time of the five most probable classes.

    python bench/many_classes.py --seeds 0

The vectors are sampled: a Gaussian per class with a common covariance, ten vectors each. Prediction is timed against
one linear layer of the same size, interleaved. Appends one line per seed to bench/results/many_classes.jsonl, unless it
exists, and writes the table next to it.
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
N_ROUNDS, BATCH_SIZE = 5, 256
MEAN_SCALE = 0.15  # standard deviation of the class means relative to that within classes, at which classes overlap


def main() -> None:
    args = arguments(__doc__).parse_args()
    torch.set_num_threads(args.threads)
    for seed in args.seeds:
        measure_once(RESULTS_FILE, {"seed": seed}, args.threads, partial(measured, seed))
    write_table(RESULTS_FILE, table())


def measured(seed: int) -> dict[str, Any]:
    """Train, and time the five most probable classes of new vectors."""
    rng = np.random.default_rng(seed)
    means = MEAN_SCALE * rng.standard_normal((K, D), np.float32)
    y = np.repeat(np.arange(K), PER_CLASS)
    X = means[y] + rng.standard_normal((len(y), D), np.float32)
    y_new = rng.integers(K, size=N)
    X_new = means[y_new] + rng.standard_normal((N, D), np.float32)
    before, start = peak(), time.perf_counter()
    classifier = Classifier("gaussian", random_state=seed).fit(X, y)
    seconds, after = time.perf_counter() - start, peak()
    tune_malloc()
    weight = torch.randn(K, D)

    def topk() -> None:
        classifier.predict_topk(X_new, TOP)

    def linear() -> None:
        for x in torch.split(torch.from_numpy(X_new), BATCH_SIZE):
            torch.nn.functional.linear(x, weight)

    rounds = [(timed(topk), timed(linear)) for _ in range(N_ROUNDS)]
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
    """Return the seconds of a call without gradients."""
    start = time.perf_counter()
    with torch.inference_mode():
        work()
    return time.perf_counter() - start


def peak() -> float:
    """Return the peak memory of the process so far, in GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e9


def table() -> str:
    """One row per seed."""
    found = rows(RESULTS_FILE)
    lines = [
        "| seed | training, s | data, GB | peak memory, GB | top 5 of 10,000, s | linear layer, s | ratio | accuracy | "
        "top-5 accuracy | mean p of the top 5 |",
        "|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for row in found:
        lines.append(
            f"| {row['seed']} | {row['fit_seconds']:.0f} | {row['data_gb']:.2f} | {row['peak_gb']:.2f} | "
            f"{row['top_seconds']:.2f} | {row['linear_seconds']:.2f} | {row['ratio']:.2f} | {row['accuracy']:.4f} | "
            f"{row['among_five']:.4f} | {row['sure_of_five']:.4f} |"
        )
    note = f"{K:,} classes, {D:,} dimensions, {PER_CLASS} vectors per class; medians of {N_ROUNDS} rounds. {provenance(found)}"
    return "\n".join([*lines, "", note]) + "\n"


if __name__ == "__main__":
    main()
