"""Atomic writes: a file is written under a temporary name and renamed once it is on disk."""

from __future__ import annotations

import os
from pathlib import Path

PARTIAL_SUFFIX = ".part"  # of a file that is being written


def write_atomically(path: Path, content: bytes) -> None:
    """Replace a file's content once all of the new content is on disk."""
    temporary = path.with_name(path.name + PARTIAL_SUFFIX)
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
