"""Latent interpolation: walks from one generated image to another, within a class or from class to class."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor

from likely.base import Latent
from likely.classifier import BATCH_SIZE, Predictor
from likely.classifier.sampling import latent_model, to_pixels
from likely.exceptions import InvalidValueError
from likely.models import families_with


@dataclass(frozen=True)
class InterpolationPath:
    """Classes of a walk, and the number of images from each to the next, both ends included."""

    names: tuple[str, ...]
    steps: int = 10

    def __post_init__(self) -> None:
        if len(self.names) < 2:
            raise InvalidValueError(f"a walk through {list(self.names)}; expected at least two classes")
        if self.steps < 2:
            raise InvalidValueError(f"steps={self.steps}; expected at least 2, the two ends")

    @classmethod
    def through(cls, names: Sequence[str], max_segments: int = 6, steps: int = 12) -> InterpolationPath:
        """Return a path through evenly spaced classes, with at most `max_segments` segments; within a single class."""
        n = min(len(names), max_segments + 1)
        selected = [names[i * (len(names) - 1) // max(1, n - 1)] for i in range(n)]
        return cls(tuple(selected if n > 1 else 2 * selected), steps)


@dataclass(frozen=True, eq=False)
class Segment:
    """Images from one class to the next: uint8 (steps, C, H, W), or float vectors (steps, D)."""

    start: str
    end: str
    images: NDArray[Any]


class LatentPoint(NamedTuple):
    """A latent code z = m + e: the class mean and the noise of each image, (B, d) each."""

    mean: Tensor
    noise: Tensor

    @classmethod
    def sample(cls, model: Latent, c: Tensor, rng: Generator, truncation: float = 1.0) -> Self:
        """Sample a latent code for each class in c, (B,)."""
        mean = model.latent(c)
        return cls(mean, model.latent(c, rng=rng, truncation=truncation) - mean)

    def path(self, end: LatentPoint, steps: int) -> Tensor:
        """z(t) = (1 − t) m_a + t m_b + cos(πt/2) e_a + sin(πt/2) e_b for t from 0 to 1: (steps, B, d).

        Linear interpolation of the means, spherical interpolation of the noise (Shoemake 1985, Animating Rotation with
        Quaternion Curves; in latent spaces White 2016, Sampling Generative Networks). Independent e_a and e_b are almost
        orthogonal, so the variance is cos² Var e_a + sin² Var e_b, between those of the ends. Linear interpolation would
        halve it, where the prior has no mass.
        """
        t = torch.linspace(0, 1, steps, dtype=self.mean.dtype, device=self.mean.device)[:, None, None]
        angle = t * math.pi / 2
        return (1 - t) * self.mean + t * end.mean + angle.cos() * self.noise + angle.sin() * end.noise


@torch.inference_mode()
def interpolate_classes(
    classifier: Predictor, path: InterpolationPath, n: int = 1, *, seed: int = 0, truncation: float = 1.0
) -> tuple[tuple[Segment, ...], ...]:
    """Return n walks along a path, each with a segment from every class to the next.

    They pass through the images that `sample` generates of these classes with the seeds seed, seed + 1, …
    Raise InvalidValueError for a model without latent codes or for an unknown class.
    """
    model = latent_model(classifier)
    if model is None:
        raise InvalidValueError(
            f"{classifier.family!r} has no latent codes to interpolate; these families do: {families_with(Latent)}"
        )
    classes = [torch.full((n,), classifier.index(name), device=classifier.device) for name in path.names]
    generators = [Generator(classifier.device).manual_seed(seed + i) for i in range(len(classes))]
    points = [LatentPoint.sample(model, c, rng, truncation) for c, rng in zip(classes, generators, strict=True)]
    images = [_images(classifier, model, a.path(b, path.steps)) for a, b in pairwise(points)]
    segments = list(zip(pairwise(path.names), images, strict=True))
    return tuple(tuple(Segment(*ends, batch[:, i]) for ends, batch in segments) for i in range(n))


def frames(walk: Sequence[Segment]) -> NDArray[Any]:
    """Return all images of a walk, (N, C, H, W), without repeating the ends of its segments."""
    return np.concatenate([walk[0].images, *(segment.images[1:] for segment in walk[1:])])


def _images(classifier: Predictor, model: Latent, z: Tensor) -> NDArray[Any]:
    """Decode latent codes (steps, B, d) to images (steps, B, ...), in batches."""
    blocks = torch.split(z.flatten(0, 1), BATCH_SIZE)
    images = np.concatenate([to_pixels(model.decode(block), classifier) for block in blocks])
    return images.reshape(*z.shape[:2], *images.shape[1:])
