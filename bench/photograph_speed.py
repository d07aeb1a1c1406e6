"""Photographs classified per second from disk: the embedded backbone, a backbone folder, and a transformers pipeline.

    python bench/photograph_speed.py $DATA/grocery --backbone $DATA/backbones/mobilenet_v2_1.0_224 --out /tmp/photo-speed

Each measurement is a program of its own that classifies 1,000 test photographs with an empty feature cache: `likely classify`
with the embedded backbone, with the folder on PyTorch (as if onnxruntime were not installed), and the pipeline
`image-classification` of transformers with the folder. Programs that classify a single photograph give the time of
the start, which the second figure leaves out. Rounds are interleaved. Appends one line to
bench/results/photograph_speed.jsonl, unless it exists, and writes the table next to it.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from interleaved_timing import interleaved, quietest
from results import RESULTS, arguments, measure_once, provenance, rows, write_table
from train_helpers import trained

RESULTS_FILE = RESULTS / "photograph_speed.jsonl"
N_IMAGES = 1000
FIRST = "likely, lite0"
# The command without onnxruntime: networks then run on PyTorch.
WITHOUT_ONNX = "import sys; sys.modules['onnxruntime'] = None; from likely.cli import main; main()"
PIPELINE = """
import sys, torch
from pathlib import Path
from transformers import pipeline
torch.set_num_threads(int(sys.argv[3]))
images = sorted(map(str, Path(sys.argv[2]).iterdir()))
print(*pipeline("image-classification", model=sys.argv[1])(images), sep="\\n")
"""


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("data", type=Path, help="Grocery Store data set")
    parser.add_argument(
        "--backbone", required=True, help="folder of a pretrained network with its classification layer"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for trained models, photographs and caches")
    parser.add_argument("--rounds", type=int, default=5, help="measurements of each program (default 5)")
    args = parser.parse_args()
    os.environ["LIKELY_CACHE"] = str(args.out / "cache")
    key = {"images": N_IMAGES, "backbone": Path(args.backbone).name}
    measure_once(RESULTS_FILE, key, args.threads, partial(measured, args))
    write_table(RESULTS_FILE, table())


def measured(args: argparse.Namespace) -> dict[str, Any]:
    """Train both models, and return the seconds of every kind of program, for all photographs and for one."""
    many, one = photographs(args.data, args.out)
    words = ("--threads", args.threads, "--label-check-folds", 0)
    lite0, _ = trained(str(args.data), args.out / "lite0", *words)
    folder, _ = trained(str(args.data), args.out / "folder", *words, "--backbone", args.backbone)
    classify = ["classify", "--threads", args.threads]
    kinds = {
        FIRST: ["-m", "likely", *classify, lite0],
        "likely, MobileNetV2 on PyTorch": ["-c", WITHOUT_ONNX, *classify, folder],
        "transformers, MobileNetV2": ["-c", PIPELINE, args.backbone],
    }
    programs = {
        f"{name}: {images.name}": partial(seconds, command, images, args)
        for name, command in kinds.items()
        for images in (many, one)
    }
    for name, program in programs.items():
        if name.endswith(one.name):
            program()  # reads the files of programs and models once
    found = interleaved(programs, args.rounds)
    return {
        "seconds": {
            name: [
                [each.found for each in quietest(found[f"{name}: {images.name}"], args.rounds)]
                for images in (many, one)
            ]
            for name in kinds
        }
    }


def photographs(data: Path, out: Path) -> tuple[Path, Path]:
    """Copy test photographs at equal distances into a folder, and the first of them into another."""
    paths = sorted((data / "test").rglob("*.jpg"))
    folders = out / "images", out / "image"
    for folder, n in zip(folders, (N_IMAGES, 1), strict=True):
        folder.mkdir(parents=True, exist_ok=True)
        for i in range(n):
            shutil.copy(paths[i * len(paths) // N_IMAGES], folder / f"{i:04}.jpg")
    return folders


def seconds(command: Sequence[object], images: Path, args: argparse.Namespace) -> float:
    """Return the seconds of a program that classifies all images of a folder, with an empty feature cache."""
    cache = args.out / "cache"
    shutil.rmtree(cache / "features", ignore_errors=True)
    environment = {
        **os.environ,
        "LIKELY_CACHE": str(cache),
        "OMP_NUM_THREADS": str(args.threads),
        "HF_HUB_OFFLINE": "1",
    }
    words = [sys.executable, *map(str, command), str(images)]
    words += [str(args.threads)] if command[1] == PIPELINE else ["--format", "jsonl"]
    start = time.perf_counter()
    subprocess.run(words, check=True, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - start


def table() -> str:
    """Return the table of images per second, and how many times as fast the embedded backbone is."""
    lines = [
        "| program | 1,000 photographs, s | 1 photograph, s | images/s with the start | lite0 is faster by | images/s without "
        "the start | lite0 is faster by |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    measurements = rows(RESULTS_FILE)
    for row in measurements:
        lines += [_line(name, row["seconds"]) for name in row["seconds"]]
    n = min(len(each) for row in measurements for found in row["seconds"].values() for each in found)
    note = f"Medians and ranges of {n} interleaved rounds, each a program of its own with an empty feature cache."
    return "\n".join([*lines, "", f"{note} {provenance(measurements)}", ""])


def _line(name: str, found: Mapping[str, Sequence[Sequence[float]]]) -> str:
    def of(name: str) -> tuple[float, float]:
        many, one = map(median, found[name])
        return N_IMAGES / many, (N_IMAGES - 1) / (many - one)

    rates, best = of(name), of(FIRST)
    cells = [name, *map(_range, found[name])]
    for rate, other in zip(rates, best, strict=True):
        cells += [f"{rate:.0f}", "" if name == FIRST else f"{other / rate:.1f}"]
    return f"| {' | '.join(cells)} |"


def _range(values: Sequence[float]) -> str:
    return f"{median(values):.1f} ({min(values):.1f} to {max(values):.1f})"


if __name__ == "__main__":
    main()
