"""An encoder of images of which a part is hidden, and the masks that it learns from."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Generator, Tensor, nn

from likely.networks.blocks import make_encoder, uniform

SHORTEST, LONGEST = 0.2, 1.3  # a side of what is hidden, as a share of the image's: it may reach over the edge
WIDEST = 3.0  # |log scale|: narrower than e⁻³ no part of an image tells a latent vector
MASKED_FRACTION = 0.125  # of the samples, that count at least
N_HALVINGS = 20  # of an interval, in search of an exponent
HALF_LOG_TWO_PI = 0.5 * math.log(2 * math.pi)
INVERTED = 0.25  # of the masks show what the others hide


@dataclass(frozen=True)
class Proposal:
    """r(z, c | x_o) = w_c N(z; mean_c, scale²): log w (B, K), mean (B, K, d), log_scale (B, d)."""

    log_weight: Tensor
    mean: Tensor
    log_scale: Tensor

    def log_joint(self, z: Tensor) -> Tensor:
        """log r(z, c | x_o): (B, S, d) -> (B, S, K)."""
        inverse = (-self.log_scale).exp()[:, None]  # (B, 1, d)
        a, b = z.float() * inverse, self.mean * inverse
        with torch.autocast(z.device.type, enabled=False):  # what nearly cancels takes more digits than bfloat16 has
            squared = a.square().sum(2, keepdim=True) - 2 * a @ b.mT + b.square().sum(2)[:, None]
        constant = self.log_scale.sum(1) + z.shape[2] * HALF_LOG_TWO_PI
        return self.log_weight[:, None] - squared.clamp_min(0) / 2 - constant[:, None, None]

    def sample(self, u: Tensor, noise: Tensor) -> Tensor:
        """z ~ r(z | x_o), classes by uniform numbers u (S,), the rest by normal ones (S, d): (B, S, d)."""
        edges = self.log_weight.exp().cumsum(1)
        c = torch.searchsorted(edges / edges[:, -1:], u.expand(len(edges), -1).contiguous())
        mean = self.mean.gather(1, c.clamp_max(edges.shape[1] - 1)[:, :, None].expand(-1, -1, self.mean.shape[2]))
        return mean + self.log_scale.exp()[:, None] * noise


class MaskedEncoder(nn.Module):
    """What an image may be of which only a part is seen: for each class a weight and a Gaussian in latent space.

    mean_c = u + g ⊙ m_c with m_c where the images of class c lie; u, g, the scale and the weights are read from what is
    seen. Of nothing u = 0 and g = 1 would be right, of everything g = 0.
    """

    def __init__(self, shape: Sequence[int], n_classes: int, n_latent: int, *, width: int, depth: int) -> None:
        super().__init__()
        self.trunk = make_encoder((shape[0] + 1, *shape[1:]), width=width, depth=depth)
        self.parts = (n_latent, n_latent, n_latent, n_classes)  # the classes last: more of them may come
        self.to_parts = nn.Linear(self.trunk.n_features, sum(self.parts))

    def forward(self, x: Tensor, observed: Tensor, places: Tensor) -> Proposal:
        """Images (B, C, H, W), masks (B, H, W) bool, and where the classes' images lie, (K, d)."""
        mask = observed[:, None].to(x.dtype)
        seen = torch.cat([x * mask + 0.5 * (1 - mask), mask], 1)
        offset, gate, log_scale, weights = self.to_parts(self.trunk(seen)).float().split(self.parts, 1)
        mean = offset[:, None] + (1 + gate)[:, None] * places.float()
        return Proposal(weights.log_softmax(1), mean, WIDEST * (log_scale / WIDEST - 0.5).tanh())

    @torch.no_grad()
    def add_class(self) -> None:
        """Propose the last class, of which nothing was learned, as often as the others in the mean."""
        K = self.parts[-1]
        for part in (self.to_parts.weight, self.to_parts.bias):
            part[-1] = part[-K:-1].mean(0)


def flattened(log_weight: Tensor) -> Tensor:
    """log w^β / Σ w^β of weights (B, S), β the largest up to 1 at which they count for SHARE · S samples or more: (B, S).

    The effective number of samples is 1 / Σ w² of normalized weights (Kong 1992); as in annealed importance sampling an
    exponent below 1 is a bias that keeps the variance in bounds.
    """
    least = MASKED_FRACTION * log_weight.shape[1]
    low, high = torch.zeros_like(log_weight[:, :1]), torch.ones_like(log_weight[:, :1])
    log_weight = log_weight - log_weight.amax(1, keepdim=True)
    enough = _effective(log_weight) >= least
    for _ in range(N_HALVINGS):
        middle = (low + high) / 2
        fits = _effective(middle * log_weight) >= least
        low, high = torch.where(fits, middle, low), torch.where(fits, high, middle)
    return (torch.where(enough, 1.0, low) * log_weight).log_softmax(1)


def _effective(log_weight: Tensor) -> Tensor:
    return (-(2 * log_weight.log_softmax(1)).logsumexp(1, keepdim=True)).exp()


def random_masks(n: int, height: int, width: int, like: Tensor, rng: Generator) -> Tensor:
    """Masks (n, H, W) bool, True for what is seen: a rectangle anywhere is hidden, or all but a rectangle."""
    u = uniform((5, n, 1), like, rng)
    rows, columns = (
        _inside(side, center, (SHORTEST + (LONGEST - SHORTEST) * length) * side)
        for side, center, length in ((height, u[0], u[1]), (width, u[2], u[3]))
    )
    hidden = rows[:, :, None] & columns[:, None, :]
    return hidden ^ (u[4] >= INVERTED)[:, :, None]


def _inside(side: int, center: Tensor, length: Tensor) -> Tensor:
    at = torch.arange(side, device=center.device) + 0.5
    return (at - center * side).abs() <= length / 2
