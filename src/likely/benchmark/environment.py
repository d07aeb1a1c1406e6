"""Environment of a measurement: the commit of the checkout, and the peak memory of the process."""

from __future__ import annotations

import subprocess
from pathlib import Path

import torch

import likely

RESET_PEAK = "5"  # Linux resets the peak memory of a process when this is written to clear_refs


def commit() -> str | None:
    """Return the commit of the checkout, with "-dirty" if files changed since; None outside of a checkout."""
    root = Path(likely.__file__).parents[2]
    if not (root / ".git").exists():
        return None
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip() or None
    except (OSError, subprocess.SubprocessError):
        return None


class PeakMemory:
    """The peak memory since the creation of this object: of the GPU if there is one, else of the process on Linux."""

    def __init__(self) -> None:
        self.is_measured = torch.cuda.is_available() or _reset_peak()
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()

    @property
    def peak_gb(self) -> float | None:
        """Peak memory in GB of 10⁹ bytes; None where the system does not report it."""
        if not self.is_measured:
            return None
        return (torch.cuda.max_memory_allocated() if torch.cuda.is_available() else _peak_bytes()) / 1e9


def _reset_peak() -> bool:
    try:
        Path("/proc/self/clear_refs").write_text(RESET_PEAK)
    except OSError:
        return False
    return True


def _peak_bytes() -> int:
    """Return the high-water mark of the resident memory."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
