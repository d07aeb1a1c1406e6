"""Pixel attribution of the log odds of two classes: integrated gradients and gradient magnitude."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class AttributionOptions:
    """Constants of integrated gradients.

    `n_steps`: quadrature points; for the log odds of Gaussians two would be exact. `batch_size`: images per pass, counting
    every quadrature point.
    """

    n_steps: int = 32
    batch_size: int = 256


DEFAULT_OPTIONS = AttributionOptions()


def integrated_gradients(
    log_scores: Callable[[Tensor], Tensor], x: Tensor, a: Tensor, b: Tensor, baseline: Tensor
) -> Tensor:
    """Return e_i = (x_i − o_i) ∫₀¹ ∂_i F(o + t (x − o)) dt with F = log_scores_a − log_scores_b, (B, ...), in nats.

    Integrated gradients (Sundararajan 2017, Axiomatic Attribution for Deep Networks, eq. 1) by Gauss-Legendre quadrature. The
    attributions sum to F(x) − F(o), where the `baseline` o (...) is an image without evidence for any class. For Gaussians with
    diagonal covariance, e_i = log N(x_i) − log N(o_i) under class a minus the same under class b, exactly.
    """
    from captum.attr import IntegratedGradients  # takes seconds to import

    def log_odds(inputs: Tensor, a: Tensor, b: Tensor) -> Tensor:
        return _log_odds(log_scores(inputs), a, b)

    found: Tensor = IntegratedGradients(log_odds).attribute(
        x,
        baselines=baseline[None].to(x).expand_as(x),
        additional_forward_args=(a, b),
        n_steps=DEFAULT_OPTIONS.n_steps,
        method="gausslegendre",
        internal_batch_size=DEFAULT_OPTIONS.batch_size,
    )
    return found.detach()


def gradient_magnitude(log_scores: Callable[[Tensor], Tensor], x: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """Return |∂_i (log_scores_a − log_scores_b)|, the saliency of each pixel (Simonyan 2014): (B, ...) -> (B, ...)."""
    x = x.detach().requires_grad_()
    with torch.enable_grad():
        (gradient,) = torch.autograd.grad(_log_odds(log_scores(x), a, b).sum(), x)
    return gradient.abs()


def _log_odds(log_scores: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """Return log_scores_a − log_scores_b: (B, K), (B,), (B,) -> (B,)."""
    return (log_scores.gather(1, a[:, None]) - log_scores.gather(1, b[:, None]))[:, 0]
