"""Fixtures of the data tests: small generated images."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pytest
from PIL import Image

Draw: TypeAlias = Callable[..., Path]


@pytest.fixture
def draw(tmp_path: Path) -> Draw:
    """Write a noise image determined by the seed and return its path: draw("cat/a.png", seed=1)."""

    def write(name: str, *, seed: int = 0, size: tuple[int, int] = (12, 12), mode: str = "RGB") -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noise(seed, *size)).convert(mode).save(path)
        return path

    return write


def noise(seed: int, height: int, width: int) -> np.ndarray:
    """uint8 (height, width, 3)."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
