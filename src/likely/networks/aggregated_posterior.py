"""Aggregated posterior of each class in a latent space, approximated by the nearest diagonal Gaussian."""

from __future__ import annotations

from typing import Final

import torch
from pydantic import Field
from torch import Tensor, nn

from likely.options import Options


class AggregatedPosteriorOptions(Options):
    """Options of the moving averages."""

    decay: float = Field(
        0.995, ge=0, lt=1, description="Decay of the moments per image of a class: a window of about 200 images."
    )
    min_variance: float = Field(1e-6, gt=0, description="Minimum variance, against cancellation in E z² − (E z)².")


DEFAULT_AGGREGATED_POSTERIOR: Final = AggregatedPosteriorOptions()


class AggregatedPosterior(nn.Module):
    """mean_c and scale_c of q(z | c) = E_{x of class c} q(z | x), followed by moving averages in training.

    Among diagonal Gaussians, the one with these moments minimizes the KL divergence from q(z | c) (Hoffman & Johnson 2016,
    ELBO surgery).
    """

    mean: Tensor
    square: Tensor

    def __init__(self, mean: Tensor, options: AggregatedPosteriorOptions = DEFAULT_AGGREGATED_POSTERIOR) -> None:
        """Start at these means (K, d), with scale 1."""
        super().__init__()
        self.options = options
        self.register_buffer("mean", mean.detach().clone())
        self.register_buffer("square", self.mean.square() + 1)

    @torch.no_grad()
    def update(self, mean: Tensor, variance: Tensor, y: Tensor) -> None:
        """Update the moments with posterior means and variances (B, d) of images of classes y (B,); -1 is ignored."""
        labeled = y >= 0
        y, mean, variance = y[labeled], mean[labeled].float(), variance[labeled].float()
        n = torch.bincount(y, minlength=len(self.mean)).to(mean.dtype)[:, None]  # (K, 1)
        decay = self.options.decay**n
        weight = (1 - decay) / n.clamp_min(1)
        for moment, value in ((self.mean, mean), (self.square, mean.square() + variance)):
            # In place: the buffers keep their identity across snapshots and devices.
            moment.mul_(decay).add_(weight * torch.zeros_like(moment).index_add_(0, y, value))

    @torch.no_grad()
    def set_last(self, mean: Tensor, log_scale: Tensor) -> None:
        """Set the Gaussian of the last class, (d,) each."""
        self.mean[-1] = mean
        self.square[-1] = mean.square() + (2 * log_scale).exp()

    def gaussians(self) -> tuple[Tensor, Tensor]:
        """Return means and log scales of all classes, (K, d) each."""
        variance = (self.square - self.mean.square()).clamp_min(self.options.min_variance)
        return self.mean, 0.5 * variance.log()
