"""False discovery rate and power of `likely classify --fdr 0.1` on mixtures of known and unknown images.

    python bench/false_discovery.py $DATA/fashion-mnist --minutes 0.5 --out /tmp/fdr

Image scores of a trained model for its test images, and for images of another data set next to it, are a pool from which
each of 100 repetitions draws calibration images and 1,000 images to classify anew. Appends one line per model to
bench/results/false_discovery.jsonl, unless it exists, and writes the table next to it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import ood_images
import torch
from results import RESULTS, provenance, rows, write_table
from torch import Tensor
from train_helpers import complete, model_arguments
from unknowns import preprocessed, stored_images

from likely.classifier import load
from likely.evaluation.eval_split import eval_split
from likely.inference.conformal import ImageCalibrator
from likely.inference.false_discovery import benjamini_hochberg, n_calibration_needed

RESULTS_FILE = RESULTS / "false_discovery.jsonl"
Q, N_REPEATS, N_CLASSIFIED = 0.1, 100, 1000
N_CALIBRATION, UNKNOWN_FRACTIONS = (200, 1000, 5000), (0.01, 0.1, 0.5)


def main() -> None:
    args = model_arguments(__doc__, "vaegan", 0.5).parse_args()
    complete(args, RESULTS_FILE, measured)
    write_table(RESULTS_FILE, table())


def measured(folder: Path, data: str, seed: int) -> dict[str, Any]:
    """Return the result for each number of calibration images and fraction of unknown images."""
    predictor = load(folder)
    images = eval_split(predictor, data).images
    kinds = ood_images.of(Path(data), *stored_images(predictor, images, data), seed)
    name = list(kinds)[-1]
    known, unknown = (
        predictor.conformal_output(each, alpha=Q).image_score
        for each in (images.images, preprocessed(predictor.format, kinds[name]))
    )
    rng = np.random.default_rng(seed)
    cells = [
        {"n_calibration": n, "fraction": f, **cell(list(draws(known, unknown, n, round(f * N_CLASSIFIED), rng)))}
        for n in N_CALIBRATION
        for f in UNKNOWN_FRACTIONS
    ]
    return {"unknown": name, "n_known": len(known), "n_unknown": len(unknown), "cells": cells}


def draws(
    known: Tensor, unknown: Tensor, n_calibration: int, n_unknown: int, rng: np.random.Generator
) -> Iterator[tuple[float, float, bool]]:
    """Yield the false discovery proportion, the power, and whether a warning names more calibration images."""
    n_known = N_CLASSIFIED - n_unknown
    for _ in range(N_REPEATS):
        sampled = known[torch.from_numpy(rng.permutation(len(known))[: n_calibration + n_known])]
        others = unknown[torch.from_numpy(rng.permutation(len(unknown))[:n_unknown])]
        calibrator = ImageCalibrator.fit(sampled[:n_calibration])
        p_values = calibrator.p_values(torch.cat([sampled[n_calibration:], others]), Q)
        rejected = benjamini_hochberg(p_values, Q)
        n_false, n_true = int(rejected[:n_known].sum()), int(rejected[n_known:].sum())
        needed = n_calibration_needed(p_values, Q, 1 / (n_calibration + 1))
        yield n_false / max(1, n_false + n_true), n_true / n_unknown, needed is not None


def cell(found: list[tuple[float, float, bool]]) -> dict[str, float]:
    """Return means over the repetitions, and the half width of the 95 % interval of the false discovery rate."""
    false, power, warned = np.array(found, float).T
    half_width = 1.96 * float(false.std(ddof=1)) / len(found) ** 0.5
    return {"fdr": false.mean(), "half_width": half_width, "power": power.mean(), "warned": warned.mean()}


def table() -> str:
    """One row per model and number of calibration images, a cell per fraction of unknown images."""
    found = rows(RESULTS_FILE)
    titles = [f"{f:.0%} unknown".replace("%", " %") for f in UNKNOWN_FRACTIONS]
    lines = [
        f"| data | unknown | model | calibration images | {' | '.join(titles)} |",
        "|---|---|---|---:|" + "---:|" * len(titles),
    ]
    for row in found:
        for n in N_CALIBRATION:
            cells = [c for c in row["cells"] if c["n_calibration"] == n]
            texts = [f"{c['fdr']:.3f} ± {c['half_width']:.3f} / {c['power']:.3f} / {c['warned']:.2f}" for c in cells]
            lines.append(f"| {row['data']} | {row['unknown']} | {row['kind']} | {n:,} | {' | '.join(texts)} |")
    note = (
        "False discovery rate with its 95 % interval / fraction of the unknown images that is rejected / fraction of the draws "
        f"with a warning that names more calibration images. {N_REPEATS} draws of calibration images and of {N_CLASSIFIED:,} "
        f"images to classify, at `--fdr {Q:g}`. {provenance(found)}"
    )
    return "\n".join([*lines, "", note]) + "\n"


if __name__ == "__main__":
    main()
