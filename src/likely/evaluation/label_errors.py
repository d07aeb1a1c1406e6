"""Likely mislabeled images, by confident learning.

Northcutt 2021, Confident Learning: Estimating Uncertainty in Dataset Labels, section 3.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from likely.evaluation.metrics import Floats, Ints


@dataclass(frozen=True)
class LabelIssue:
    """An image whose label is in doubt: `margin` is p(given) − p(suggested), the lower the more certain the mistake."""

    index: int
    label: int
    suggested: int
    margin: float


def find_label_issues(posterior: Floats, labels: Ints) -> tuple[LabelIssue, ...]:
    """The images that another class claims with its usual confidence, and more than their own does; the surest first.

    `posterior` is (N, K) probabilities from models that did not train on the image (out of fold: a model learns wrong
    labels too); `labels` is (N,), -1 for unlabeled, which are never suspect.
    """
    rows = np.flatnonzero(labels >= 0)
    p, given = np.asarray(posterior, dtype=np.float64)[rows], labels[rows]
    own = p[np.arange(len(rows)), given]
    confident = np.where(p >= _thresholds(p, given), p, -np.inf)  # (n, K)
    confident[np.arange(len(rows)), given] = -np.inf
    suggested = confident.argmax(axis=1)
    margin = own - confident.max(axis=1)  # +inf where no class claims the image
    order = np.argsort(margin, kind="stable")[: np.count_nonzero(margin < 0)]
    return tuple(LabelIssue(int(rows[i]), int(given[i]), int(suggested[i]), float(margin[i])) for i in order)


def _thresholds(p: Floats, given: Ints) -> Floats:
    """t_k = mean p(k | x) over the images labeled k, (K,); +inf for a class without images, which then claims none."""
    n_classes = p.shape[1]
    n = np.bincount(given, minlength=n_classes)
    total = np.bincount(given, p[np.arange(len(given)), given], minlength=n_classes)
    thresholds: Floats = np.divide(total, n, out=np.full(n_classes, np.inf), where=n > 0)
    return thresholds
