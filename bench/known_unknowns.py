"""Rejection of unknown images by a model that has learned from 0, 50 or 200 images like them, or of another kind.

    python bench/known_unknowns.py $DATA/fashion-mnist --minutes 0.5 --threads 1 --out /tmp/fdr

Near unknown images are the test images upside down, far ones those of another data set. As `likely train --unknown` does for
split conformal calibration, the known unknown images change the scores of calibration and test images alike. Appends one line
per model to bench/results/known_unknowns.jsonl, unless it exists, and writes the table next to it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import ood_images
import torch
from results import RESULTS, provenance, rows, write_table
from train_helpers import complete, model_arguments
from unknowns import preprocessed, stored_images

from likely.base import ModelOutputs
from likely.classifier import load
from likely.evaluation.eval_split import eval_split
from likely.experiment import held_out_splits
from likely.inference.conformal import ImageCalibrator
from likely.inference.known_unknowns import KnownUnknowns

RESULTS_FILE = RESULTS / "known_unknowns.jsonl"
N_KNOWN_UNKNOWNS, N_TESTED, ALPHA = (0, 50, 200), 2000, 0.05
NEAR = "upside down"


def main() -> None:
    args = model_arguments(__doc__, "vaegan", 0.5).parse_args()
    complete(args, RESULTS_FILE, measured)
    write_table(RESULTS_FILE, table())


def measured(folder: Path, data: str, seed: int) -> dict[str, Any]:
    """Return the fraction rejected of each kind of images, for each kind and number of known unknown images."""
    predictor, rng = load(folder), np.random.default_rng(seed)
    test = eval_split(predictor, data).images
    kinds = ood_images.of(Path(data), *stored_images(predictor, test, data), seed)
    kinds = {name: kinds[name] for name in (NEAR, list(kinds)[-1])}
    outputs = {"calibration": predictor.outputs(held_out_splits(predictor, folder).calibration.images)}
    outputs["known"] = predictor.outputs(test.subset(rng.permutation(len(test))[:N_TESTED]).images)
    training_outputs: dict[str, ModelOutputs] = {}
    for name, pixels in kinds.items():
        order = rng.permutation(len(pixels))
        training_outputs[name] = predictor.outputs(
            preprocessed(predictor.format, pixels[order[: max(N_KNOWN_UNKNOWNS)]])
        )
        outputs[name] = predictor.outputs(preprocessed(predictor.format, pixels[order[-N_TESTED:]]))
    scores = {name: predictor.decide(each).image_score for name, each in outputs.items()}
    cells = []
    for name, unknown in training_outputs.items():
        assert unknown.latent is not None
        for m in N_KNOWN_UNKNOWNS:
            known_unknowns = KnownUnknowns.fit(unknown.latent[:m].float()) if m else KnownUnknowns.none()
            found = {kind: score + known_unknowns.log_p_values(outputs[kind]) for kind, score in scores.items()}
            calibrator = ImageCalibrator.fit(found.pop("calibration"))
            rates = {kind: rejected(calibrator, each) for kind, each in found.items()}
            cells.append({"known_unknowns": name, "m": m, "rejected": rates})
    return {"cells": cells}


def rejected(calibrator: ImageCalibrator, scores: torch.Tensor) -> float:
    """Return the fraction of images with a p-value of at most alpha."""
    return float((calibrator.p_values(scores, ALPHA) <= ALPHA).double().mean())


def table() -> str:
    """One row per model, and kind and number of known unknown images."""
    found = rows(RESULTS_FILE)
    kinds = list(found[0]["cells"][0]["rejected"])
    lines = [
        f"| data | model | unknown images learned from | {' | '.join(f'{kind}, rejected' for kind in kinds)} |",
        "|---|---|---|" + "---:|" * len(kinds),
    ]
    for row in found:
        for cell in row["cells"]:
            rates = " | ".join(f"{cell['rejected'][kind]:.3f}" for kind in kinds)
            lines.append(f"| {row['data']} | {row['kind']} | {cell['m']} × {cell['known_unknowns']} | {rates} |")
    note = f"Fractions of {N_TESTED:,} images at α = {ALPHA}. {provenance(found)}"
    return "\n".join([*lines, "", note]) + "\n"


if __name__ == "__main__":
    main()
