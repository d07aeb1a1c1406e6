"""Images of products: drawn by a model whose backbone taught it, and by models of pixels, after the same minutes.

    python bench/drawing.py $DATA/grocery --backbone $DATA/backbones/mobilenet_v2_1.0_224 \
        --extractor $DATA/backbones/resnet18_stages3 --minutes 8 --out /tmp/photos

The other models get all the time that the first one takes, its features included. The extractor is another network than the
teacher. Appends a line for each model to bench/results/drawing.jsonl, unless it is there, writes the table beside it, and a
picture to --picture.
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
TAUGHT = "gaussian, taught to draw by its backbone"
SIDE = 64
NEVER = 10_000  # epochs without a gain, until which models of pixels use all their minutes
SHOWN = ("Banana", "Lemon", "Carrots", "Red-Beet", "Kiwi", "Aubergine", "Orange", "Cucumber")
N_SHOWN = 6


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--backbone", required=True)
    parser.add_argument("--extractor", required=True)
    parser.add_argument("--beside", nargs="+", default=["vaegan"], help="models of pixels")
    parser.add_argument("--minutes", type=float, default=8.0)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--picture", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    os.environ["LIKELY_CACHE"] = str(args.out / "drawing-cache")  # as on a machine that has never seen these images
    data = manifest(args.data, args.out)
    photographs = load_dataset(str(data), ImageOptions(size=SIDE, color="rgb"))
    folders = {}
    for seed in args.seeds:
        minutes = 0.0
        for kind in (TAUGHT, *args.beside):
            folders[kind], minutes = learned(kind, data, seed, args, minutes)
            key = {"kind": kind, "seed": seed, "minutes": args.minutes}
            of_kind = partial(measured, folders[kind], photographs, minutes, args.extractor, seed)
            measure_once(RESULTS_FILE, key, args.threads, of_kind)
    write_table(RESULTS_FILE, table())
    if args.picture is not None:
        draw(folders, args.picture)


def learned(kind: str, data: Path, seed: int, args: argparse.Namespace, granted: float) -> tuple[Path, float]:
    """The folder of a model, trained unless it is there, and the minutes that this took; a model of pixels is `granted` its."""
    out = args.out / f"drawing-{'taught' if kind == TAUGHT else kind}-{seed}-{args.minutes:g}"
    said: list[object] = ["--label-check-folds", 0, "--seed", seed, "--threads", args.threads]
    if kind != TAUGHT:
        said += ["--model", kind, "--size", SIDE, "--color", "rgb", "--minutes", granted, "--patience", NEVER]
        return trained(str(data), out, *said)[0], granted
    said += ["--model", "gaussian", "--backbone", args.backbone, "--backbone-stages", 4]
    said += ["--decoder-minutes", args.minutes, "--decoder-side", SIDE]
    begun, note = time.perf_counter(), out.with_suffix(".minutes")
    if not note.exists():
        for begun_before in (out, os.environ["LIKELY_CACHE"]):  # of a training cut short nobody knows how long it took
            shutil.rmtree(begun_before, ignore_errors=True)
        trained(str(data), out, *said)
        note.write_text(f"{(time.perf_counter() - begun) / 60:.2f}")
    return out, float(note.read_text())


def measured(folder: Path, photographs: Dataset, took: float, extractor_path: str, seed: int) -> dict[str, Any]:
    """Measure fidelity of generated images, and the distance between training and test photographs."""
    classifier = load(folder)
    splits = photographs.relabel(classifier.labels).splits
    found = fidelity(classifier, splits["test"], extractor(extractor_path), seed=seed)
    before = [row["frechet_of_training"] for row in rows(RESULTS_FILE) if row["extractor"] == found.extractor]
    real = before[0] if before else distance_of(splits["train"], splits["test"], extractor_path)
    values = found.model_dump(include={"frechet", "precision", "recall", "density", "coverage", "n_real", "extractor"})
    return {"took": took, **values, "kernel": found.kernel.distance, "frechet_of_training": real}


def distance_of(train: LabeledImages, test: LabeledImages, extractor_path: str) -> float:
    """Between the photographs of two splits: minutes, and the same whatever drew."""
    seen = extractor(extractor_path)
    return frechet_distance(seen.features(train.images), seen.features(test.images))


def draw(folders: dict[str, Path], path: Path) -> None:
    """A few products, a row each, a panel for each model."""
    panels = {}
    for kind, folder in folders.items():
        classifier = Classifier.load(folder)
        names = [name for wanted in SHOWN for name in classifier.classes_ if name.split("/")[-1] == wanted]
        panels[kind] = np.stack([classifier.sample(name, N_SHOWN, seed=i) for i, name in enumerate(names)])
    write_image(str(path), grid_by_class(panels, [name.split("/")[-1] for name in names]))


def table() -> str:
    found = rows(RESULTS_FILE)
    lines = [
        "| model | seed | minutes in all | Fréchet distance | kernel distance | precision | recall | density | coverage |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for row in found:
        values = " | ".join(f"{row[name]:.3f}" for name in ("kernel", "precision", "recall", "density", "coverage"))
        lines.append(f"| {row['kind']} | {row['seed']} | {row['took']:.1f} | {row['frechet']:.2f} | {values} |")
    for seed, row in {row["seed"]: row for row in found}.items():
        real = f"{row['frechet_of_training']:.2f}"
        lines.append(f"| the photographs of the training split | {seed} | | {real} | | | | | |")
    n, extractor_name = (found[0]["n_real"], found[0]["extractor"]) if found else (0, "")
    note = f"Beside {n:,} photographs of the test split, as many generated, {SIDE} pixels, in the features of {extractor_name}."
    return "\n".join([*lines, "", f"{note} {provenance(found)}"]) + "\n"


if __name__ == "__main__":
    main()
