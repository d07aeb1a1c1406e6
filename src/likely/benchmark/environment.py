"""Where and with what something was measured: the checkout's commit, and the most memory that the process has had."""

from __future__ import annotations

import subprocess
from pathlib import Path

import torch

import likely

RESET_PEAK = "5"  # what Linux takes for a wish to measure the peak anew


def commit() -> str | None:
    """The commit that the package runs from, "-dirty" if it was changed since; None outside of a checkout."""
    root = Path(likely.__file__).parents[2]
    if not (root / ".git").exists():
        return None
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip() or None
    except (OSError, subprocess.SubprocessError):
        return None


class PeakMemory:
    """The peak of the memory from here on: of a GPU where there is one, else of the process where the system keeps it."""

    def __init__(self) -> None:
        self.is_measured = torch.cuda.is_available() or _forget_peak()
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()

    @property
    def peak_gb(self) -> float | None:
        """In GB of 10⁹ bytes; None where it cannot be known."""
        if not self.is_measured:
            return None
        return (torch.cuda.max_memory_allocated() if torch.cuda.is_available() else _peak()) / 1e9


def _forget_peak() -> bool:
    try:
        Path("/proc/self/clear_refs").write_text(RESET_PEAK)
    except OSError:
        return False
    return True


def _peak() -> int:
    """Bytes: the high-water mark of the process's resident memory."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
