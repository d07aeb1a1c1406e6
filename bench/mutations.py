"""Twenty thousand images that are broken on purpose, through the service: an answer or a sentence for each, and no more memory.

    python bench/mutations.py MODEL --n 20000 --out /tmp/mutations

Cut short, bits flipped, bytes put in or taken out, named as what they are not, far larger inside than outside, two formats in
one file. Appends a line to bench/results/mutations.jsonl and writes the table beside it.
"""

from __future__ import annotations

import asyncio
import time
import zlib
from collections import Counter
from collections.abc import Callable, Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from loading import Asked, LoadStats, memory_mb, once
from PIL import Image
from results import RESULTS, append, arguments, environment, provenance, rows, write_table
from service import service
from sklearn.datasets import load_digits

RESULTS_FILE = RESULTS / "mutations.jsonl"
CLIENTS, AT_ONCE = 8, 1000
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "ICO")
Rng = np.random.Generator


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--n", type=int, default=20_000)
    parser.add_argument("--out", type=Path, required=True)
    asked = parser.parse_args()
    for seed in asked.seeds:
        found = measured(asked, seed)
        append(RESULTS_FILE, {**environment(asked.threads), "seed": seed, "n": asked.n, **found})
    write_table(RESULTS_FILE, table())


def measured(asked: Any, seed: int) -> dict[str, Any]:
    rng, statuses, memory = np.random.default_rng(seed), Counter[str](), []
    words = ["-m", "likely", "serve", asked.model, "--rate-limit", 1e9, "--decode-timeout", 5]
    slowest, begun = 0.0, time.perf_counter()
    with service(asked.out / f"store-{seed}", words, [b""]) as (where, process, _):
        for _ in range(0, asked.n, AT_ONCE):
            images = [mutated(rng) for _ in range(AT_ONCE)]
            stats = asyncio.run(each_once(Asked(where.host, where.port, where.path, where.key, images)))
            statuses.update(stats.statuses | ({"broken": stats.broken} if stats.broken else {}))
            slowest = max(slowest, *(max(each) for each in stats.seconds.values()))
            memory.append(round(memory_mb(process), 1))
            print(f"{sum(statuses.values()):,} {dict(statuses)} {memory[-1]} MB", flush=True)
        alive = process.poll() is None
    whole = time.perf_counter() - begun
    return {"statuses": dict(statuses), "memory_mb": memory, "slowest_s": slowest, "seconds": whole, "alive": alive}


async def each_once(asked: Asked) -> LoadStats:
    """Every image once, some at a time."""
    stats, left = LoadStats(), asyncio.Queue[int]()
    for i in range(len(asked.images)):
        left.put_nowait(i)

    async def client() -> None:
        while not left.empty():
            one = Asked(asked.host, asked.port, asked.path, asked.key, [asked.images[left.get_nowait()]])
            await once(one, stats)

    await asyncio.gather(*(client() for _ in range(CLIENTS)))
    return stats


def mutated(rng: Rng) -> bytes:
    """A small image of some format, broken in some way."""
    kind = str(rng.choice(list(WAYS)))
    return WAYS[kind](encoded(rng), rng)


def encoded(rng: Rng) -> bytes:
    file, digits = BytesIO(), load_digits().images
    picture = Image.fromarray((digits[rng.integers(len(digits))] * 255 / 16).astype(np.uint8))
    side = int(rng.integers(8, 200))
    picture.resize((side, side)).convert(str(rng.choice(["L", "RGB"]))).save(file, str(rng.choice(FORMATS)))
    return file.getvalue()


def _cut(content: bytes, rng: Rng) -> bytes:
    return content[: int(rng.integers(len(content)))] or b"\0"


def _flipped(content: bytes, rng: Rng) -> bytes:
    changed = bytearray(content)
    for i in rng.integers(len(changed), size=int(rng.integers(1, 30))):
        changed[i] ^= 1 << int(rng.integers(8))
    return bytes(changed)


def _put_in(content: bytes, rng: Rng) -> bytes:
    i = int(rng.integers(len(content)))
    return content[:i] + rng.bytes(int(rng.integers(1, 500))) + content[i:]


def _taken_out(content: bytes, rng: Rng) -> bytes:
    i = int(rng.integers(len(content)))
    return content[:i] + content[i + int(rng.integers(1, 200)) :] or b"\0"


def _other_head(content: bytes, rng: Rng) -> bytes:
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


WAYS: Mapping[str, Callable[[bytes, Rng], bytes]] = {
    "cut short": _cut,
    "bits flipped": _flipped,
    "bytes put in": _put_in,
    "bytes taken out": _taken_out,
    "another format's head": _other_head,
    "larger inside": _bomb,
    "two in one": _two_in_one,
    "noise": _noise,
}


def table() -> str:
    lines = [
        "| seed | images | answers by status | slowest, s | memory, MB, first to most | alive |",
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
