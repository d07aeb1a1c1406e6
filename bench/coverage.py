"""Coverage: false alarms of each class, with their upper bounds."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from likely.classifier import Predictor
from likely.data.dataset import LabeledImages
from likely.evaluation.metrics import beta_binomial_bound

ALPHAS = (0.05, 0.1)


def alarms(
    classifier: Predictor, labeled: LabeledImages, alphas: Sequence[float] = ALPHAS
) -> dict[str, dict[str, list[int]]]:
    """Count p-values of the true class of at most alpha, for each alpha, with the 95% bound of the beta-binomial.

    A split-conformal rule with n_c calibration images raises BetaBinomial(n; k, n_c + 1 − k) false alarms among n images,
    k = ⌊alpha (n_c + 1)⌋; the level is divided among all classes and alphas (Bonferroni).
    """
    K = len(classifier.labels)
    n = np.bincount(labeled.labels, minlength=K)
    n_calibration = np.bincount(classifier.decision_rule.typicality.labels.numpy(), minlength=K)
    level = 1 - 0.05 / (K * len(alphas))
    found = {}
    for alpha in alphas:
        p = classifier.conformal_output(labeled.images, alpha=alpha).p_values.numpy()[
            np.arange(len(labeled)), labeled.labels
        ]
        bounds = [beta_binomial_bound(int(a), int(b), alpha, level) for a, b in zip(n, n_calibration, strict=True)]
        raised = np.bincount(labeled.labels[p <= alpha], minlength=K).tolist()
        found[str(alpha)] = {"alarms": raised, "bound": bounds, "n": n.tolist()}
    return found


def n_above(found: dict[str, dict[str, list[int]]]) -> int:
    """Count the classes, over all alphas, with more false alarms than their bound."""
    return sum(a > b for each in found.values() for a, b in zip(each["alarms"], each["bound"], strict=True))
