"""Temperature: log-likelihoods are sums over many dimensions that are not independent, so differences of theirs boast."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from likely.inference.posterior import log_posterior

WIDEST = 9.2  # |log T| beyond which no temperature is looked for: a factor of ten thousand
TRUST = 2.0  # in T = 1 before any image is seen: a few images, all of them right, would make T nought
N_HALVINGS = 60


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


def fit_temperature(log_scores: Tensor, y: Tensor, log_prior: Tensor) -> float:
    """T that minimises N · nll + TRUST · (1/T + log T) on N held-out images (Guo 2017, section 4.2). 1 without images.

    All of it is convex in 1/T, so its slope changes sign once, and bisection on log T finds where. A T above 1 costs far
    less than one below: that a sum over dimensions boasts is expected.
    """
    low, high = -WIDEST, WIDEST  # of log 1/T
    for _ in range(N_HALVINGS if len(y) else 0):
        middle = (low + high) / 2
        pull = TRUST * (1 - math.exp(-middle)) / len(y)
        if _slope(log_scores, y, log_prior, math.exp(middle)) + pull < 0:
            low = middle
        else:
            high = middle
    return math.exp(-(low + high) / 2)


def _slope(log_scores: Tensor, y: Tensor, log_prior: Tensor, inverse_temperature: float) -> float:
    """d nll / d(1/T) = mean of E_{c ~ p(c|x)} score_c − score_y."""
    scores = log_scores.double()
    p = log_posterior(scores, log_prior, 1 / inverse_temperature).exp()
    gap = (p * scores).sum(1) - scores.gather(1, y[:, None])[:, 0]
    return (weights(y, log_prior) * gap).mean().item()
