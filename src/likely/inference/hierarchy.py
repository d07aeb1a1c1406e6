"""Hierarchy of classes in their names: p(group | x) = Σ p(class | x) over the classes of a group.

"fruit/apple/gala" belongs to the groups "fruit" and "fruit/apple".
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
    """Groups of one depth, G names, and the group index of each class, (K,)."""

    names: tuple[str, ...]
    group: Tensor

    def log_posterior(self, log_posterior: Tensor) -> Tensor:
        """Return log p(group | x) from log p(c | x): (B, K) -> (B, G)."""
        return grouped_logsumexp(log_posterior.mT, self.group, len(self.names)).mT


def levels(labels: Sequence[str]) -> tuple[Level, ...]:
    """Return the levels from the coarsest to the finest, without those that have a single group or only single classes.

    A class with a shorter name is a group of its own at deeper levels.

    >>> [level.names for level in levels(["fruit/apple/gala", "fruit/apple/granny", "fruit/pear", "milk"])]
    [('fruit', 'milk'), ('fruit/apple', 'fruit/pear', 'milk')]
    """
    paths = [label.split(SEPARATOR) for label in labels]
    found: list[Level] = []
    for depth in range(1, max(map(len, paths), default=0)):
        of_class = [SEPARATOR.join(path[:depth]) for path in paths]
        names = tuple(dict.fromkeys(of_class))
        if 1 < len(names) < len(labels):
            index = {name: i for i, name in enumerate(names)}
            is_same = bool(found) and len(found[-1].names) == len(names)  # equal groups under longer names
            found[-1 if is_same else len(found) :] = [Level(names, torch.tensor([index[name] for name in of_class]))]
    return tuple(found)
