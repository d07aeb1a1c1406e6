"""Walks: from one generated image to another in small steps, within a class or from class to class."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor

from likely.base import Latent
from likely.classifier import BATCH_SIZE, Predictor
from likely.exceptions import InvalidValueError
from likely.models import families_with


@dataclass(frozen=True)
class InterpolationPath:
    """The classes that a walk goes through, and how many images lie on the way from each to the next, both ends included."""

    names: tuple[str, ...]
    steps: int = 10

    def __post_init__(self) -> None:
        if len(self.names) < 2:
            raise InvalidValueError(
                f"a walk through {list(self.names)} leads nowhere; two classes or more were expected"
            )
        if self.steps < 2:
            raise InvalidValueError(f"a walk of steps={self.steps} has not even its two ends; 2 or more were expected")

    @classmethod
    def through(cls, names: Sequence[str], most: int = 6, steps: int = 12) -> InterpolationPath:
        """From each class to the next, in at most so many legs; within the class if there is only one."""
        n = min(len(names), most + 1)
        chosen = [names[i * (len(names) - 1) // max(1, n - 1)] for i in range(n)]
        return cls(tuple(chosen if n > 1 else 2 * chosen), steps)


@dataclass(frozen=True, eq=False)
class Segment:
    """A walk from one class to the next: uint8 (steps, C, H, W), or float vectors (steps, D)."""

    start: str
    end: str
    images: NDArray[Any]


class LatentPoint(NamedTuple):
    """z = m + e: the mean of the class, and the noise that makes each image another, (B, d) each."""

    mean: Tensor
    noise: Tensor


@torch.inference_mode()
def interpolate_classes(
    classifier: Predictor, path: InterpolationPath, n: int = 1, *, seed: int = 0, truncation: float = 1.0
) -> tuple[tuple[Segment, ...], ...]:
    """n walks along a route, each with one leg fewer than the route has classes.

    They lead over the images that `Classifier.sample` draws of these classes with the seeds seed, seed + 1, …
    A ValueError if the model has no latent vectors, or names the class nearest to one that it does not know.
    """
    model = classifier.latent
    if model is None:
        raise InvalidValueError(
            f"a walk leads through latent vectors, and {classifier.family!r} has none; families that have: {families_with(Latent)}"
        )
    classes = [torch.full((n,), classifier.index(name), device=classifier.device) for name in path.names]
    generators = [Generator(classifier.device).manual_seed(seed + i) for i in range(len(classes))]
    stops = [latent_points(model, c, rng, truncation) for c, rng in zip(classes, generators, strict=True)]
    images = [_images(classifier, model, latent_path(a, b, path.steps)) for a, b in pairwise(stops)]
    legs = list(zip(pairwise(path.names), images, strict=True))
    return tuple(tuple(Segment(*ends, drawn[:, i]) for ends, drawn in legs) for i in range(n))


def frames(walk: Sequence[Segment]) -> NDArray[Any]:
    """A whole walk (N, C, H, W), passing once through each of its classes: what a film is made of."""
    return np.concatenate([walk[0].images, *(leg.images[1:] for leg in walk[1:])])


def latent_path(start: LatentPoint, end: LatentPoint, steps: int) -> Tensor:
    """z(t) = (1 − t) m_a + t m_b + cos(πt/2) e_a + sin(πt/2) e_b for t from 0 to 1: (steps, B, d).

    The means are joined by a straight line, the noise by a great circle (Shoemake 1985, Animating Rotation with Quaternion
    Curves; in latent spaces White 2016, Sampling Generative Networks). Independent e_a and e_b are all but at right angles,
    and the variance on the way is cos² Var e_a + sin² Var e_b, a mean of the two ends'. On a straight line it would fall
    to half of that, where no image comes from.
    """
    t = torch.linspace(0, 1, steps, dtype=start.mean.dtype, device=start.mean.device)[:, None, None]
    angle = t * math.pi / 2
    return (1 - t) * start.mean + t * end.mean + angle.cos() * start.noise + angle.sin() * end.noise


def latent_points(model: Latent, c: Tensor, rng: Generator, truncation: float = 1.0) -> LatentPoint:
    """Where one image of each class in c, (B,), comes from."""
    mean = model.latent(c)
    return LatentPoint(mean, model.latent(c, rng=rng, truncation=truncation) - mean)


def _images(classifier: Predictor, model: Latent, z: Tensor) -> NDArray[Any]:
    """Latent vectors (steps, B, d) -> images (steps, B, ...), a block at a time."""
    blocks = torch.split(z.flatten(0, 1), BATCH_SIZE)
    images = np.concatenate([classifier.pixels(model.decode(block)) for block in blocks])
    return images.reshape(*z.shape[:2], *images.shape[1:])
