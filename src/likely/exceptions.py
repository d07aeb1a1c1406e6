"""Whose fault an error is."""

from __future__ import annotations

import traceback
from pathlib import Path

import likely


def is_internal(error: BaseException) -> bool:
    """Whether the project itself raised it: then its message was written for a user."""
    frames = traceback.extract_tb(error.__traceback__)
    return bool(frames) and Path(frames[-1].filename).is_relative_to(Path(likely.__file__).parent)
