"""Summary of a benchmark of all families: one row per family, means over seeds.

    likely benchmark $DATA/fashion-mnist --models vaegan,gan,vae,flow --minutes 10 --seeds 0,1 --threads 2 --out /tmp/families
    python bench/families.py /tmp/families

Copies the results and the report of `likely benchmark` to bench/results/families.jsonl and families-full.md, and writes the
summary next to them. Without a folder, only the summary is written.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from results import RESULTS, rows, write_table

RESULTS_FILE = RESULTS / "families.jsonl"
# Value and format of each column; the spread of the first one is shown.
COLUMNS: Mapping[str, tuple[Callable[[dict[str, Any]], float | None], str]] = {
    "accuracy": (lambda r: r["accuracy"]["accuracy"], ".4f"),
    "Δ accuracy, points": (lambda r: _scaled(r["accuracy"]["delta_vs_baseline"], 100), "+.2f"),
    "ECE": (lambda r: r["accuracy"]["ece"], ".4f"),
    "bits/dim, ≤": (lambda r: r["accuracy"]["bits_per_dim"], ".3f"),
    "false-alarm rate": (lambda r: r["accuracy"]["false_alarm_rate"], ".3f"),
    "images/s": (lambda r: r["efficiency"]["images_per_second"], ",.0f"),
    "relative to baseline": (lambda r: r["efficiency"]["relative_to_baseline"], ".2f"),
    "predictions/s": (lambda r: r["efficiency"]["predictions_per_second"], ",.0f"),
    "epochs": (lambda r: r["efficiency"]["epochs_done"], ".0f"),
    "FID": (lambda r: (r["fidelity"] or {}).get("frechet"), ".4f"),
    "precision": (lambda r: (r["fidelity"] or {}).get("precision"), ".3f"),
    "recall": (lambda r: (r["fidelity"] or {}).get("recall"), ".3f"),
    "class consistency": (lambda r: _consistency(r["fidelity"] or {}), ".2f"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", help="output folder of `likely benchmark`")
    folder = parser.parse_args().folder
    if folder is not None:
        RESULTS.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(folder / "results.jsonl", RESULTS_FILE)
        shutil.copyfile(folder / "table.md", RESULTS / "families-full.md")
    write_table(RESULTS_FILE, table())


def table() -> str:
    """One row per family: means over seeds, and the range of the accuracy."""
    found = rows(RESULTS_FILE)
    lines = ["| family | " + " | ".join(COLUMNS) + " |", "|---|" + "---:|" * len(COLUMNS)]
    for family in dict.fromkeys(row["family"] for row in found):
        group = [row for row in found if row["family"] == family]
        accuracy, *others = (_mean([value(row) for row in group], form) for value, form in COLUMNS.values())
        values = [row["accuracy"]["accuracy"] for row in group]
        accuracy += f" ({min(values):.4f} to {max(values):.4f})"
        lines.append(f"| {family} | {' | '.join([accuracy, *others])} |")
    first = found[0]
    seeds = ", ".join(str(seed) for seed in dict.fromkeys(row["seed"] for row in found))
    note = (
        f"Seeds {seeds}; {first['minutes']:g} minutes of training each; {first['accuracy']['n']:,} test images; α = "
        f"{first['accuracy']['alpha']:g}. {first['machine']}, {first['threads']} threads, commit {first['commit'][:7]}."
    )
    return "\n".join([*lines, "", note]) + "\n"


def _mean(values: Sequence[float | None], form: str) -> str:
    known = [value for value in values if value is not None]
    return format(np.mean(known), form) if known else ""


def _scaled(value: float | None, factor: float) -> float | None:
    return None if value is None else factor * value


def _consistency(fidelity: Mapping[str, Any]) -> float | None:
    found = fidelity.get("class_consistency")
    return None if found is None else sum(found["n_consistent"]) / sum(found["n_generated"])


if __name__ == "__main__":
    main()
