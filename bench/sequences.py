"""Sequence models of images: tokenizers, networks, orders and conditioning for equal training time.

    python bench/sequences.py $DATA/fashion-mnist --minutes 10 --seeds 0 1 --out /tmp/sequences

Trains every variant, or those of --variants, and appends one line each to bench/results/sequences.jsonl, unless it exists;
writes the table next to it. Differences are to the variant "default" of the same seed, on the same images. Masks are those of
bench/occlusion.py.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from occlusion import MASKS, masked_metrics
from results import RESULTS, arguments, measure_once, provenance, rows, write_table
from train_helpers import history, trained

from likely.base import to_unit
from likely.classifier import load
from likely.data.dataset import LabeledImages
from likely.evaluation.eval_split import eval_split
from likely.evaluation.metrics import paired_bootstrap
from likely.models.autoregressive import Autoregressive
from likely.networks.quantizer import QuantizingTokenizer

RESULTS_FILE = RESULTS / "sequences.jsonl"
BATCH_SIZE = 256
VARIANTS: Mapping[str, list[object]] = {
    "default": [],
    "tokenizer without labels": ["--tokenizer-class-weight", 0],
    "lstm": ["--network", "lstm"],
    "raster order": ["--order", "raster"],
    "class in the last layer": ["--conditioning", "late", "--class-fraction", 0.25],
    "class in all layers": ["--conditioning", "full", "--class-fraction", 0.25],
    "class in all layers with 3 finalists": ["--conditioning", "full", "--class-fraction", 0.25, "--finalists", 3],
    "tokenizer with half the cross-entropy": ["--tokenizer-class-weight", 0.5],
    "half of the training images masked": ["--tokenizer-masked-fraction", 0.5],
    "cross-entropy on half of each batch": ["--class-fraction", 0.5],
    "a third of the time for the tokenizer": ["--tokenizer-time", 0.33],
    "216 codes": ["--tokenizer-code-levels", 6],
    "7 x 7 tokens": ["--tokenizer-grid", 7],
    "pixels with 8 colors": ["--tokens", "pixels", "--palette", 8, "--class-fraction", 0.1],
}
COLUMNS: Mapping[str, tuple[Callable[[dict[str, Any]], float | None], str]] = {
    "accuracy": (lambda r: r["accuracy"], ".4f"),
    "one order": (lambda r: r["accuracy_one_order"], ".4f"),
    "tokenizer's classifier": (lambda r: r["accuracy_of_tokenizer"], ".4f"),
    "square hidden": (lambda r: r["masks"]["square"], ".4f"),
    "left half hidden": (lambda r: r["masks"]["left half"], ".4f"),
    "bits per token, ≤": (lambda r: r["bits_per_token"], ".3f"),
    "tokens": (lambda r: r["n_tokens"], "d"),
    "evaluations per image": (lambda r: r["evaluations_per_image"], "d"),
    "epochs": (lambda r: r["epochs"], "d"),
    "classified images/s": (lambda r: r["per_second"], ",.0f"),
}


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("data", help="data set, as for `likely train`")
    parser.add_argument("--minutes", type=float, default=10.0, help="training time of each model (default 10)")
    parser.add_argument(
        "--variants", default=",".join(VARIANTS), help=f"variants to measure (default all: {', '.join(VARIANTS)})"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for trained models")
    args = parser.parse_args()
    for seed in args.seeds:
        for variant in args.variants.split(","):
            folder = args.out / f"{variant.replace(' ', '-')}-{seed}"
            key = {"data": Path(args.data).stem, "variant": variant, "seed": seed, "minutes": args.minutes}
            words = ["--model", "autoregressive", "--minutes", args.minutes, "--seed", seed, "--threads", args.threads]
            words += ["--label-check-folds", 0, *VARIANTS[variant]]
            measure_once(RESULTS_FILE, key, args.threads, partial(measured, args.data, folder, words, args.threads))
    write_table(RESULTS_FILE, table())


@torch.inference_mode()
def measured(data: str, folder: Path, words: list[object], threads: int) -> dict[str, Any]:
    """Train a model and measure it on the test images."""
    trained(data, folder, *words)
    torch.set_num_threads(threads)
    classifier = load(folder)
    labeled, model = eval_split(classifier, data).images, classifier.model
    assert isinstance(model, Autoregressive)
    start = time.perf_counter()
    L = scores(model.log_scores, labeled)
    seconds = time.perf_counter() - start
    log_prior = classifier.log_prior
    evidence = (L.double() + log_prior).logsumexp(1).mean().item()
    one_order = scores(model.quick_log_scores, labeled)
    correct = ((L + log_prior).argmax(1).numpy() == labeled.labels).tolist()
    return {
        "epochs": len(history(folder)),
        "accuracy": accuracy(L + log_prior, labeled.labels),
        "accuracy_one_order": accuracy(one_order + log_prior, labeled.labels),
        "accuracy_of_tokenizer": tokenizer_accuracy(model, labeled),
        "masks": {mask: masked_metrics(mask, classifier, labeled)["accuracy"] for mask in MASKS[1:]},
        "bits_per_token": -evidence / (model.tokenizer.n_tokens * math.log(2)),
        "n_tokens": model.tokenizer.n_tokens,
        "likelihood": str(model.likelihood_type),
        "evaluations_per_image": model.evaluations_per_image,
        "per_second": len(labeled) / seconds,
        "correct": "".join("01"[each] for each in correct),
    }


def scores(log_scores: Callable[[torch.Tensor], torch.Tensor], labeled: LabeledImages) -> torch.Tensor:
    """Return the scores of all images, (N, K)."""
    blocks = np.array_split(np.arange(len(labeled)), math.ceil(len(labeled) / BATCH_SIZE))
    return torch.cat([log_scores(to_unit(labeled.images.batch(block))) for block in blocks])


def accuracy(log_joint: torch.Tensor, labels: NDArray[np.int64]) -> float:
    return float((log_joint.argmax(1).numpy() == labels).mean())


def tokenizer_accuracy(model: Autoregressive, labeled: LabeledImages) -> float | None:
    """Return the accuracy of the classifier that the tokenizer was trained with, if any."""
    tokenizer = model.tokenizer
    if not isinstance(tokenizer, QuantizingTokenizer) or tokenizer.to_class is None:
        return None
    to_class = tokenizer.to_class
    return accuracy(scores(lambda x: to_class(tokenizer.quantize(x)[1].flatten(1)), labeled), labeled.labels)


def table() -> str:
    """One row per variant and seed, with the difference in accuracy to the default of the same seed."""
    found = rows(RESULTS_FILE)
    titles = ["seed", *COLUMNS, "Δ accuracy to the default (95 % interval)"]
    lines = ["| variant | " + " | ".join(titles) + " |", "|---|" + "---:|" * len(titles)]
    for row in found:
        values = ((value(row), form) for value, form in COLUMNS.values())
        cells = ["" if value is None else format(value, form) for value, form in values]
        lines.append(f"| {row['variant']} | {row['seed']} | {' | '.join(cells)} | {difference(row, found)} |")
    return "\n".join([*lines, "", f"{found[0]['minutes']:g} minutes of training. {provenance(found)}"]) + "\n"


def difference(row: dict[str, Any], found: list[dict[str, Any]]) -> str:
    same = [other for other in found if other["variant"] == "default" and other["seed"] == row["seed"]]
    if not same or row["variant"] == "default":
        return ""
    a, b = (np.array(list(each["correct"])) == "1" for each in (row, same[0]))
    low, high = paired_bootstrap(a, b, np.random.default_rng(0))
    return f"{a.mean() - b.mean():+.4f} ({low:+.4f} to {high:+.4f})"


if __name__ == "__main__":
    main()
