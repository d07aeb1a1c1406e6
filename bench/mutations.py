"""Robustness of the service against corrupted images: a response for each, and bounded memory.

    python bench/mutations.py MODEL --n 20000 --out /tmp/mutations

Corruptions: truncation, bit flips, inserted and deleted bytes, another format's header, decompression bombs, two files
in one, noise. Appends a line to bench/results/mutations.jsonl and writes the table next to it.
"""

from __future__ import annotations

import argparse
import asyncio
import time
import zlib
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from loading import LoadStats, Target, memory_mb, once
from PIL import Image
from results import RESULTS, append, arguments, environment, provenance, rows, write_table
from service import service
from sklearn.datasets import load_digits

RESULTS_FILE = RESULTS / "mutations.jsonl"
CLIENTS, BLOCK = 8, 1000
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "ICO")
Rng = np.random.Generator


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("model", type=Path, help="model folder")
    parser.add_argument("--n", type=int, default=20_000, help="images (default 20000)")
    parser.add_argument("--out", type=Path, required=True, help="folder for stores and logs")
    args = parser.parse_args()
    for seed in args.seeds:
        found = measured(args, seed)
        append(RESULTS_FILE, {**environment(args.threads), "seed": seed, "n": args.n, **found})
    write_table(RESULTS_FILE, table())


def measured(args: argparse.Namespace, seed: int) -> dict[str, Any]:
    rng, statuses, memory = np.random.default_rng(seed), Counter[str](), []
    words = ["-m", "likely", "serve", args.model, "--rate-limit", 1e9, "--decode-timeout", 5]
    slowest, start = 0.0, time.perf_counter()
    with service(args.out / f"store-{seed}", words, [b""]) as (where, process, _):
        for done in range(0, args.n, BLOCK):
            images = [mutated(rng) for _ in range(min(BLOCK, args.n - done))]
            stats = asyncio.run(each_once(replace(where, images=images)))
            statuses.update(stats.statuses | ({"broken": stats.broken} if stats.broken else {}))
            slowest = max(slowest, *(max(each) for each in stats.seconds.values()))
            memory.append(round(memory_mb(process), 1))
            print(f"{sum(statuses.values()):,} {dict(statuses)} {memory[-1]} MB", flush=True)
        alive = process.poll() is None
    seconds = time.perf_counter() - start
    return {"statuses": dict(statuses), "memory_mb": memory, "slowest_s": slowest, "seconds": seconds, "alive": alive}


async def each_once(target: Target) -> LoadStats:
    """Send every image once, from several clients."""
    stats, left = LoadStats(), asyncio.Queue[int]()
    for i in range(len(target.images)):
        left.put_nowait(i)

    async def client() -> None:
        while not left.empty():
            one = replace(target, images=[target.images[left.get_nowait()]])
            await once(one, stats)

    await asyncio.gather(*(client() for _ in range(CLIENTS)))
    return stats


def mutated(rng: Rng) -> bytes:
    """Return a small image of a random format with a random corruption."""
    kind = str(rng.choice(list(CORRUPTIONS)))
    return CORRUPTIONS[kind](encoded(rng), rng)


def encoded(rng: Rng) -> bytes:
    """Return an image of a digit in a random format and size."""
    file, digits = BytesIO(), load_digits().images
    picture = Image.fromarray((digits[rng.integers(len(digits))] * 255 / 16).astype(np.uint8))
    side = int(rng.integers(8, 200))
    picture.resize((side, side)).convert(str(rng.choice(["L", "RGB"]))).save(file, str(rng.choice(FORMATS)))
    return file.getvalue()


def _truncated(content: bytes, rng: Rng) -> bytes:
    return content[: int(rng.integers(len(content)))] or b"\0"


def _flipped(content: bytes, rng: Rng) -> bytes:
    changed = bytearray(content)
    for i in rng.integers(len(changed), size=int(rng.integers(1, 30))):
        changed[i] ^= 1 << int(rng.integers(8))
    return bytes(changed)


def _inserted(content: bytes, rng: Rng) -> bytes:
    i = int(rng.integers(len(content)))
    return content[:i] + rng.bytes(int(rng.integers(1, 500))) + content[i:]


def _deleted(content: bytes, rng: Rng) -> bytes:
    i = int(rng.integers(len(content)))
    return content[:i] + content[i + int(rng.integers(1, 200)) :] or b"\0"


def _other_header(content: bytes, rng: Rng) -> bytes:
    heads = (
        b"\x89PNG\r\n\x1a\n",
        b"\xff\xd8\xff\xe0",
        b"GIF89a",
        b"RIFF\0\0\0\0WEBP",
        b"BM",
        b"II*\0",
        b"%PDF-1.7",
        b"PK\3\4",
    )
    head = heads[int(rng.integers(len(heads)))]
    return head + content[len(head) :]


def _bomb(content: bytes, rng: Rng) -> bytes:
    side = int(rng.choice([5_000, 20_000, 60_000, 2**31 - 1]))

    def chunk(kind: bytes, inside: bytes) -> bytes:
        return len(inside).to_bytes(4) + kind + inside + zlib.crc32(kind + inside).to_bytes(4)

    header = side.to_bytes(4) + side.to_bytes(4) + bytes([8, int(rng.choice([0, 2, 6])), 0, 0, 0])
    rows = zlib.compress(bytes(3_000_000), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def _two_in_one(content: bytes, rng: Rng) -> bytes:
    others = (b"<script>alert(1)</script>", b"PK\3\4" + rng.bytes(40), b"#!/bin/sh\nexit\n", encoded(rng))
    other = others[int(rng.integers(len(others)))]
    return content + other if rng.integers(2) else other + content


def _noise(content: bytes, rng: Rng) -> bytes:
    return rng.bytes(int(rng.integers(1, 5000)))


CORRUPTIONS: Mapping[str, Callable[[bytes, Rng], bytes]] = {
    "truncated": _truncated,
    "bits flipped": _flipped,
    "bytes inserted": _inserted,
    "bytes deleted": _deleted,
    "another format's header": _other_header,
    "decompression bomb": _bomb,
    "two in one": _two_in_one,
    "noise": _noise,
}


def table() -> str:
    """One row per measurement."""
    lines = [
        "| seed | images | responses by status | slowest, s | memory, MB, first to maximum | alive |",
        "|---:|---:|---|---:|---:|---|",
    ]
    for row in rows(RESULTS_FILE):
        statuses = ", ".join(f"{n:,} × {status}" for status, n in sorted(row["statuses"].items()))
        memory = f"{row['memory_mb'][0]:.0f} to {max(row['memory_mb']):.0f}"
        alive = "yes" if row["alive"] else "no"
        lines.append(f"| {row['seed']} | {row['n']:,} | {statuses} | {row['slowest_s']:.1f} | {memory} | {alive} |")
    return "\n".join([*lines, "", provenance(rows(RESULTS_FILE))]) + "\n"


if __name__ == "__main__":
    main()
