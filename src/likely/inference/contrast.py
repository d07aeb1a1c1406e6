"""Contrast: whether an image is nearer to a class than to the others, as far as the class's own images are.

What differs from image to image whatever the class, the light and the shop, moves an image away from every class alike. It goes
when the class's likelihood is divided by that of all classes in the mean, a background (Ren 2019, Likelihood Ratios for
Out-of-Distribution Detection). Of Gaussians of one covariance that leaves what is linear in x.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from likely.inference.strangeness import OwnTraits, Strangeness, Traits

RIVALS = "n_rivals"


def contrasts(log_scores: Tensor, n_rivals: int) -> Tensor:
    """log p(x | c) − (1 / n) Σ_c' log p(x | c') over the first n classes c': (N, K) -> (N, K) nats."""
    return log_scores - log_scores[:, :n_rivals].mean(1, keepdim=True)


@dataclass(frozen=True)
class Contrast:
    """How strange the contrast of an image with each class is. Classes that came later are nobody's rivals: what was
    calibrated before them holds on."""

    strangeness: Strangeness
    n_rivals: int

    @classmethod
    def fit(cls, trained: OwnTraits | None, held_out: OwnTraits, K: int) -> Contrast:
        """From contrasts (N, 1) of images with their own classes (N,)."""
        return cls(Strangeness.fit(trained, held_out, K), K)

    def __call__(self, log_scores: Tensor) -> Tensor:
        """(N, K) -> (N, K)."""
        by_class = contrasts(log_scores, self.n_rivals)[..., None]
        return self.strangeness(Traits(by_class.new_zeros(len(by_class), 0), by_class))

    def compared(self, contrast: Tensor, y: Tensor) -> Tensor:
        """Of contrasts (N, 1) with the classes y (N,): (N,)."""
        return self.strangeness.compared(contrast, y)

    def of_one_class_more(self, log_scores: Tensor) -> tuple[Contrast, Tensor]:
        """With a class besides, the last, from scores (N, K) of a few of its images; and how strange each of these is, (N,)."""
        strangeness, strange = self.strangeness.of_one_class_more(contrasts(log_scores, self.n_rivals)[:, -1:])
        return Contrast(strangeness, self.n_rivals), strange

    def tensors(self) -> dict[str, Tensor]:
        """By name, for a checkpoint."""
        of_strangeness = {f.name: getattr(self.strangeness, f.name) for f in fields(self.strangeness)}
        return of_strangeness | {RIVALS: torch.tensor(self.n_rivals)}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> Contrast:
        """What `tensors` wrote."""
        of_strangeness = {name: tensor for name, tensor in tensors.items() if name != RIVALS}
        return cls(Strangeness(**of_strangeness), int(tensors[RIVALS]))
