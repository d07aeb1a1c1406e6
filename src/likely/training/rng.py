"""Counter-based random numbers: functions of seed, epoch and step, so that training resumes exactly."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

_GOLDEN_GAMMA = np.uint64(0x9E3779B97F4A7C15)


def hash_uniforms(seed: int, epoch: int, indices: NDArray[np.int64], n: int) -> torch.Tensor:
    """Return n numbers in [0, 1) per image of an epoch, (B, n), by hashing (seed, epoch, image, index) with SplitMix64.

    Source: Steele 2014, Fast Splittable Pseudorandom Number Generators, figure 16.
    """
    with np.errstate(over="ignore"):
        stream = _mix(_mix(np.uint64(seed)) + _GOLDEN_GAMMA * np.uint64(epoch + 1))
        image = _mix(stream + _GOLDEN_GAMMA * indices.astype(np.uint64)[:, None])
        bits = _mix(image + _GOLDEN_GAMMA * np.arange(1, n + 1, dtype=np.uint64))
    return torch.from_numpy((bits >> np.uint64(40)).astype(np.float32) / np.float32(1 << 24))


def permutation(seed: int, epoch: int, n_images: int, *more: int) -> NDArray[np.int64]:
    """Return the order of the images in an epoch, determined by seed, epoch and any further numbers."""
    return np.random.default_rng((seed, epoch, *more)).permutation(n_images)


def generator(seed: int, step: int, device: torch.device) -> torch.Generator:
    """Create the random generator of a training step."""
    words = np.random.SeedSequence((seed, step)).generate_state(2, np.uint32)
    return torch.Generator(device).manual_seed(int(words[0]) << 31 ^ int(words[1]))


def _mix(z: NDArray[np.uint64] | np.uint64) -> NDArray[np.uint64]:
    z = np.asarray(z + _GOLDEN_GAMMA)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
