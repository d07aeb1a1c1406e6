"""Where the images of each class lie in a latent space: the Gaussian nearest its aggregated posterior."""

from __future__ import annotations

import torch
from torch import Tensor, nn

KEPT = 0.995  # of what is known of a class, at each further image of it: the last two hundred images count
TINY = 1e-6  # the least variance


class AggregatedPosterior(nn.Module):
    """mean_c and scale_c of q(z | c) = E_{x of class c} q(z | x), followed in training (Hoffman & Johnson 2016, ELBO surgery).

    Of all diagonal Gaussians the one with these moments has the least KL divergence from q(z | c).
    """

    mean: Tensor
    square: Tensor

    def __init__(self, mean: Tensor) -> None:
        """Starts at the given means (K, d), with scales of 1."""
        super().__init__()
        self.register_buffer("mean", mean.detach().clone())
        self.register_buffer("square", self.mean.square() + 1)

    @torch.no_grad()
    def follow(self, mean: Tensor, variance: Tensor, y: Tensor) -> None:
        """Take in the posteriors of a batch, (B, d) each, of classes y (B,); -1 says nothing of any class."""
        known = y >= 0
        y, mean, variance = y[known], mean[known].float(), variance[known].float()
        n = torch.bincount(y, minlength=len(self.mean)).to(mean.dtype)[:, None]  # (K, 1)
        share = (1 - KEPT**n) / n.clamp_min(1)
        for kept, seen in ((self.mean, mean), (self.square, mean.square() + variance)):
            # In place, as buffers that live in a snapshot and on their device have to be.
            kept.mul_(KEPT**n).add_(share * torch.zeros_like(kept).index_add_(0, y, seen))

    @torch.no_grad()
    def set_last(self, mean: Tensor, log_scale: Tensor) -> None:
        """Let the last class lie there, (d,) each."""
        self.mean[-1] = mean
        self.square[-1] = mean.square() + (2 * log_scale).exp()

    def gaussians(self) -> tuple[Tensor, Tensor]:
        """Means and log scales, (K, d) each."""
        variance = (self.square - self.mean.square()).clamp_min(TINY)
        return self.mean, 0.5 * variance.log()
