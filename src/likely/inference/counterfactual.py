"""Counterfactual explanations in latent space: the smallest change that makes an image of class a an image of class b.

If every class is a Gaussian in one latent space, u = (z − mean_a) / scale_a is the position of an image within its
class. The same position in class b preserves everything that does not depend on the class (such as slant or shade) and
is equally typical there. The counterfactual is the first point of the straight line to it at which the predicted class
flips.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class CounterfactualOptions:
    """Constants of a counterfactual path. `n_points`: points of the path, both ends included."""

    n_points: int = 65


DEFAULT_OPTIONS = CounterfactualOptions()
Gaussians = tuple[Tensor, Tensor]  # means and log scales of the classes, (K, d) each


def transport(z: Tensor, a: Tensor, b: Tensor, classes: Gaussians) -> Tensor:
    """Return mean_b + scale_b (z − mean_a) / scale_a: (B, d), class indices a and b (B,) -> (B, d).

    Optimal transport of N(mean_a, scale_a²) onto N(mean_b, scale_b²) (Peyré & Cuturi 2019, Computational Optimal Transport,
    eq. 2.40): the map between the two distributions with the smallest mean squared displacement.
    """
    mean, log_scale = classes
    return mean[b] + (log_scale[b] - log_scale[a]).exp() * (z - mean[a])


def interpolate(start: Tensor, end: Tensor, n: int) -> Tensor:
    """Return n equidistant points from start to end, both included: (B, d), (B, d) -> (B, n, d).

    >>> interpolate(torch.zeros(1, 1), torch.ones(1, 1), 3)[0, :, 0].tolist()
    [0.0, 0.5, 1.0]
    """
    t = torch.linspace(0, 1, n, dtype=start.dtype, device=start.device)[:, None]
    return start[:, None] + t * (end - start)[:, None]


def flip_index(log_posterior: Tensor, b: Tensor) -> Tensor:
    """Return the first index from which on b is predicted up to the end, n if none: (B, n, K), (B,) -> (B,).

    A point after which the prediction changes back is not a counterfactual.
    """
    is_b = log_posterior.argmax(2) == b[:, None]  # (B, n)
    n_last = is_b.flip(1).long().cumprod(1).sum(1)
    return is_b.shape[1] - n_last
