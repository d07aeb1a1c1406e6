"""Coarse answers from fine ones: p(group) = Σ p(class) over the classes of a group, which their names tell.

"fruit/apple/gala" lies in "fruit" and, there, in "fruit/apple".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from likely.inference.posterior import grouped_logsumexp

SEPARATOR = "/"


@dataclass(frozen=True)
class Level:
    """The groups of one depth, and the group of each class, (K,)."""

    names: tuple[str, ...]
    group: Tensor

    def log_posterior(self, log_posterior: Tensor) -> Tensor:
        """log p(group | x) from log p(c | x): (B, K) -> (B, G)."""
        return grouped_logsumexp(log_posterior.mT, self.group, len(self.names)).mT


def levels(labels: Sequence[str]) -> tuple[Level, ...]:
    """From the coarsest groups to the finest, whichever hold several classes and are several; a class that is named less
    deeply stands for itself.

    >>> [level.names for level in levels(["fruit/apple/gala", "fruit/apple/granny", "fruit/pear", "milk"])]
    [('fruit', 'milk'), ('fruit/apple', 'fruit/pear', 'milk')]
    """
    ways = [label.split(SEPARATOR) for label in labels]
    found: list[Level] = []
    for depth in range(1, max(map(len, ways), default=0)):
        of_class = [SEPARATOR.join(way[:depth]) for way in ways]
        names = tuple(dict.fromkeys(of_class))
        if 1 < len(names) < len(labels):
            place = {name: i for i, name in enumerate(names)}
            same = bool(found) and len(found[-1].names) == len(names)  # groups that only have longer names here
            found[-1 if same else len(found) :] = [Level(names, torch.tensor([place[name] for name in of_class]))]
    return tuple(found)
