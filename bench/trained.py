"""Models for benchmarks, trained by the command line, once: a training that was interrupted goes on."""

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
from ledger import append, arguments, circumstances, has_row

# Ways of training a family that have a name of their own; {backbone} is the folder that --backbone names.
EXTRAS = {
    "erasing": ["--augment-erase", 0.6],
    "backbone": ["--backbone", "{backbone}", "--backbone-stages", 4],
    "backbone96": ["--backbone", "{backbone}", "--backbone-stages", 4, "--size", 96],
}


def model_arguments(what: str | None, families: str, minutes: float) -> argparse.ArgumentParser:
    """The options of a benchmark of models that it trains, or finds trained, in a folder."""
    found = arguments(what)
    found.add_argument("data")
    found.add_argument("--models", default=families, help="families, with commas between; softmax+erasing is one")
    found.add_argument("--backbone", help="a pretrained network's folder, for those that are called +backbone")
    found.add_argument("--minutes", type=float, default=minutes)
    found.add_argument("--out", type=Path, required=True)
    return found


def unmeasured(asked: argparse.Namespace, ledger: Path) -> Iterator[tuple[dict[str, object], Path]]:
    """Every model asked for of which the ledger has no line: what it is known by there, and its folder, trained."""
    name = Path(asked.data).stem
    for seed in asked.seeds:
        for kind in asked.models.split(","):
            key = {"data": name, "kind": kind, "seed": seed, "minutes": asked.minutes}
            if has_row(ledger, key):
                continue
            folder = asked.out / f"{name}-{kind}-{seed}-{asked.minutes:g}"
            trained(asked.data, folder, *words(kind, seed, asked))
            torch.set_num_threads(asked.threads)
            yield key, folder


def complete(asked: argparse.Namespace, ledger: Path, measured: Callable[[Path, str, int], Mapping[str, Any]]) -> None:
    """Measure every model asked for that the ledger has no line for, from its folder, the data and the seed."""
    for key, folder in unmeasured(asked, ledger):
        found = measured(folder, asked.data, int(str(key["seed"])))
        append(ledger, {**circumstances(asked.threads), **key, **found})


def words(kind: str, seed: int, asked: argparse.Namespace) -> list[object]:
    """What `likely train` is told."""
    family, *extras = kind.split("+")
    said = [
        "--model",
        family,
        "--minutes",
        asked.minutes,
        "--seed",
        seed,
        "--threads",
        asked.threads,
        "--label-check-folds",
        0,
    ]
    return [*said, *(str(word).format(backbone=asked.backbone) for extra in extras for word in EXTRAS[extra])]


def trained(data: str, out: Path, *words: object) -> tuple[Path, float]:
    """A model folder, trained unless it is there already, and the peak memory of the training in GB."""
    if not (out / "model.json").exists():
        resumed = ["--resume"] if (out / "training_state.safetensors").exists() else []
        command = [sys.executable, "-m", "likely", "train", data, "--out", str(out), *map(str, words), *resumed]
        print(" ".join(command[2:]), flush=True)
        subprocess.run(command, check=True)
    return out, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * (1024 if sys.platform == "linux" else 1) / 1e9


def history(folder: Path) -> list[dict[str, str]]:
    with (folder / "history.csv").open(newline="") as file:
        return list(csv.DictReader(file))
