"""Log-probabilities of pixels and vectors under factorized distributions, in nats."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

BIN = 1 / 255  # distance of adjacent values of an 8-bit pixel in [0, 1]


def discretized_logistic(x: Tensor, mean: Tensor, log_scale: Tensor) -> Tensor:
    """Return log P(x) of 8-bit pixels x = v/255: the logistic mass in the bin of v, outer bins open (Salimans 2017, eq. 2).

    All tensors have the same shape. σ(b) − σ(a) = σ(b) σ(−a) (1 − e^(a−b)) avoids cancellation.
    """
    inverse_scale = torch.exp(-log_scale)
    upper = (x - mean + BIN / 2) * inverse_scale
    lower = upper - BIN * inverse_scale
    log_upper = torch.where(x > 1 - BIN / 2, 0.0, F.logsigmoid(upper))
    log_lower = torch.where(x < BIN / 2, 0.0, F.logsigmoid(-lower))
    inside = (x >= BIN / 2) & (x <= 1 - BIN / 2)
    return log_upper + log_lower + torch.where(inside, torch.log(-torch.expm1(-BIN * inverse_scale)), 0.0)


def normal(x: Tensor, mean: Tensor, log_scale: Tensor) -> Tensor:
    """Return log N(x; mean, exp(log_scale)²) elementwise, in nats."""
    return -0.5 * ((x - mean) * torch.exp(-log_scale)).square() - log_scale - 0.5 * math.log(2 * math.pi)


def normal_divergence(mean: Tensor, log_scale: Tensor, prior_mean: Tensor, prior_log_scale: Tensor) -> Tensor:
    """Return KL(N(mean, scale²) ‖ N(prior_mean, prior_scale²)) in nats: (B, d), (B, d), (K, d), (K, d) -> (B, K).

    The sum over dimensions is computed by two matrix products, without a tensor of shape (B, K, d).
    """
    mean, log_scale = _to_float32(mean), _to_float32(log_scale)
    prior_mean, prior_log_scale = _to_float32(prior_mean), _to_float32(prior_log_scale)
    # Autocast would round both products to bfloat16, an error of whole nats in a divergence of hundreds.
    with torch.autocast(mean.device.type, enabled=False):
        precision = torch.exp(-2 * prior_log_scale)  # (K, d)
        quadratic = (torch.exp(2 * log_scale) + mean.square()) @ precision.mT
        cross = mean @ (precision * prior_mean).mT
        constant = (0.5 * precision * prior_mean.square() + prior_log_scale).sum(1)  # (K,)
        entropy = (log_scale + 0.5).sum(1, keepdim=True)  # (B, 1)
        return 0.5 * quadratic - cross + constant - entropy


def class_cross_entropy(log_joint: Tensor, y: Tensor, *, smoothing: float) -> Tensor:
    """Return the mean cross-entropy of p(c | x) over labeled images from log p(x, c) (B, K); y (B,), -1: unlabeled."""
    labeled = y >= 0
    if not labeled.any():
        return log_joint.new_zeros(())
    return F.cross_entropy(log_joint[labeled], y[labeled], label_smoothing=smoothing)


def _to_float32(x: Tensor) -> Tensor:
    """Convert to float32 unless x is float64."""
    return x if x.dtype == torch.float64 else x.float()
