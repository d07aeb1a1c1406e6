"""Label errors, by confident learning.

Northcutt 2021, Confident Learning: Estimating Uncertainty in Dataset Labels, section 3.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from likely.evaluation.metrics import Floats, Ints


@dataclass(frozen=True)
class LabelIssue:
    """A possible label error: `margin` is p(label) − p(suggested), lower for more certain errors."""

    index: int
    label: int
    suggested: int
    margin: float


def find_label_issues(posterior: Floats, labels: Ints) -> tuple[LabelIssue, ...]:
    """Return possible label errors, the most certain first.

    An image is one if another class has at least its typical confidence and more than the label. `posterior` is (N, K)
    probabilities from models that were not trained on the image, because models learn wrong labels too; `labels` is (N,),
    -1 for unlabeled images, which are ignored.
    """
    rows = np.flatnonzero(labels >= 0)
    p, label = np.asarray(posterior, dtype=np.float64)[rows], labels[rows]
    own = p[np.arange(len(rows)), label]
    confident = np.where(p >= _thresholds(p, label), p, -np.inf)  # (n, K)
    confident[np.arange(len(rows)), label] = -np.inf
    suggested = confident.argmax(axis=1)
    margin = own - confident.max(axis=1)  # +inf where no other class is confident
    order = np.argsort(margin, kind="stable")[: np.count_nonzero(margin < 0)]
    return tuple(LabelIssue(int(rows[i]), int(label[i]), int(suggested[i]), float(margin[i])) for i in order)


def _thresholds(p: Floats, label: Ints) -> Floats:
    """Return t_k = mean p(k | x) over the images labeled k, (K,); +inf for a class without images."""
    n_classes = p.shape[1]
    n = np.bincount(label, minlength=n_classes)
    total = np.bincount(label, p[np.arange(len(label)), label], minlength=n_classes)
    thresholds: Floats = np.divide(total, n, out=np.full(n_classes, np.inf), where=n > 0)
    return thresholds
