"""Sample quality of product photographs: a feature-conditioned decoder against models of pixels, for equal time.

    python bench/drawing.py $DATA/grocery --backbone $DATA/backbones/mobilenet_v2_1.0_224 \
        --extractor $DATA/backbones/resnet18_stages3 --minutes 8 --out /tmp/photos

Models of pixels train for as long as the decoder, feature extraction included. The extractor that measures the samples
is another network than the backbone. Appends one line per model to bench/results/drawing.jsonl, unless it exists,
writes the table next to it, and a grid of samples to --image.
"""

from __future__ import annotations

import argparse
import os
import shutil
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from grocery import manifest
from numpy.typing import NDArray
from results import RESULTS, arguments, measure_once, provenance, rows, write_table
from train_helpers import trained

from likely import Classifier
from likely.classifier import load
from likely.data.dataset import Dataset, LabeledImages
from likely.data.loading import load_dataset
from likely.data.preprocessing import ImageOptions, write_image
from likely.evaluation.extractors import extractor
from likely.evaluation.fidelity import fidelity
from likely.evaluation.fidelity_metrics import frechet_distance
from likely.reporting.images.image_grid import grid_by_class

RESULTS_FILE = RESULTS / "drawing.jsonl"
DECODER = "gaussian with a feature decoder"
SIDE = 64
NO_EARLY_STOPPING = 10_000  # epochs of patience
SHOWN = ("Banana", "Lemon", "Carrots", "Red-Beet", "Kiwi", "Aubergine", "Orange", "Cucumber")
N_SHOWN = 6


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("data", type=Path, help="Grocery Store data set")
    parser.add_argument("--backbone", required=True, help="folder of a pretrained network")
    parser.add_argument("--extractor", required=True, help="folder of the network that measures the samples")
    parser.add_argument("--families", nargs="+", default=["vaegan"], help="families of pixels (default vaegan)")
    parser.add_argument("--minutes", type=float, default=8.0, help="training time of the decoder (default 8)")
    parser.add_argument("--out", type=Path, required=True, help="folder for trained models and cached features")
    parser.add_argument("--image", type=Path, help="PNG file for a grid of samples")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    os.environ["LIKELY_CACHE"] = str(args.out / "drawing-cache")  # no features of earlier runs
    data = manifest(args.data, args.out)
    photographs = load_dataset(str(data), ImageOptions(size=SIDE, color="rgb"))
    folders: dict[str, Path] = {}
    for seed in args.seeds:
        minutes = 0.0
        for kind in (DECODER, *args.families):
            folders[kind], minutes = trained_kind(kind, data, seed, args, minutes)
            key = {"kind": kind, "seed": seed, "minutes": args.minutes}
            of_kind = partial(measured, folders[kind], photographs, minutes, args.extractor, seed)
            measure_once(RESULTS_FILE, key, args.threads, of_kind)
    write_table(RESULTS_FILE, table())
    if args.image is not None:
        write_samples(folders, args.image)


def trained_kind(kind: str, data: Path, seed: int, args: argparse.Namespace, minutes: float) -> tuple[Path, float]:
    """Train a model unless its folder exists, a model of pixels for `minutes`; return the folder and the minutes."""
    out = args.out / f"drawing-{'decoder' if kind == DECODER else kind}-{seed}-{args.minutes:g}"
    words: list[object] = ["--label-check-folds", 0, "--seed", seed, "--threads", args.threads]
    if kind != DECODER:
        words += [
            "--model",
            kind,
            "--size",
            SIDE,
            "--color",
            "rgb",
            "--minutes",
            minutes,
            "--patience",
            NO_EARLY_STOPPING,
        ]
        return trained(str(data), out, *words)[0], minutes
    words += ["--model", "gaussian", "--backbone", args.backbone, "--backbone-stages", 4]
    words += ["--decoder-minutes", args.minutes, "--decoder-side", SIDE]
    start, note = time.perf_counter(), out.with_suffix(".minutes")
    if not note.exists():
        for folder in (out, os.environ["LIKELY_CACHE"]):  # the time of an interrupted training is unknown
            shutil.rmtree(folder, ignore_errors=True)
        trained(str(data), out, *words)
        note.write_text(f"{(time.perf_counter() - start) / 60:.2f}")
    return out, float(note.read_text())


def measured(folder: Path, photographs: Dataset, minutes: float, extractor_path: str, seed: int) -> dict[str, Any]:
    """Measure fidelity of generated images, and the distance between training and test photographs."""
    classifier = load(folder)
    splits = photographs.relabel(classifier.labels).splits
    found = fidelity(classifier, splits["test"], extractor(extractor_path), seed=seed)
    before = [row["frechet_of_training"] for row in rows(RESULTS_FILE) if row["extractor"] == found.extractor]
    real = before[0] if before else distance_of(splits["train"], splits["test"], extractor_path)
    values = found.model_dump(include={"frechet", "precision", "recall", "density", "coverage", "n_real", "extractor"})
    return {"took": minutes, **values, "kernel": found.kernel.distance, "frechet_of_training": real}


def distance_of(train: LabeledImages, test: LabeledImages, extractor_path: str) -> float:
    """Return the Fréchet distance between the photographs of two splits, which takes minutes."""
    network = extractor(extractor_path)
    return frechet_distance(network.features(train.images), network.features(test.images))


def write_samples(folders: dict[str, Path], path: Path) -> None:
    """Write samples of a few products, one row per product and one panel per model."""
    panels: dict[str, list[NDArray[np.uint8]]] = {}
    for kind, folder in folders.items():
        classifier = Classifier.load(folder)
        names = [name for wanted in SHOWN for name in classifier.classes_ if name.split("/")[-1] == wanted]
        panels[kind] = [classifier.sample(name, N_SHOWN, seed=i) for i, name in enumerate(names)]
    write_image(str(path), grid_by_class(panels, [name.split("/")[-1] for name in names]))


def table() -> str:
    """One row per model, then the distance between training and test photographs."""
    found = rows(RESULTS_FILE)
    lines = [
        "| model | seed | total minutes | Fréchet distance | kernel distance | precision | recall | density | coverage |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for row in found:
        values = " | ".join(f"{row[name]:.3f}" for name in ("kernel", "precision", "recall", "density", "coverage"))
        lines.append(f"| {row['kind']} | {row['seed']} | {row['took']:.1f} | {row['frechet']:.2f} | {values} |")
    for seed, row in {row["seed"]: row for row in found}.items():
        real = f"{row['frechet_of_training']:.2f}"
        lines.append(f"| training photographs | {seed} | | {real} | | | | | |")
    n, extractor_name = (found[0]["n_real"], found[0]["extractor"]) if found else (0, "")
    note = f"{n:,} test photographs and as many generated images, {SIDE} pixels a side, in the features of {extractor_name}."
    return "\n".join([*lines, "", f"{note} {provenance(found)}"]) + "\n"


if __name__ == "__main__":
    main()
