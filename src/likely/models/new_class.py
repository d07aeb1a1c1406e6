"""Class-incremental learning in a latent class mixture: fit one more component while the others stay fixed."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

EPSILON = 1e-6  # lower bound of norms in denominators
KNOWN_CLASS_WEIGHT = 0.5  # extra weight of each known class, to limit the loss of accuracy on them
PSEUDO_COUNT = 10.0  # of the prior on a new class's variance, the mean variance of the known classes

BATCH_SIZE = 256  # images per pass through the network
N_SAMPLES = 200  # latents sampled per known class
N_ITERATIONS = 60  # of L-BFGS

Gaussians = tuple[Tensor, Tensor]  # means and log scales, (n, d) or (d,) each
Others = tuple[Gaussians, Tensor]  # posteriors of images of known classes, and the classes (N,)


@torch.no_grad()
def copy_weights(new: nn.Module, old: nn.Module) -> None:
    """Copy the tensors of a network with fewer classes; rows of new classes keep their values."""
    tensors = dict(new.state_dict())
    for name, before in old.state_dict().items():
        now = tensors[name]
        if now.shape == before.shape:
            now.copy_(before)
        else:
            now[: len(before)] = before


@torch.no_grad()
def estimate_from_few(z: Tensor, variance: Tensor, sampling_distribution: Gaussians) -> Gaussians:
    """Estimate the Gaussian of a class, mean and log scale (d,), from posterior means and variances (n, d) of few images.

    The variance is shrunk toward the mean variance v̄ of the known classes and widened by v̄ / n, the variance of a mean of n:
    (n v + m v̄) / (n + m) + v̄ / n with m = PSEUDO_COUNT.
    """
    n, mean = len(z), z.mean(0)
    sample_variance = (z - mean).square().mean(0) + variance.mean(0)
    mean_variance = (2 * sampling_distribution[1]).exp().mean(0)
    return mean, 0.5 * (
        (n * sample_variance + PSEUDO_COUNT * mean_variance) / (n + PSEUDO_COUNT) + mean_variance / n
    ).log()


@torch.no_grad()
def displaced_component(location: Gaussians, components: Gaussians, sampling_distribution: Gaussians) -> Gaussians:
    """Displace the Gaussian of a new class as training displaces components: mean and log scale (d,).

    The cross-entropy moves components away from the aggregated posteriors m_c of their classes, which separates them. The new
    one moves by the root mean square of ‖mean_c − m_c‖, away from the mean of all classes, so that images fit their own
    component equally well in every class. Without displacement the new component would be predicted too often.
    """
    (mean, log_scale), (means, log_scales) = location, sampling_distribution
    direction = mean - means.mean(0)
    distance = (components[0] - means).square().sum(1).mean().sqrt()
    return mean + distance * direction / direction.norm().clamp_min(EPSILON), log_scale + (
        components[1] - log_scales
    ).mean(0)


def sample_latents(sampling_distribution: Gaussians) -> Others:
    """Sample `N_SAMPLES` latents per known class from its aggregated posterior, to replace exemplars."""
    means, log_scales = sampling_distribution
    K, rng = len(means), torch.Generator(means.device).manual_seed(0)
    noise = torch.randn((K, N_SAMPLES, means.shape[1]), generator=rng, device=means.device)
    z = (means[:, None] + log_scales.exp()[:, None] * noise).flatten(0, 1)
    return (z, torch.full_like(z, -torch.inf)), torch.arange(K, device=z.device).repeat_interleave(N_SAMPLES)


def fit_new_component(
    start: Gaussians, posteriors: Gaussians, others: Others, components: Gaussians, *, scales: bool
) -> Gaussians:
    """Fit the component of a new class by maximum a posteriori: mean and log scale (d,); the scale only if `scales`.

    Minimizes the class-balanced cross-entropy of softmax_c E_q log N(z; mean_c, scale_c²) over the posteriors q of the new
    images, means and log scales (n, d), and of images of the known classes, whose components (K, d) are fixed. A Gaussian
    prior around `start`, with the scale of the component, limits the shift that a few images cause.
    """
    mean, log_scale = start
    (other_mean, other_log_scale), labels = others
    K, n = len(components[0]), len(posteriors[0])
    m = torch.cat([other_mean, posteriors[0]])
    second_moment = m.square() + (2 * torch.cat([other_log_scale, posteriors[1]])).exp()
    known_log_density = _expected_log_density(m, second_moment, *components)
    y = torch.cat([labels, labels.new_full((n,), K)])
    count = torch.bincount(y, minlength=K + 1)[y]
    weight = torch.where(y < K, 1 + KNOWN_CLASS_WEIGHT * n / (n + PSEUDO_COUNT), 1) / (count * (K + 1))
    shift = torch.zeros(2, len(mean), device=m.device, requires_grad=True)

    def component() -> Gaussians:
        return mean + log_scale.exp() * shift[0], log_scale + (shift[1] if scales else 0)

    def loss() -> Tensor:
        new = _expected_log_density(m, second_moment, *(parameter[None] for parameter in component()))
        entropy = F.cross_entropy(torch.cat([known_log_density, new], 1), y, reduction="none")
        return (weight * entropy).sum() + shift.square().sum() / (2 * n * (K + 1))

    def closure() -> Tensor:
        optimizer.zero_grad()
        value = loss()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimizer = torch.optim.LBFGS([shift], max_iter=N_ITERATIONS, line_search_fn="strong_wolfe")
    with torch.enable_grad():
        optimizer.step(closure)  # type: ignore[no-untyped-call]
    with torch.no_grad():
        return component()


def _expected_log_density(m: Tensor, second_moment: Tensor, mean: Tensor, log_scale: Tensor) -> Tensor:
    """Return E log N(z; mean_c, scale_c²) up to a constant from the first and second moments of z: (B, d), (K, d) -> (B, K)."""
    precision = (-2 * log_scale).exp()
    squared = second_moment @ precision.mT - 2 * m @ (precision * mean).mT + (precision * mean.square()).sum(1)
    return -squared / 2 - log_scale.sum(1)
