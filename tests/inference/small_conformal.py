"""A judge of three classes, fitted on figures drawn at random, and figures for it to judge."""

from functools import cache

import torch

from likely.base import ModelOutputs
from likely.inference.decision import CalibrationData, ConformalClassifier

K = 3
LOG_PRIOR = torch.tensor([0.6, 0.3, 0.1]).log()


def examined(seed, n, shift=0.0):
    """Figures of n images of K classes, and their labels; `shift` makes the images unlike any class."""
    rng = torch.Generator().manual_seed(seed)
    y = torch.randint(0, K, (n,), generator=rng)
    own = torch.nn.functional.one_hot(y, K)
    log_scores = 3 * torch.randn(n, K, generator=rng) + 4 * own
    statistics = torch.randn(n, K, 4, generator=rng) - 2 * (1 - own[..., None]) + shift
    return ModelOutputs(log_scores, log_scores - 700, statistics), y


@cache
def judge(seed, n_calibration, temperature=1.5):
    held_out, calibration = (
        CalibrationData.from_outputs(*examined(*which), temperature)
        for which in ((seed, 60), (seed + 1, n_calibration))
    )
    return ConformalClassifier.fit(held_out, calibration, LOG_PRIOR, temperature)


@cache
def crossed_judge(seed, n, temperature=1.5):
    """One that learns what is strange from five folds of n images, which calibrate as well."""
    held_out = CalibrationData.from_outputs(*examined(seed, 60), temperature)
    folds = [CalibrationData.from_outputs(*examined(seed + 1 + k, n // 5), temperature) for k in range(5)]
    return ConformalClassifier.fit_cross_conformal(held_out, folds, LOG_PRIOR, temperature)


@cache
def contrasted_judge(seed, n_calibration, temperature=1.5):
    """One to which an image is strange as well if it is as near to every class."""
    held_out, calibration = (
        CalibrationData.from_outputs(*examined(*which), temperature)
        for which in ((seed, 60), (seed + 1, n_calibration))
    )
    return ConformalClassifier.fit(held_out, calibration, LOG_PRIOR, temperature, uses_likelihood_ratio=True)
