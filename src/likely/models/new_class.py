"""Class-incremental learning in a latent class mixture: fit one more component while the others stay fixed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeAlias, TypeVar

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from likely.base import Scorer, Task
from likely.options import Options

Model = TypeVar("Model", bound=Scorer)
Gaussians: TypeAlias = tuple[Tensor, Tensor]  # means and log scales, (n, d) or (d,) each
Others: TypeAlias = tuple[Gaussians, Tensor]  # posteriors of images of known classes, and the classes (N,)


class NewClassOptions(Options):
    """Options of the fit of a new class."""

    pseudo_count: float = Field(
        10.0,
        gt=0,
        description="Images for which the prior on a new class's variance, the mean variance of the known classes, counts.",
    )
    known_class_weight: float = Field(
        0.5, ge=0, description="Extra weight of each known class, to limit the loss of accuracy on them."
    )
    n_samples: int = Field(200, ge=1, description="Latents sampled per known class if there are no exemplars.")
    n_iterations: int = Field(60, ge=1, description="Iterations of L-BFGS.")
    fit_scale: bool = Field(
        True, description="Fit the scale of the component; else it stays that of the known components."
    )
    batch_size: int = Field(256, ge=1, description="Images per pass through the network.")


DEFAULT_NEW_CLASS: Final = NewClassOptions()


@torch.no_grad()
def with_untrained_class(model: Model, n: int) -> Model:
    """Return a copy of a model with one more class of n images; the rows of weights for that class are untrained."""
    with torch.random.fork_rng(devices=[]):
        new = type(model)(Task(model.task.shape, (*model.task.class_counts, n)), model.options)
    new.to(model.log_prior.device).train(model.training)
    tensors = new.state_dict()
    for name, before in model.state_dict().items():
        now = tensors[name]
        if now.shape == before.shape:
            now.copy_(before)
        else:
            now[: len(before)] = before
    return new


@torch.no_grad()
def fit_new_class(
    posteriors: Gaussians,
    sampling_distribution: Gaussians,
    components: Gaussians,
    exemplars: Others | None,
    options: NewClassOptions = DEFAULT_NEW_CLASS,
) -> tuple[Gaussians, Gaussians]:
    """Fit a new class to the posteriors q(z | x) of its images, means and log scales (n, d).

    Returns its sampling distribution and its component, mean and log scale (d,) each. `sampling_distribution` and `components`
    are those of the known classes, (K, d); `exemplars` are images of these, replaced by samples if there are none.
    """
    mean, log_scale = posteriors
    location = _estimate_from_few(mean, (2 * log_scale).exp(), sampling_distribution, options)
    start = _displaced(location, components, sampling_distribution)
    others = exemplars or _sample_latents(sampling_distribution, options)
    return location, _fit_component(start, posteriors, others, components, options)


def _estimate_from_few(
    z: Tensor, variance: Tensor, sampling_distribution: Gaussians, options: NewClassOptions
) -> Gaussians:
    """Estimate the Gaussian of a class, mean and log scale (d,), from posterior means and variances (n, d) of few images.

    The variance is shrunk toward the mean variance v̄ of the known classes and widened by v̄ / n, the variance of a mean of n:
    (n v + m v̄) / (n + m) + v̄ / n with m the pseudo-count.
    """
    n, m, mean = len(z), options.pseudo_count, z.mean(0)
    sample_variance = (z - mean).square().mean(0) + variance.mean(0)
    mean_variance = (2 * sampling_distribution[1]).exp().mean(0)
    shrunk = (n * sample_variance + m * mean_variance) / (n + m)
    return mean, 0.5 * (shrunk + mean_variance / n).log()


def _displaced(location: Gaussians, components: Gaussians, sampling_distribution: Gaussians) -> Gaussians:
    """Displace the Gaussian of a new class as training displaces components: mean and log scale (d,).

    The cross-entropy moves components away from the aggregated posteriors m_c of their classes, which separates them. The new
    one moves by the root mean square of ‖mean_c − m_c‖, away from the mean of all classes, so that images fit their own
    component equally well in every class. Without displacement the new component would be predicted too often.
    """
    (mean, log_scale), (means, log_scales) = location, sampling_distribution
    direction = mean - means.mean(0)
    distance = (components[0] - means).square().sum(1).mean().sqrt()
    displaced = mean + distance * direction / direction.norm().clamp_min(1e-6)
    return displaced, log_scale + (components[1] - log_scales).mean(0)


def _sample_latents(sampling_distribution: Gaussians, options: NewClassOptions) -> Others:
    """Sample latents of the known classes from their aggregated posteriors, to replace exemplars."""
    means, log_scales = sampling_distribution
    K, n, rng = len(means), options.n_samples, torch.Generator(means.device).manual_seed(0)
    noise = torch.randn((K, n, means.shape[1]), generator=rng, device=means.device)
    z = (means[:, None] + log_scales.exp()[:, None] * noise).flatten(0, 1)
    return (z, torch.full_like(z, -torch.inf)), torch.arange(K, device=z.device).repeat_interleave(n)


def _fit_component(
    start: Gaussians, posteriors: Gaussians, others: Others, components: Gaussians, options: NewClassOptions
) -> Gaussians:
    """Fit the component of a new class by maximum a posteriori: mean and log scale (d,).

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
    weight = torch.where(y < K, 1 + options.known_class_weight * n / (n + options.pseudo_count), 1) / (count * (K + 1))
    shift = torch.zeros(2, len(mean), device=m.device, requires_grad=True)

    def component() -> Gaussians:
        return mean + log_scale.exp() * shift[0], log_scale + (shift[1] if options.fit_scale else 0)

    def loss() -> Tensor:
        new = _expected_log_density(m, second_moment, *(parameter[None] for parameter in component()))
        entropy = F.cross_entropy(torch.cat([known_log_density, new], 1), y, reduction="none")
        return (weight * entropy).sum() + shift.square().sum() / (2 * n * (K + 1))

    minimize(loss, shift, options)
    with torch.no_grad():
        return component()


def minimize(loss: Callable[[], Tensor], parameter: Tensor, options: NewClassOptions = DEFAULT_NEW_CLASS) -> None:
    """Minimize a loss by L-BFGS over a parameter that requires a gradient, in place."""

    def closure() -> Tensor:
        optimizer.zero_grad()
        value = loss()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimizer = torch.optim.LBFGS([parameter], max_iter=options.n_iterations, line_search_fn="strong_wolfe")
    with torch.enable_grad():
        optimizer.step(closure)  # type: ignore[no-untyped-call]


def _expected_log_density(m: Tensor, second_moment: Tensor, mean: Tensor, log_scale: Tensor) -> Tensor:
    """Return E log N(z; mean_c, scale_c²) up to a constant from the first and second moments of z: (B, d), (K, d) -> (B, K)."""
    precision = (-2 * log_scale).exp()
    squared = second_moment @ precision.mT - 2 * m @ (precision * mean).mT + (precision * mean.square()).sum(1)
    return -squared / 2 - log_scale.sum(1)
