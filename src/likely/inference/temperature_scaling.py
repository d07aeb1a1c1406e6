"""Temperature: log-likelihoods are sums over many dimensions that are not independent, so differences of theirs boast."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from likely.inference.posterior import log_posterior

MAX_LOG_TEMPERATURE = 9.2  # |log T| beyond which no temperature is looked for: a factor of ten thousand
PSEUDO_COUNT = 2.0  # in the T expected before any image is seen: a few images, all of them right, would make T nought
TOLERANCE = 1e-9  # in log T
BLOCK_SIZE = 1 << 20  # scores: memory of more is not kept from one look at them to the next


def nll(log_scores: Tensor, y: Tensor, log_prior: Tensor, temperature: float = 1.0) -> float:
    """Mean of −log p(y | x) over images in the class mix π: (B, K), (B,), (K,) -> nats an image."""
    own = log_posterior(log_scores, log_prior, temperature).gather(1, y[:, None])[:, 0]
    return -(weights(y, log_prior) * own).mean().item()


def weights(y: Tensor, log_prior: Tensor) -> Tensor:
    """w_i = π_y / (share of y among the images), (N,), of mean 1 where every class is there.

    Held-out images are a sample by class, at most so many of each: the weights make them speak for the mix that π names.
    """
    share = torch.bincount(y, minlength=len(log_prior)).double() / max(1, len(y))
    return (log_prior.double().exp() / share)[y]


def fit_temperature(log_scores: Tensor, y: Tensor, log_prior: Tensor, prior_temperature: float = 1.0) -> float:
    """T that minimizes N · nll + TRUST · (T₀/T + log T) on N held-out images (Guo 2017, section 4.2). Without images it is
    T₀, what is `expected`.

    All of it is convex in 1/T, so its slope changes sign once, and between there and here lies T. A T above T₀ costs far
    less than one below: that a sum over dimensions boasts is expected.
    """
    from scipy.optimize import brentq  # which takes long to load, and who is only answered needs no temperature fitted

    if not len(y):
        return prior_temperature
    weight = weights(y, log_prior)

    def slope(log_inverse: float) -> float:
        pull = PSEUDO_COUNT * (prior_temperature - math.exp(-log_inverse)) / len(y)
        return _slope(log_scores, y, weight, log_prior, math.exp(log_inverse)) + pull

    for end, beyond in (
        (-MAX_LOG_TEMPERATURE, slope(-MAX_LOG_TEMPERATURE) >= 0),
        (MAX_LOG_TEMPERATURE, slope(MAX_LOG_TEMPERATURE) <= 0),
    ):
        if beyond:
            return math.exp(-end)
    return math.exp(-brentq(slope, -MAX_LOG_TEMPERATURE, MAX_LOG_TEMPERATURE, xtol=TOLERANCE))


def _slope(log_scores: Tensor, y: Tensor, weight: Tensor, log_prior: Tensor, inverse_temperature: float) -> float:
    """d nll / d(1/T) = weighted mean of E_{c ~ p(c|x)} score_c − score_y."""
    total, n = 0.0, max(1, BLOCK_SIZE // len(log_prior))
    for block, own, each in zip(*(torch.split(each, n) for each in (log_scores, y, weight)), strict=True):
        scores = block.double()
        p = log_posterior(scores, log_prior, 1 / inverse_temperature).exp_()
        gap = torch.linalg.vecdot(p, scores) - scores.gather(1, own[:, None])[:, 0]
        total += (each * gap).sum().item()
    return total / len(y)
