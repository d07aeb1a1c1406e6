"""Which pixels speak for one class rather than another: how the difference of two classes' scores is made up of pixels."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

N_STEPS = 32  # of the integral; for a difference of Gaussians two would be exact
BATCH_SIZE = 256  # images in one pass, every step of each counted


def integrated_gradients(
    log_scores: Callable[[Tensor], Tensor], x: Tensor, a: Tensor, b: Tensor, baseline: Tensor
) -> Tensor:
    """e_i = (x_i − o_i) ∫₀¹ ∂_i F(o + t (x − o)) dt with F = log_scores_a − log_scores_b: (B, ...), (B,) -> (B, ...) nats.

    Integrated gradients (Sundararajan 2017, Axiomatic Attribution for Deep Networks, eq. 1), by Gauss and Legendre's rule.
    All pixels together come to F(x) − F(o), o being the `baseline` (...), an image that speaks for no class. Of a Gaussian
    with variances alone, pixel i has exactly log N(x_i) − log N(o_i) of class a less that of class b.
    """
    from captum.attr import IntegratedGradients  # seconds that nobody else need wait for

    def difference(inputs: Tensor, a: Tensor, b: Tensor) -> Tensor:
        return _difference(log_scores(inputs), a, b)

    found: Tensor = IntegratedGradients(difference).attribute(
        x,
        baselines=baseline[None].to(x).expand_as(x),
        additional_forward_args=(a, b),
        n_steps=N_STEPS,
        method="gausslegendre",
        internal_batch_size=BATCH_SIZE,
    )
    return found.detach()


def gradient_magnitude(log_scores: Callable[[Tensor], Tensor], x: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """|∂_i (log_scores_a − log_scores_b)|, what a small change of a pixel does (Simonyan 2014): (B, ...) -> (B, ...)."""
    x = x.detach().requires_grad_()
    with torch.enable_grad():
        (slope,) = torch.autograd.grad(_difference(log_scores(x), a, b).sum(), x)
    return slope.abs()


def _difference(log_scores: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """The lead of a over b: (B, K), (B,), (B,) -> (B,)."""
    return (log_scores.gather(1, a[:, None]) - log_scores.gather(1, b[:, None]))[:, 0]
