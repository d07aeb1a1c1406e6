"""The adversarial losses, on one number an image: r(x), larger for what is more real.

Of cross-entropy alone r(x) is log p(real | x) / p(made | x), and its logistic a probability.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from likely.networks.blocks import uniform

GRADIENT_PENALTY_WEIGHT = 10.0  # of the gradient penalty (Gulrajani 2017)


@dataclass(frozen=True)
class AdversarialLoss:
    """What a discriminator makes of r of real and of made images, and what a generator makes of it: (B,) -> scalar each."""

    real: Callable[[Tensor], Tensor]
    fake: Callable[[Tensor], Tensor]
    generator: Callable[[Tensor], Tensor]


ADVERSARIAL = {
    # Cross-entropy, the generator's not saturating (Goodfellow 2014, section 3).
    "bce": AdversarialLoss(
        lambda r: F.softplus(-r).mean(), lambda r: F.softplus(r).mean(), lambda r: F.softplus(-r).mean()
    ),
    # Lim 2017, Geometric GAN, eq. 5 to 7.
    "hinge": AdversarialLoss(lambda r: F.relu(1 - r).mean(), lambda r: F.relu(1 + r).mean(), lambda r: -r.mean()),
    # Arjovsky 2017, Wasserstein GAN, with `slope_penalty` in place of clipped weights.
    "wgan-gp": AdversarialLoss(lambda r: -r.mean(), lambda r: r.mean(), lambda r: -r.mean()),
}


def gradient_penalty(critic: Callable[[Tensor], Tensor], real: Tensor, made: Tensor, rng: Generator) -> Tensor:
    """10 E (‖∇r(x̂)‖ − 1)², x̂ anywhere between a real and a made image (Gulrajani 2017, eq. 3)."""
    n = min(len(real), len(made))
    real, made = real[:n], made[:n]
    share = uniform((n, *[1] * (real.ndim - 1)), real, rng)
    between = (share * real + (1 - share) * made).detach().requires_grad_()
    # In float32: a slope of bfloat16 numbers is too rough to be held to 1.
    with torch.autocast(real.device.type, enabled=False):
        (slope,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
    penalty: Tensor = GRADIENT_PENALTY_WEIGHT * (slope.flatten(1).norm(dim=1) - 1).square().mean()
    return penalty
