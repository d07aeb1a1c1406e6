"""Adversarial losses of a critic value r(x), one number per image, larger for more realistic images.

Only with cross-entropy is r(x) = log p(real | x) / p(fake | x) and its logistic a probability.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from likely.networks.blocks import uniform

Critic: TypeAlias = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class _AdversarialLoss:
    """Discriminator losses of r on real and on fake images, and the generator loss of r on fake ones: (B,) -> scalar each.

    `penalty(critic, real, fake, rng)`, if any, regularizes the critic: scalar.
    """

    real: Callable[[Tensor], Tensor]
    fake: Callable[[Tensor], Tensor]
    generator: Callable[[Tensor], Tensor]
    penalty: Callable[[Critic, Tensor, Tensor, Generator], Tensor] | None = None


def _gradient_penalty(critic: Critic, real: Tensor, fake: Tensor, rng: Generator, *, weight: float = 10.0) -> Tensor:
    """λ E (‖∇r(x̂)‖ − 1)², λ the weight, x̂ uniform between a real and a fake image (Gulrajani 2017, eq. 3): scalar."""
    n = min(len(real), len(fake))
    real, fake = real[:n], fake[:n]
    mix = uniform((n, *[1] * (real.ndim - 1)), real, rng)
    interpolated = (mix * real + (1 - mix) * fake).detach().requires_grad_()
    # In float32: a gradient in bfloat16 is too coarse to be regularized to norm 1.
    with torch.autocast(real.device.type, enabled=False):
        (gradient,) = torch.autograd.grad(critic(interpolated).sum(), interpolated, create_graph=True)
    penalty: Tensor = weight * (gradient.flatten(1).norm(dim=1) - 1).square().mean()
    return penalty


ADVERSARIAL_LOSSES = {
    # Binary cross-entropy with the non-saturating generator loss (Goodfellow 2014, section 3).
    "bce": _AdversarialLoss(
        lambda r: F.softplus(-r).mean(), lambda r: F.softplus(r).mean(), lambda r: F.softplus(-r).mean()
    ),
    # Lim 2017, Geometric GAN, eq. 5 to 7.
    "hinge": _AdversarialLoss(lambda r: F.relu(1 - r).mean(), lambda r: F.relu(1 + r).mean(), lambda r: -r.mean()),
    # Arjovsky 2017, Wasserstein GAN, with a gradient penalty instead of weight clipping.
    "wgan-gp": _AdversarialLoss(lambda r: -r.mean(), lambda r: r.mean(), lambda r: -r.mean(), _gradient_penalty),
}
