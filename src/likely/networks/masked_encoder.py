"""Encoder of partially observed images: a proposal distribution over latents, and the random masks that train it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from pydantic import Field
from torch import Generator, Tensor, nn

from likely.networks.blocks import make_encoder, uniform
from likely.options import Options


class MaskedEncoderOptions(Options):
    """Options of the encoder of partially observed images."""

    width: int = Field(32, ge=1, description="Channels of the first convolution.")
    depth: int = Field(1, ge=0, description="Residual blocks at the lowest resolution.")
    min_mask_side: float = Field(0.2, ge=0, description="Minimum side of a mask rectangle relative to the image's.")
    max_mask_side: float = Field(
        1.3,
        ge=0,
        description="Maximum side of a mask rectangle relative to the image's; it may extend beyond the edge.",
    )
    inverted_fraction: float = Field(
        0.25, ge=0, le=1, description="Fraction of masks that observe the rectangle instead of hiding it."
    )
    max_log_scale: float = Field(
        3.0, gt=0, description="Bound of |log scale|: no partial image determines a latent to better than e⁻³."
    )
    n_samples: int = Field(64, ge=1, description="Importance samples per partially observed image.")
    min_effective_fraction: float = Field(
        0.125, ge=0, le=1, description="Minimum effective sample size as a fraction of the samples."
    )
    n_bisections: int = Field(20, ge=1, description="Bisection steps to find the exponent that flattens the weights.")


@dataclass(frozen=True)
class Proposal:
    """r(z, c | x_o) = w_c N(z; mean_c, scale²): log w (B, K), mean (B, K, d), log_scale (B, d)."""

    log_weight: Tensor
    mean: Tensor
    log_scale: Tensor

    def log_joint(self, z: Tensor) -> Tensor:
        """Return log r(z, c | x_o): (B, S, d) -> (B, S, K) nats."""
        inverse = (-self.log_scale).exp()[:, None]  # (B, 1, d)
        a, b = z.float() * inverse, self.mean * inverse
        with torch.autocast(z.device.type, enabled=False):  # bfloat16 would lose the difference of nearly equal terms
            squared = a.square().sum(2, keepdim=True) - 2 * a @ b.mT + b.square().sum(2)[:, None]
        constant = self.log_scale.sum(1) + z.shape[2] * 0.5 * math.log(2 * math.pi)
        return self.log_weight[:, None] - squared.clamp_min(0) / 2 - constant[:, None, None]

    def sample(self, u: Tensor, noise: Tensor) -> Tensor:
        """Sample z ~ r(z | x_o), classes from uniform numbers u (S,) and z from normal ones (S, d): (B, S, d)."""
        edges = self.log_weight.exp().cumsum(1)
        c = torch.searchsorted(edges / edges[:, -1:], u.expand(len(edges), -1).contiguous())
        mean = self.mean.gather(1, c.clamp_max(edges.shape[1] - 1)[:, :, None].expand(-1, -1, self.mean.shape[2]))
        return mean + self.log_scale.exp()[:, None] * noise


class MaskedEncoder(nn.Module):
    """Amortized proposal r(z, c | x_o) of a partially observed image: a weight and a Gaussian in latent space per class.

    mean_c = u + g ⊙ m_c, where m_c is the mean latent of class c; u, g, scale and weights are network outputs. Without any
    observed pixel u = 0 and g = 1 are optimal, for a fully observed image g = 0.
    """

    def __init__(self, shape: Sequence[int], n_classes: int, n_latent: int, options: MaskedEncoderOptions) -> None:
        super().__init__()
        self.options = options
        self.trunk = make_encoder((shape[0] + 1, *shape[1:]), width=options.width, depth=options.depth)
        self.sizes = (n_latent, n_latent, n_latent, n_classes)  # classes last: `add_class` appends
        self.to_proposal = nn.Linear(self.trunk.n_features, sum(self.sizes))

    def forward(self, x: Tensor, observed: Tensor, class_means: Tensor) -> Proposal:
        """Propose latents for images (B, C, H, W) with masks (B, H, W) bool, True if observed, and class means (K, d)."""
        mask = observed[:, None].to(x.dtype)
        masked = torch.cat([x * mask + 0.5 * (1 - mask), mask], 1)
        offset, gate, log_scale, weights = self.to_proposal(self.trunk(masked)).float().split(self.sizes, 1)
        mean = offset[:, None] + (1 + gate)[:, None] * class_means.float()
        bound = self.options.max_log_scale
        return Proposal(weights.log_softmax(1), mean, bound * (log_scale / bound - 0.5).tanh())

    def loss(self, x: Tensor, y: Tensor, z: Tensor, class_means: Tensor, rng: Generator) -> Tensor:
        """−E [log r(z | y, x_o) / d + log r(y | x_o)] with z ~ q(z | x) of the full image (B, d) and random masks o: scalar.

        Both terms are KL divergences up to a constant, minimal where r is the posterior. Without 1/d they sum to
        KL(p(z, y | x_o) ‖ r); the weight keeps z from dominating the class. Unlabeled images, y = -1, have the first term only.
        """
        proposal: Proposal = self(x, random_masks(x, self.options, rng), class_means)
        log_joint = proposal.log_joint(z[:, None])[:, 0]  # (B, K)
        index = y.clamp_min(0)[:, None]
        log_class = proposal.log_weight.gather(1, index)[:, 0]
        labeled = (log_joint.gather(1, index)[:, 0] - log_class) / z.shape[1] + log_class
        return -torch.where(y >= 0, labeled, log_joint.logsumexp(1) / z.shape[1]).mean()

    def flatten_weights(self, log_weight: Tensor) -> Tensor:
        """Return log w^β / Σ w^β of importance weights (B, S) with the largest β ≤ 1 that keeps the effective sample size up.

        The effective sample size 1 / Σ w² of normalized weights (Kong 1992) is at least `min_effective_fraction` · S. As in
        annealed importance sampling, β < 1 trades bias for variance.
        """
        minimum = self.options.min_effective_fraction * log_weight.shape[1]
        low, high = torch.zeros_like(log_weight[:, :1]), torch.ones_like(log_weight[:, :1])
        log_weight = log_weight - log_weight.amax(1, keepdim=True)
        sufficient = _effective_size(log_weight) >= minimum
        for _ in range(self.options.n_bisections):
            midpoint = (low + high) / 2
            fits = _effective_size(midpoint * log_weight) >= minimum
            low, high = torch.where(fits, midpoint, low), torch.where(fits, high, midpoint)
        return (torch.where(sufficient, 1.0, low) * log_weight).log_softmax(1)

    @torch.no_grad()
    def add_class(self) -> None:
        """Initialize the weight of a new, untrained last class with the mean of the others."""
        K = self.sizes[-1]
        for parameter in (self.to_proposal.weight, self.to_proposal.bias):
            parameter[-1] = parameter[-K:-1].mean(0)


def random_masks(x: Tensor, options: MaskedEncoderOptions, rng: Generator) -> Tensor:
    """Sample masks (B, H, W) bool, True if observed: a random rectangle is hidden, or everything but a rectangle."""
    n, _, height, width = x.shape
    u = uniform((5, n, 1), x, rng)
    shortest, longest = options.min_mask_side, options.max_mask_side
    rows, columns = (
        _inside(side, center, (shortest + (longest - shortest) * length) * side)
        for side, center, length in ((height, u[0], u[1]), (width, u[2], u[3]))
    )
    hidden = rows[:, :, None] & columns[:, None, :]
    return hidden ^ (u[4] >= options.inverted_fraction)[:, :, None]


def _effective_size(log_weight: Tensor) -> Tensor:
    """Return the effective sample size 1 / Σ w² of normalized weights: (B, S) -> (B, 1)."""
    return (-(2 * log_weight.log_softmax(1)).logsumexp(1, keepdim=True)).exp()


def _inside(side: int, center: Tensor, length: Tensor) -> Tensor:
    """Return the mask (n, side) of the rows or columns in intervals with these centers, relative to the side, and lengths."""
    position = torch.arange(side, device=center.device) + 0.5
    return (position - center * side).abs() <= length / 2
