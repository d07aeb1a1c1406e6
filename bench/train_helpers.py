"""Models for benchmarks, trained once through the command line; interrupted trainings are resumed."""

from __future__ import annotations

import argparse
import csv
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from results import append, arguments, environment, has_row

# Named training variants; {backbone} is the folder of --backbone.
EXTRAS = {
    "erasing": ["--augment-erase", 0.6],
    "backbone": ["--backbone", "{backbone}", "--backbone-stages", 4],
    "backbone96": ["--backbone", "{backbone}", "--backbone-stages", 4, "--size", 96],
}


def model_arguments(description: str | None, families: str, minutes: float) -> argparse.ArgumentParser:
    """Return a parser with the options of benchmarks that train models in a folder."""
    found = arguments(description)
    found.add_argument("data", help="data set, as for `likely train`")
    found.add_argument(
        "--models",
        default=families,
        help=f"comma-separated families, each optionally with +{', +'.join(EXTRAS)} (default {families})",
    )
    found.add_argument("--backbone", help="folder of a pretrained network, for models with +backbone")
    found.add_argument(
        "--minutes", type=float, default=minutes, help=f"training time of each model (default {minutes:g})"
    )
    found.add_argument("--out", type=Path, required=True, help="folder for trained models")
    return found


def unmeasured(args: argparse.Namespace, results_file: Path) -> Iterator[tuple[dict[str, object], Path]]:
    """Train every requested model without a line in the results file; yield its key there and its folder."""
    name = Path(args.data).stem
    for seed in args.seeds:
        for kind in args.models.split(","):
            key = {"data": name, "kind": kind, "seed": seed, "minutes": args.minutes}
            if has_row(results_file, key):
                continue
            folder = args.out / f"{name}-{kind}-{seed}-{args.minutes:g}"
            trained(args.data, folder, *words(kind, seed, args))
            torch.set_num_threads(args.threads)
            yield key, folder


def complete(
    args: argparse.Namespace, results_file: Path, measured: Callable[[Path, str, int], Mapping[str, Any]]
) -> None:
    """Train and measure every requested model without a line in the results file, by its folder, the data and the seed."""
    for key, folder in unmeasured(args, results_file):
        found = measured(folder, args.data, int(str(key["seed"])))
        append(results_file, {**environment(args.threads), **key, **found})


def words(kind: str, seed: int, args: argparse.Namespace) -> list[object]:
    """Return the options of `likely train`."""
    family, *extras = kind.split("+")
    options = [
        "--model",
        family,
        "--minutes",
        args.minutes,
        "--seed",
        seed,
        "--threads",
        args.threads,
        "--label-check-folds",
        0,
    ]
    return [*options, *(str(word).format(backbone=args.backbone) for extra in extras for word in EXTRAS[extra])]


def trained(data: str, out: Path, *words: object) -> tuple[Path, float]:
    """Train a model unless its folder exists; return the folder and the peak memory of the training in GB."""
    if not (out / "model.json").exists():
        resumed = ["--resume"] if (out / "training_state.safetensors").exists() else []
        command = [sys.executable, "-m", "likely", "train", data, "--out", str(out), *map(str, words), *resumed]
        print(" ".join(command[2:]), flush=True)
        subprocess.run(command, check=True)
    return out, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * (1024 if sys.platform == "linux" else 1) / 1e9


def history(folder: Path) -> list[dict[str, str]]:
    """Return the rows of the training history of a model folder, one per epoch."""
    with (folder / "history.csv").open(newline="") as file:
        return list(csv.DictReader(file))
