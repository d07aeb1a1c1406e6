"""Files that are complete at any moment: written beside their places, and moved there once they are on the disk."""

from __future__ import annotations

import os
from pathlib import Path

PARTIAL_SUFFIX = ".part"  # of a file that is being written


def write_atomically(path: Path, content: bytes) -> None:
    """What was there before stays until all of the new is on the disk."""
    beside = path.with_name(path.name + PARTIAL_SUFFIX)
    with beside.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)
