"""One class more than a network was built for: its tensors with a row added, and where the new class lies among latents."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

TINY = 1e-6  # a length that has no direction
HARM = 0.5  # more that each class of before weighs than a new one that is well known: it is to cost them little
PSEUDO_COUNT = 10.0  # images' worth of trust in the usual spread of a class, when that of a new one is estimated

BATCH_SIZE = 256  # of a new class's images that go through a network together
N_SAMPLES = 200  # latents of each older class that a new component is to be told from
N_ITERATIONS = 60  # of L-BFGS, for a few dozen numbers

Gaussians = tuple[Tensor, Tensor]  # means and log scales
Others = tuple[Gaussians, Tensor]  # posteriors (N, d) of images of the classes that are there, and their classes (N,)


@torch.no_grad()
def copy_weights(new: nn.Module, old: nn.Module) -> None:
    """Give a network the tensors of one with fewer classes; the rows that the new classes add stay as they are."""
    tensors = dict(new.state_dict())
    for name, before in old.state_dict().items():
        now = tensors[name]
        if now.shape == before.shape:
            now.copy_(before)
        else:
            now[: len(before)] = before


@torch.no_grad()
def estimate_from_few(z: Tensor, variance: Tensor, sampling_distribution: Gaussians) -> Gaussians:
    """The Gaussian of a class of which a few posteriors are known, means and variances (n, d): mean and log scale (d,).

    Its variance is drawn toward the mean variance v̄ of the classes that are known well (K, d), and widened by v̄ / n, for
    that is how uncertain a mean of n is: (n v + BORROWED v̄) / (n + BORROWED) + v̄ / n.
    """
    n, mean = len(z), z.mean(0)
    own = (z - mean).square().mean(0) + variance.mean(0)
    usual = (2 * sampling_distribution[1]).exp().mean(0)
    return mean, 0.5 * ((n * own + PSEUDO_COUNT * usual) / (n + PSEUDO_COUNT) + usual / n).log()


@torch.no_grad()
def component_at(location: Gaussians, components: Gaussians, sampling_distribution: Gaussians) -> Gaussians:
    """The component of a class that lies at a place (d,), had it been learned beside the others: mean and log scale (d,).

    Training pulls components away from where the images of their class lie, for classes are told better so. The new one is
    moved as far as the others are, ‖mean_c − m_c‖² in the mean, away from the middle of all: an image then fits the
    component of its own class equally badly, whichever class it is. Unmoved, a new component would win too often.
    """
    (mean, log_scale), (means, log_scales) = location, sampling_distribution
    away = mean - means.mean(0)
    distance = (components[0] - means).square().sum(1).mean().sqrt()
    return mean + distance * away / away.norm().clamp_min(TINY), log_scale + (components[1] - log_scales).mean(0)


def sample_latents(sampling_distribution: Gaussians) -> Others:
    """Latents of the other classes where no images are known: N_DRAWN of each, from where they lie (K, d)."""
    means, log_scales = sampling_distribution
    K, rng = len(means), torch.Generator(means.device).manual_seed(0)
    noise = torch.randn((K, N_SAMPLES, means.shape[1]), generator=rng, device=means.device)
    z = (means[:, None] + log_scales.exp()[:, None] * noise).flatten(0, 1)
    return (z, torch.full_like(z, -torch.inf)), torch.arange(K, device=z.device).repeat_interleave(N_SAMPLES)


def fit_new_component(
    start: Gaussians, posteriors: Gaussians, others: Others, components: Gaussians, *, scales: bool
) -> Gaussians:
    """The component of a new class, learned from `start` so that its images are told from those of the classes before:
    mean and log scale (d,); the latter as it was unless `scales`.

    The cross-entropy of softmax_c E_q log N(z; mean_c, scale_c²), each class's images weighing alike together, over the new
    images' posteriors q, means and log scales (n, d), and over those of the others, whose components (K, d) stay. It starts
    where the class lies and is held there by a Gaussian prior of the component's own scale, so that a few images move it
    little: the largest a posteriori.
    """
    mean, log_scale = start
    (other_mean, other_log_scale), of_class = others
    K, n = len(components[0]), len(posteriors[0])
    m = torch.cat([other_mean, posteriors[0]])
    square = m.square() + (2 * torch.cat([other_log_scale, posteriors[1]])).exp()
    older = _expected_log_density(m, square, *components)
    y = torch.cat([of_class, of_class.new_full((n,), K)])
    count = torch.bincount(y, minlength=K + 1)[y]
    weight = torch.where(y < K, 1 + HARM * n / (n + PSEUDO_COUNT), 1) / (count * (K + 1))
    moved = torch.zeros(2, len(mean), device=m.device, requires_grad=True)

    def component() -> Gaussians:
        return mean + log_scale.exp() * moved[0], log_scale + (moved[1] if scales else 0)

    def loss() -> Tensor:
        new = _expected_log_density(m, square, *(part[None] for part in component()))
        entropy = F.cross_entropy(torch.cat([older, new], 1), y, reduction="none")
        return (weight * entropy).sum() + moved.square().sum() / (2 * n * (K + 1))

    def closure() -> Tensor:
        optimizer.zero_grad()
        value = loss()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimizer = torch.optim.LBFGS([moved], max_iter=N_ITERATIONS, line_search_fn="strong_wolfe")
    with torch.enable_grad():
        optimizer.step(closure)  # type: ignore[no-untyped-call]
    with torch.no_grad():
        return component()


def _expected_log_density(m: Tensor, square: Tensor, mean: Tensor, log_scale: Tensor) -> Tensor:
    """E log N(z; mean_c, scale_c²) of z with these first and second moments, up to a constant: (B, d), (K, d) -> (B, K)."""
    precision = (-2 * log_scale).exp()
    squared = square @ precision.mT - 2 * m @ (precision * mean).mT + (precision * mean.square()).sum(1)
    return -squared / 2 - log_scale.sum(1)
