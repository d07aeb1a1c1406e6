"""Temperature scaling (Guo 2017, On Calibration of Modern Neural Networks, section 4.2).

Log-likelihoods sum over hundreds of correlated dimensions, so posteriors computed from them are overconfident; a
temperature T > 1 corrects that.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from likely.inference.posterior import log_posterior


@dataclass(frozen=True)
class TemperatureOptions:
    """Constants of the fit.

    `max_log_temperature`: bound of |log T|, a factor of ten thousand. `pseudo_count`: images by which the expected
    temperature counts; without it a few images that are all classified correctly would give T = 0. `tolerance`: of log
    T. `block_size`: scores that are processed at a time, to bound memory.
    """

    max_log_temperature: float = 9.2
    pseudo_count: float = 2.0
    tolerance: float = 1e-9
    block_size: int = 1 << 20


DEFAULT_OPTIONS = TemperatureOptions()


def nll(log_scores: Tensor, y: Tensor, log_prior: Tensor, temperature: float = 1.0) -> float:
    """Return the mean of −log p(y | x), weighted to the class prior: (B, K), (B,), (K,) -> nats per image."""
    log_p = log_posterior(log_scores, log_prior, temperature).gather(1, y[:, None])[:, 0]
    return -(weights(y, log_prior) * log_p).mean().item()


def weights(y: Tensor, log_prior: Tensor) -> Tensor:
    """Return importance weights w_i = π_y / (fraction of y among the images), (N,), of mean 1 if every class occurs.

    Held-out images are sampled with a maximum per class; the weights make them represent the class prior.
    """
    fraction = torch.bincount(y, minlength=len(log_prior)).double() / max(1, len(y))
    return (log_prior.double().exp() / fraction)[y]


def fit_temperature(
    log_scores: Tensor,
    y: Tensor,
    log_prior: Tensor,
    prior_temperature: float = 1.0,
    options: TemperatureOptions = DEFAULT_OPTIONS,
) -> float:
    """Return the T that minimizes N · nll + pseudo_count · (T₀ / T + log T) on N held-out images; T₀ without images.

    T₀ is `prior_temperature`. The objective is convex in 1/T, so its slope changes sign once. A T above T₀ costs far
    less than one below it, because overconfidence is expected.
    """
    from scipy.optimize import brentq  # slow to import and not needed for prediction

    if not len(y):
        return prior_temperature
    w = weights(y, log_prior)

    def slope(log_inverse: float) -> float:
        pull = options.pseudo_count * (prior_temperature - math.exp(-log_inverse)) / len(y)
        return _nll_slope(log_scores, (y, w), log_prior, math.exp(log_inverse), options.block_size) + pull

    end = options.max_log_temperature
    if slope(-end) >= 0:
        return math.exp(end)
    if slope(end) <= 0:
        return math.exp(-end)
    return math.exp(-brentq(slope, -end, end, xtol=options.tolerance))


def _nll_slope(
    log_scores: Tensor, labeled: tuple[Tensor, Tensor], log_prior: Tensor, inverse_temperature: float, block_size: int
) -> float:
    """Return d nll / d(1/T), the weighted mean of E_{c ~ p(c|x)} score_c − score_y; `labeled` are labels and weights."""
    total, n = 0.0, max(1, block_size // len(log_prior))
    for block, y, w in zip(*(torch.split(each, n) for each in (log_scores, *labeled)), strict=True):
        scores = block.double()
        p = log_posterior(scores, log_prior, 1 / inverse_temperature).exp_()
        difference = torch.linalg.vecdot(p, scores) - scores.gather(1, y[:, None])[:, 0]
        total += (w * difference).sum().item()
    return total / len(log_scores)
