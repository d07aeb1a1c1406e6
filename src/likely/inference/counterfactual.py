"""What would have to change for an image of one class to be of another: its latent vector, moved from class to class.

Where every class is a Gaussian in one latent space, an image has a place within its class, u = (z − mean_a) / scale_a. The
same place within the other class keeps what does not depend on the class (a slant, a shade), and is as typical of that
class as the image was of its own. Somewhere on the way there the answer turns: the least change of that kind.
"""

from __future__ import annotations

import torch
from torch import Tensor

Gaussians = tuple[Tensor, Tensor]  # means and log scales of the classes, (K, d) each


def transport(z: Tensor, a: Tensor, b: Tensor, classes: Gaussians) -> Tensor:
    """z' = mean_b + scale_b (z − mean_a) / scale_a: (B, d), (B,) class indices -> (B, d).

    The optimal transport of N(mean_a, scale_a²) onto N(mean_b, scale_b²) (Peyré & Cuturi 2019, Computational Optimal
    Transport, eq. 2.40): of all maps that make images of b out of images of a, the one that moves them least.
    """
    mean, log_scale = classes
    return mean[b] + (log_scale[b] - log_scale[a]).exp() * (z - mean[a])


def interpolate(start: Tensor, end: Tensor, n: int) -> Tensor:
    """n points from one latent vector to another, both included: (B, d), (B, d) -> (B, n, d).

    >>> path(torch.zeros(1, 1), torch.ones(1, 1), 3)[0, :, 0].tolist()
    [0.0, 0.5, 1.0]
    """
    t = torch.linspace(0, 1, n, dtype=start.dtype, device=start.device)[:, None]
    return start[:, None] + t * (end - start)[:, None]


def flip_index(log_posterior: Tensor, b: Tensor) -> Tensor:
    """The first point of each path from which on b leads to its end: (B, n, K), (B,) -> (B,); n where it never comes to that.

    From there on, not for once: an answer that turns back is no counterfactual.
    """
    leads = log_posterior.argmax(2) == b[:, None]  # (B, n)
    to_the_end = leads.flip(1).long().cumprod(1).sum(1)
    return leads.shape[1] - to_the_end
