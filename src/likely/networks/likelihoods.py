"""Log-probabilities of pixels and vectors under simple, factorised distributions, in nats."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

BIN = 1 / 255  # the distance of two neighboring values of an 8-bit pixel, in units of [0, 1]


def discretized_logistic(x: Tensor, mean: Tensor, log_scale: Tensor) -> Tensor:
    """log P(x) of 8-bit pixels x = v/255: the logistic's mass in v's bin, the outermost bins open (Salimans 2017, eq. 2).

    σ(b) − σ(a) = σ(b) σ(−a) (1 − e^(a−b)), so that no two nearly equal numbers are ever subtracted. All of one shape.
    """
    inverse_scale = torch.exp(-log_scale)
    upper = (x - mean + BIN / 2) * inverse_scale
    lower = upper - BIN * inverse_scale
    log_upper = torch.where(x > 1 - BIN / 2, 0.0, F.logsigmoid(upper))
    log_lower = torch.where(x < BIN / 2, 0.0, F.logsigmoid(-lower))
    inside = (x >= BIN / 2) & (x <= 1 - BIN / 2)
    return log_upper + log_lower + torch.where(inside, torch.log(-torch.expm1(-BIN * inverse_scale)), 0.0)


def normal(x: Tensor, mean: Tensor, log_scale: Tensor) -> Tensor:
    """log N(x; mean, exp(log_scale)²), elementwise."""
    return -0.5 * ((x - mean) * torch.exp(-log_scale)).square() - log_scale - 0.5 * math.log(2 * math.pi)


def normal_divergence(mean: Tensor, log_scale: Tensor, prior_mean: Tensor, prior_log_scale: Tensor) -> Tensor:
    """KL(N(mean, scale²) ‖ N(prior_mean, prior_scale²)), summed over dimensions: (B, d), (B, d), (K, d), (K, d) -> (B, K).

    The sum over dimensions is two matrix products, so that many classes cost no more memory than their answer.
    """
    mean, log_scale = _single(mean), _single(log_scale)
    prior_mean, prior_log_scale = _single(prior_mean), _single(prior_log_scale)
    # Autocast would round both products to bfloat16: of a divergence of hundreds of nats, whole ones.
    with torch.autocast(mean.device.type, enabled=False):
        precision = torch.exp(-2 * prior_log_scale)  # (K, d)
        quadratic = (torch.exp(2 * log_scale) + mean.square()) @ precision.mT
        cross = mean @ (precision * prior_mean).mT
        constant = (0.5 * precision * prior_mean.square() + prior_log_scale).sum(1)  # (K,)
        entropy = (log_scale + 0.5).sum(1, keepdim=True)  # (B, 1)
        return 0.5 * quadratic - cross + constant - entropy


def class_cross_entropy(log_joint: Tensor, y: Tensor, *, smoothing: float) -> Tensor:
    """Cross-entropy of p(c | x) over the labeled images: log p(x, c) (B, K), y (B,) with -1 for unlabeled; 0 without any."""
    labeled = y >= 0
    if not labeled.any():
        return log_joint.new_zeros(())
    return F.cross_entropy(log_joint[labeled], y[labeled], label_smoothing=smoothing)


def _single(x: Tensor) -> Tensor:
    """x in float32, or in float64 if it is that."""
    return x if x.dtype == torch.float64 else x.float()
