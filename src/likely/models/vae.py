"""The variational autoencoder with one Gaussian per class in its latent space: log p(x | c) ≥ E_q log p(x | z) − KL_c.

Neither q(z | x) nor p(x | z) sees the class: a class is where its images lie in the latent space. The reconstruction then
cancels in Bayes' rule, and a posterior needs the encoder alone (Jiang 2017, Variational Deep Embedding).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeAlias

import torch
from pydantic import Field
from torch import Generator, Tensor, nn

from likely.contract import (
    Diagnostics,
    Evidence,
    EvidenceKind,
    Featured,
    GenerativeModel,
    ImportanceWeighted,
    LatentClassMixture,
    Objective,
    Space,
    Task,
)
from likely.nets.aggregate import Aggregate
from likely.nets.blocks import TrunkOptions, head, standard_normal, trunk
from likely.nets.likelihoods import class_cross_entropy, discretised_logistic, normal, normal_divergence
from likely.nets.standardise import Standardise, Standardised

Pair: TypeAlias = tuple[Tensor, Tensor]


class VaeOptions(TrunkOptions):
    """Options of `vae`."""

    latent_dims: int = Field(32, ge=1, description="Dimensions of the latent space.")
    class_weight: float = Field(
        3.0,
        ge=0,
        description="Weight of the cross-entropy of p(c | x) beside the bound per dimension; 0: likelihood alone.",
    )
    label_smoothing: float = Field(
        0.0, ge=0, lt=1, description="Share of each label spread over all classes in training."
    )


class Vae(GenerativeModel, LatentClassMixture, Diagnostics, ImportanceWeighted, Featured, Standardised):
    """L_c = E_q(z|x) log p(x | z) − KL(q(z | x) ‖ p(z | c)), p(z | c) = N(mean_c, scale_c²)  (Kingma & Welling 2014, eq. 3).

    Trained on −L_y / D + class_weight · cross-entropy of softmax(−KL + log π_train): maximum likelihood alone hardly notices
    the class, a handful of nats among thousands (Ardizzone 2020, Training Normalizing Flows with the Information Bottleneck).
    The cross-entropy pulls the components away from the images of their class, to where a class is told best, and what is
    decoded there is of no class. Images are drawn from where the images of the class do lie: from the Gaussian nearest the
    aggregated posterior q(z | c) (Ghosh 2020, From Variational to Deterministic Autoencoders, section 4).
    """

    options_type = VaeOptions

    def __init__(self, task: Task, options: VaeOptions) -> None:
        super().__init__(task, options)
        d, K = options.latent_dims, task.n_classes
        self.class_weight, self.label_smoothing = options.class_weight, options.label_smoothing
        self.trunk = trunk(task.shape, width=options.width, depth=options.depth)
        self.to_latent = nn.Linear(self.trunk.n_features, 2 * d)
        self.head = head(d, (2 * task.shape[0], *task.shape[1:]), width=options.width, depth=options.depth)
        # Components start apart, about three standard deviations: from one point they would have to break a tie.
        directions = torch.randn(K, d)
        self.component_mean = nn.Parameter(2 * directions / directions.norm(dim=1, keepdim=True))
        self.component_log_scale = nn.Parameter(torch.zeros(K, d))
        self.aggregate = Aggregate(self.component_mean)
        self.standardise = Standardise.of(task)

    @property
    def evidence(self) -> Evidence:
        return Evidence(EvidenceKind.LOWER_BOUND, self.task.space)

    def log_scores(self, x: Tensor, *, rng: Generator | None = None) -> Tensor:
        return -self._divergence(*self._posterior(x))  # (B, K)

    def log_likelihood(self, x: Tensor, *, rng: Generator | None = None) -> Tensor:
        mean, log_scale = self._posterior(x)
        z = mean if rng is None else mean + log_scale.exp() * standard_normal(mean, rng)
        return self._reconstruction(x, z)[:, None] - self._divergence(mean, log_scale)

    def importance_weighted(self, x: Tensor, n_samples: int, *, rng: Generator) -> Tensor:
        mean, log_scale = self._posterior(x)
        log_weights = []
        for _ in range(n_samples):
            noise = standard_normal(mean, rng)
            z = mean + log_scale.exp() * noise
            log_q = normal(z, mean, log_scale).sum(1)
            log_prior = normal(z[:, None], self.component_mean, self.component_log_scale).sum(2)  # (B, K)
            log_weights.append((self._reconstruction(x, z) - log_q)[:, None] + log_prior)
        return torch.stack(log_weights).logsumexp(0) - math.log(n_samples)

    def statistics(self, x: Tensor) -> dict[str, Tensor]:
        mean, log_scale = self._posterior(x)
        reconstruction = self._reconstruction(x, mean)
        divergence = self._divergence(mean, log_scale)
        d, D = mean.shape[1], self.task.n_dims
        # A point's squared distance is the divergence of a distribution without a width, up to the widths' own terms.
        precision = torch.exp(-2 * self.component_log_scale)
        squared = mean.square() @ precision.mT - 2 * mean @ (precision * self.component_mean).mT
        squared = squared + (precision * self.component_mean.square()).sum(1)
        return {
            "log_scores": -divergence,
            "log_likelihood": reconstruction[:, None] - divergence,
            "reconstruction": reconstruction / D,
            "divergence": divergence / d,
            "mahalanobis": (squared.clamp_min(0) / d).sqrt(),
        }

    def sample(self, c: Tensor, *, rng: Generator | None = None) -> Tensor:
        return self.decode(self.latent(c, rng=rng))

    def encode(self, x: Tensor) -> Tensor:
        return self._posterior(x)[0]

    def decode(self, z: Tensor) -> Tensor:
        mean, _ = self._pixels(z)
        return mean.clamp(0, 1) if self.task.space is Space.PIXELS8 else self.standardise.inverse(mean)

    def features(self, x: Tensor) -> Tensor:
        return self.trunk.pooled(self.standardise(x))

    def components(self) -> tuple[Tensor, Tensor]:
        return self.component_mean, self.component_log_scale

    def drawn_from(self) -> tuple[Tensor, Tensor]:
        return self.aggregate.gaussians()

    def objectives(self) -> Sequence[Objective]:
        return (Objective("bound", tuple(self.parameters()), self._loss),)

    def _loss(self, x: Tensor, y: Tensor, rng: Generator) -> Tensor:
        """The bound per dimension and the cross-entropy; an unlabelled image has Σ_c π_c p(x | c) for its likelihood."""
        mean, log_scale = self._posterior(x)
        self.aggregate.follow(mean, (2 * log_scale).exp(), y)
        z = mean + log_scale.exp() * standard_normal(mean, rng)
        return self._bound_loss(x, y, (mean, log_scale), self._pixels(z))

    def _bound_loss(self, x: Tensor, y: Tensor, posterior: Pair, pixels: Pair) -> Tensor:
        """The same, given means and log scales of q(z | x) and of p(x | z)."""
        divergence = self._divergence(*posterior)
        log_joint = self.log_prior - divergence  # (B, K)
        labelled = y >= 0
        own = divergence.gather(1, y.clamp_min(0)[:, None])[:, 0]
        bound = self._density(x, *pixels) - torch.where(labelled, own, -log_joint.logsumexp(1))
        loss = -bound.mean() / self.task.n_dims
        if self.class_weight == 0:
            return loss
        return loss + self.class_weight * class_cross_entropy(log_joint, y, smoothing=self.label_smoothing)

    def _posterior(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log scale of q(z | x), (B, d) each."""
        features = self.trunk(self.standardise(x))
        mean, log_scale = self.to_latent(features).float().chunk(2, 1)
        return mean, _bounded(log_scale, -7, 3)

    def _divergence(self, mean: Tensor, log_scale: Tensor) -> Tensor:
        return normal_divergence(mean, log_scale, self.component_mean, self.component_log_scale)

    def _pixels(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log scale of p(x | z), each of an image's shape."""
        mean, log_scale = self.head(z).float().chunk(2, 1)
        if self.task.space is Space.FEATURES:
            return mean, _bounded(log_scale, -4, 3)
        return mean + 0.5, _bounded(log_scale - 2, -7, 1)

    def _reconstruction(self, x: Tensor, z: Tensor) -> Tensor:
        """log p(x | z), (B,) nats."""
        return self._density(x, *self._pixels(z))

    def _density(self, x: Tensor, mean: Tensor, log_scale: Tensor) -> Tensor:
        """log p(x | z) of a mean and log scale for every pixel or dimension, (B,) nats."""
        if self.task.space is Space.PIXELS8:
            return discretised_logistic(x, mean, log_scale).flatten(1).sum(1)
        return (normal(self.standardise(x), mean, log_scale) - self.standardise.scale.log()).sum(1)


def _bounded(x: Tensor, low: float, high: float) -> Tensor:
    """x held softly between two values: a clamp would stop the gradient just where it is needed."""
    middle, half = (low + high) / 2, (high - low) / 2
    return middle + half * torch.tanh((x - middle) / half)
