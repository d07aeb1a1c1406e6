"""Conformal classifiers of three classes, fitted to random model outputs, and further outputs."""

from functools import cache

import torch

from likely.base import ModelOutputs
from likely.inference.calibration_data import CalibrationData
from likely.inference.decision import DecisionRule

K = 3
LOG_PRIOR = torch.tensor([0.6, 0.3, 0.1]).log()


def model_outputs(seed, n, shift=0.0):
    """Random outputs for n images of K classes, and labels; `shift` moves the images away from every class."""
    rng = torch.Generator().manual_seed(seed)
    y = torch.randint(0, K, (n,), generator=rng)
    own = torch.nn.functional.one_hot(y, K)
    log_scores = 3 * torch.randn(n, K, generator=rng) + 4 * own
    statistics = torch.randn(n, K, 4, generator=rng) - 2 * (1 - own[..., None]) + shift
    return ModelOutputs(log_scores, log_scores - 700, statistics), y


@cache
def split_conformal_rule(seed, n_calibration, temperature=1.5):
    held_out, calibration = (
        CalibrationData.from_outputs(*model_outputs(*which), temperature)
        for which in ((seed, 60), (seed + 1, n_calibration))
    )
    return DecisionRule.fit(held_out, calibration, LOG_PRIOR, temperature)


@cache
def cross_conformal_rule(seed, n, temperature=1.5):
    """A classifier whose nonconformity score is fitted to the calibration images, in five folds of n images in total."""
    folds = [CalibrationData.from_outputs(*model_outputs(seed + 1 + k, n // 5), temperature) for k in range(5)]
    return DecisionRule.fit_cross_conformal(folds, LOG_PRIOR, temperature)
