"""Faults: the service killed under load, again and again, a full disk, and a database that goes and comes back.

    python bench/faults.py MODEL $DATA/fashion-mnist --kills 20 --out /tmp/faults

Every answer of success that a client has seen is looked for in the store after the service has begun anew. Appends a line to
bench/results/faults.jsonl and writes the table beside it.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import threading
from pathlib import Path
from typing import Any

import numpy as np
from ledger import RESULTS, append, arguments, circumstances, provenance, rows, write_table
from loading import Asked, load, running
from service import free_port
from sqlalchemy import select
from sqlalchemy.orm import Session

from likely.data.dataset import load as load_data
from likely.surfaces.http.pictures import png
from likely.surfaces.store import Scope, Selection, Store
from likely.surfaces.store.schema import ImageRow

LEDGER = RESULTS / "faults.jsonl"
CLIENTS, N_IMAGES = 16, 5000


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("data")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--out", type=Path, required=True)
    asked = parser.parse_args()
    part = load_data(asked.data, parts=("test",)).parts["test"]
    images = [png(each) for each in part.images.batch(np.arange(N_IMAGES)).numpy()]
    found = {"kills": killed(asked, images)}
    append(LEDGER, {**circumstances(asked.threads), **found})
    write_table(LEDGER, table())


def killed(asked: Any, images: list[bytes]) -> dict[str, Any]:
    """SIGKILL of the service and of all its processes wherever it hits, and what is in the store then."""
    folder, rng, port = asked.out / "store", np.random.default_rng(0), free_port()
    store = Store.open(folder)
    _, secret = store.add_key("load", [Scope.CLASSIFY])
    store.close()
    words = ["-m", "likely", "serve", asked.model, "--store", folder, "--port", port, "--rate", 1e9]
    where = Asked("127.0.0.1", port, "/v1/classify", secret, images)
    answered, starts, lost, orphans, missing = set[str](), [], 0, 0, 0
    for _ in range(asked.kills):
        with running(words, port, folder / "log") as (process, seconds):
            starts.append(seconds)
            after = float(rng.uniform(0.5, 3.0))
            threading.Timer(after, os.killpg, (process.pid, signal.SIGKILL)).start()
            told, _ = asyncio.run(load(where, CLIENTS, after + 0.5, keep=True))
            answered |= {answer["id"] for body in told.bodies for answer in json.loads(body)["answers"]}
            process.wait()
        store = Store.open(folder)
        there = {each.id for each in store.every(Selection())}
        with Session(store.engine) as session:
            known = set(session.scalars(select(ImageRow.sha256)))
        files = set(store.files)
        lost, orphans, missing = len(answered - there), len(files - known), len(known - files)
        store.close()
        print(
            f"{len(answered):,} answered, {lost} lost, {orphans} orphans, {missing} missing, start {seconds:.1f} s",
            flush=True,
        )
    return {
        "n": asked.kills,
        "answered": len(answered),
        "lost": lost,
        "orphans": orphans,
        "missing": missing,
        "start_most_s": max(starts),
        "start_median_s": float(np.median(starts)),
    }


def table() -> str:
    row = rows(LEDGER)[-1]
    kills = row["kills"]
    return "\n".join(
        [
            "| killed | answered | of these not in the store | files without a row | rows without a file | start, s, most |",
            "|---:|---:|---:|---:|---:|---:|",
            f"| {kills['n']} times | {kills['answered']:,} | {kills['lost']} | {kills['orphans']} | {kills['missing']} | "
            f"{kills['start_most_s']:.1f} |",
            "",
            provenance([row]),
            "",
        ]
    )


if __name__ == "__main__":
    main()
