"""Variational autoencoder with one Gaussian per class in its latent space: log p(x | c) ≥ E_q log p(x | z) − KL_c.

Neither q(z | x) nor p(x | z) depends on the class, so the reconstruction term cancels in Bayes' rule and the posterior p(c | x)
needs only the encoder (Jiang 2017, Variational Deep Embedding).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Self, TypeAlias

import torch
from pydantic import Field
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from likely.base import (
    Domain,
    GenerativeModel,
    HasFeatures,
    ImportanceWeighted,
    LatentClassMixture,
    LikelihoodKind,
    ModelOutputs,
    Objective,
    SupportsMissingPixels,
    SupportsNewClasses,
    Task,
    stack_statistics,
)
from likely.exceptions import InvalidValueError
from likely.models.new_class import DEFAULT_NEW_CLASS, fit_new_class, with_untrained_class
from likely.networks.aggregated_posterior import AggregatedPosterior
from likely.networks.background import BackgroundModel
from likely.networks.blocks import TrunkOptions, make_decoder, make_encoder, standard_normal
from likely.networks.likelihoods import class_cross_entropy, discretized_logistic, normal, normal_divergence
from likely.networks.masked_encoder import MaskedEncoder, MaskedEncoderOptions, Proposal
from likely.networks.standardizer import Standardized, Standardizer

Pair: TypeAlias = tuple[Tensor, Tensor]


class VAEOptions(TrunkOptions):
    """Options of `vae`."""

    latent_dims: int = Field(32, ge=1, description="Dimensions of the latent space.")
    class_weight: float = Field(
        3.0,
        ge=0,
        description="Weight of the cross-entropy of p(c | x) relative to the ELBO per dimension; 0: ELBO only.",
    )
    label_smoothing: float = Field(
        0.0, ge=0, lt=1, description="Label smoothing: probability mass of each label spread over all classes."
    )
    masked_every: int = Field(
        2,
        ge=0,
        description="Training steps between updates of the encoder for masked images; 0: none, and masked images cannot be "
        "classified.",
    )


class VAE(
    GenerativeModel,
    LatentClassMixture,
    ImportanceWeighted,
    HasFeatures,
    SupportsMissingPixels,
    SupportsNewClasses,
    Standardized,
):
    """L_c = E_q(z|x) log p(x | z) − KL(q(z | x) ‖ p(z | c)), p(z | c) = N(mean_c, scale_c²)  (Kingma & Welling 2014, eq. 3).

    Trained on −L_y / D + class_weight · cross-entropy of softmax(−KL + log π_train), because the class accounts for only a few
    of thousands of nats of the likelihood (Ardizzone 2020, Training Normalizing Flows with the Information Bottleneck). The
    cross-entropy moves the components away from the latents of their classes, so samples come from the Gaussian nearest to the
    aggregated posterior q(z | c) instead (Ghosh 2020, From Variational to Deterministic Autoencoders, section 4).
    """

    options_type = VAEOptions

    def __init__(self, task: Task, options: VAEOptions) -> None:
        super().__init__(task, options)
        d, K = options.latent_dims, task.n_classes
        self.class_weight, self.label_smoothing = options.class_weight, options.label_smoothing
        self.encoder = make_encoder(task.shape, width=options.width, depth=options.depth)
        self.to_latent = nn.Linear(self.encoder.n_features, 2 * d)
        self.decoder = make_decoder(d, (2 * task.shape[0], *task.shape[1:]), width=options.width, depth=options.depth)
        # Components start about three standard deviations apart, to break the symmetry.
        directions = torch.randn(K, d)
        self.component_mean = nn.Parameter(2 * directions / directions.norm(dim=1, keepdim=True))
        self.component_log_scale = nn.Parameter(torch.zeros(K, d))
        self.aggregate = AggregatedPosterior(self.component_mean)
        self.standardizer = Standardizer.of(task)
        self.background = BackgroundModel(task.shape[0]) if task.domain is Domain.PIXELS8 else None
        self.masked_every = options.masked_every if task.domain is Domain.PIXELS8 else 0
        masked = MaskedEncoderOptions(width=options.width, depth=options.depth)
        self.masked_encoder = MaskedEncoder(task.shape, K, d, masked) if self.masked_every else None
        self._last_posterior: Pair | None = None  # q(z | x) of the current step

    @property
    def likelihood_kind(self) -> LikelihoodKind:
        return LikelihoodKind.LOWER_BOUND

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

    def outputs(self, x: Tensor) -> ModelOutputs:
        features, activations = self.encoder.forward_with_activations(self.standardizer(x))
        mean, log_scale = self._posterior_of(features)
        pixels = self._pixels(mean)
        region_statistics = self._region_statistics(x, *pixels)
        reconstruction = self._density(x, *pixels)
        divergence = self._divergence(mean, log_scale)
        d, D = mean.shape[1], self.task.n_dims
        # Squared Mahalanobis distance of the posterior mean to each component.
        precision = torch.exp(-2 * self.component_log_scale)
        squared = mean.square() @ precision.mT - 2 * mean @ (precision * self.component_mean).mT
        squared = squared + (precision * self.component_mean.square()).sum(1)
        mahalanobis = (squared.clamp_min(0) / d).sqrt()
        return ModelOutputs(
            log_scores=-divergence,
            log_likelihood=reconstruction[:, None] - divergence,
            statistics=stack_statistics([divergence / d, mahalanobis, reconstruction / D], self.task.n_classes),
            features=torch.cat([activations, mean, log_scale, region_statistics], 1),
            latent=mean / self.embedding_scale(),
        )

    def observed_log_likelihood(self, x: Tensor, observed: Tensor, *, rng: Generator | None = None) -> Tensor:
        """Return log p(x_o) + log Σ_s w_s p(z_s | c) / p(z_s), (B, K) nats, over samples z_s of the masked encoder's proposal.

        Importance sampling: v_s = p(x_o | z_s) p(z_s) / r(z_s), p(x_o) = 1/S Σ_s v_s (Burda 2016, eq. 8), w = v / Σ v, with
        flattened weights v^β if few samples dominate.
        """
        z, log_weight = self._importance_samples(x, observed, rng)
        flattened = self._masked_encoder().flatten_weights(log_weight)
        log_p = self._log_components(z)  # (B, S, K)
        log_marginal = (log_p + self.log_prior).logsumexp(2, keepdim=True)
        L = (flattened[:, :, None] + log_p - log_marginal).logsumexp(1)
        L = L + log_weight.logsumexp(1, keepdim=True) - math.log(z.shape[1])
        return L * observed.flatten(1).any(1)[:, None]

    def impute(self, x: Tensor, observed: Tensor, c: Tensor, *, rng: Generator | None = None) -> Tensor:
        """Replace hidden pixels by the decoding of the most probable of the latents proposed for the class."""
        proposed = self._proposed(x, observed)
        one_hot = F.one_hot(c, self.task.n_classes).bool()
        z = replace(proposed, log_weight=torch.where(one_hot, 0.0, -torch.inf)).sample(*self._proposal_noise(x, rng))
        log_own = self._log_components(z).gather(2, c[:, None, None].expand(-1, z.shape[1], 1))[:, :, 0]
        best = (self._observed_density(x, observed, z) + log_own).argmax(1)
        imputed = self.decode(z[torch.arange(len(x), device=x.device), best])
        return torch.where(observed[:, None], x, imputed)

    def _importance_samples(self, x: Tensor, observed: Tensor, rng: Generator | None) -> Pair:
        """Sample latents z (B, S, d) with log weights log p(x_o | z) p(z) / r(z), (B, S)."""
        proposed = self._proposed(x, observed)
        z = proposed.sample(*self._proposal_noise(x, rng))
        log_prior = (self._log_components(z) + self.log_prior).logsumexp(2)
        return z, self._observed_density(x, observed, z) + log_prior - proposed.log_joint(z).logsumexp(2)

    def _masked_encoder(self) -> MaskedEncoder:
        if self.masked_encoder is None:
            raise InvalidValueError(
                "this model was trained without masked images; train it with masked_every above 0, such as 4"
            )
        return self.masked_encoder

    def _proposed(self, x: Tensor, observed: Tensor) -> Proposal:
        proposed: Proposal = self._masked_encoder()(x, observed, self.sampling_distribution()[0])
        return proposed

    def _proposal_noise(self, x: Tensor, rng: Generator | None) -> Pair:
        """Return evenly spaced u (S,) and normal noise (S, d), shared by all images: a result does not depend on the batch."""
        rng = torch.Generator(x.device).manual_seed(0) if rng is None else rng
        S = self._masked_encoder().options.n_samples
        like = x.new_zeros(S, self.component_mean.shape[1], dtype=torch.float32)
        u = (torch.arange(S, device=x.device) + 0.5) / S
        return u, standard_normal(like, rng)

    def _log_components(self, z: Tensor) -> Tensor:
        """Return log p(z | c): (B, S, d) -> (B, S, K)."""
        precision = (-2 * self.component_log_scale).exp()
        squared = z.square() @ precision.mT - 2 * z @ (precision * self.component_mean).mT
        constant = (precision * self.component_mean.square() / 2 + self.component_log_scale).sum(1)
        return -squared / 2 - constant - 0.5 * math.log(2 * math.pi) * z.shape[2]

    def _observed_density(self, x: Tensor, observed: Tensor, z: Tensor) -> Tensor:
        """Return log p(x_o | z), (B, S), one decoder pass of all images per sample."""
        return torch.stack([self._density(x, *self._pixels(sample), observed) for sample in z.unbind(1)], 1)

    def sample(self, c: Tensor, *, rng: Generator | None = None) -> Tensor:
        return self.decode(self.latent(c, rng=rng))

    def encode(self, x: Tensor) -> Tensor:
        return self._posterior(x)[0]

    def decode(self, z: Tensor) -> Tensor:
        mean, _ = self._pixels(z)
        return mean.clamp(0, 1) if self.task.domain is Domain.PIXELS8 else self.standardizer.inverse(mean)

    def exemplar_features(self, x: Tensor) -> Tensor:
        """Return mean and log scale of q(z | x), concatenated."""
        return torch.cat(self._posterior(x), 1)

    @torch.no_grad()
    def with_new_class(self, x: Tensor, exemplars: Pair | None = None) -> Self:
        batches = [self._posterior(block) for block in torch.split(x, DEFAULT_NEW_CLASS.batch_size)]
        mean, log_scale = (torch.cat(values) for values in zip(*batches, strict=True))
        others = None
        if exemplars is not None:
            other_mean, other_log_scale = exemplars[0].to(mean).chunk(2, 1)
            others = (other_mean, other_log_scale), exemplars[1].to(mean.device)
        location, component = fit_new_class((mean, log_scale), self.sampling_distribution(), self.components(), others)
        new = self._with_extra_class(len(x))
        new.aggregate.set_last(*location)
        new.component_mean[-1], new.component_log_scale[-1] = component
        return new

    def _with_extra_class(self, n: int) -> Self:
        """Return a copy with an additional, unfitted class of n images."""
        new = with_untrained_class(self, n)
        if new.masked_encoder is not None:
            new.masked_encoder.add_class()
        return new

    def features(self, x: Tensor) -> Tensor:
        return self.encoder.pooled(self.standardizer(x))

    def components(self) -> tuple[Tensor, Tensor]:
        return self.component_mean, self.component_log_scale

    def sampling_distribution(self) -> tuple[Tensor, Tensor]:
        return self.aggregate.gaussians()

    def objectives(self) -> Sequence[Objective]:
        return (Objective("bound", self._parameters_except(), self._loss), *self._auxiliary_objectives())

    def _parameters_except(self, *others: str) -> tuple[nn.Parameter, ...]:
        """Return all parameters except those of the auxiliary networks, trained apart, and of these others."""
        prefixes = tuple(f"{name}." for name in ("background", "masked_encoder", *others))
        return tuple(p for name, p in self.named_parameters() if not name.startswith(prefixes))

    def _auxiliary_objectives(self) -> Sequence[Objective]:
        """Return the objectives of the auxiliary networks."""
        objectives = []
        if self.background is not None:
            parameters = tuple(self.background.parameters())
            objectives.append(
                Objective("background", parameters, self._background_loss, interval=self.background.options.interval)
            )
        if self.masked_encoder is not None:
            parameters = tuple(self.masked_encoder.parameters())
            # A log density has no upper bound.
            objectives.append(
                Objective("masked", parameters, self._masked_loss, interval=self.masked_every, bounded=False)
            )
        return objectives

    def _background_loss(self, x: Tensor, y: Tensor, rng: Generator) -> Tensor:
        assert self.background is not None
        return self.background.loss(x, rng)

    def _masked_loss(self, x: Tensor, y: Tensor, rng: Generator) -> Tensor:
        if self._last_posterior is None:  # only if called without the preceding ELBO step
            with torch.no_grad():
                self._last_posterior = self._posterior(x)
        mean, log_scale = self._last_posterior
        z = mean + log_scale.exp() * standard_normal(mean, rng)
        return self._masked_encoder().loss(x, y, z, self.sampling_distribution()[0], rng)

    def _loss(self, x: Tensor, y: Tensor, rng: Generator) -> Tensor:
        """Negative ELBO per dimension plus cross-entropy; unlabeled images contribute log Σ_c π_c p(x | c)."""
        mean, log_scale = self._posterior(x)
        self._last_posterior = mean.detach(), log_scale.detach()
        self.aggregate.update(mean, (2 * log_scale).exp(), y)
        z = mean + log_scale.exp() * standard_normal(mean, rng)
        return self._bound_loss(x, y, (mean, log_scale), self._pixels(z))

    def _bound_loss(self, x: Tensor, y: Tensor, posterior: Pair, pixels: Pair) -> Tensor:
        """Loss from means and log scales of q(z | x) and of p(x | z)."""
        divergence = self._divergence(*posterior)
        log_joint = self.log_prior - divergence  # (B, K)
        labeled = y >= 0
        label_divergence = divergence.gather(1, y.clamp_min(0)[:, None])[:, 0]
        bound = self._density(x, *pixels) - torch.where(labeled, label_divergence, -log_joint.logsumexp(1))
        loss = -bound.mean() / self.task.n_dims
        if self.class_weight == 0:
            return loss
        return loss + self.class_weight * class_cross_entropy(log_joint, y, smoothing=self.label_smoothing)

    def _posterior(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and log scale of q(z | x), (B, d) each."""
        return self._posterior_of(self.encoder(self.standardizer(x)))

    def _posterior_of(self, features: Tensor) -> Pair:
        mean, log_scale = self.to_latent(features).float().chunk(2, 1)
        return mean, _soft_clamp(log_scale, -7, 3)

    def _divergence(self, mean: Tensor, log_scale: Tensor) -> Tensor:
        return normal_divergence(mean, log_scale, self.component_mean, self.component_log_scale)

    def _pixels(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and log scale of p(x | z), each with the shape of images."""
        mean, log_scale = self.decoder(z).float().chunk(2, 1)
        if self.task.domain is Domain.FEATURES:
            return mean, _soft_clamp(log_scale, -4, 3)
        return mean + 0.5, _soft_clamp(log_scale - 2, -7, 1)

    def _reconstruction(self, x: Tensor, z: Tensor) -> Tensor:
        """Return log p(x | z), (B,) nats."""
        return self._density(x, *self._pixels(z))

    def _region_statistics(self, x: Tensor, mean: Tensor, log_scale: Tensor) -> Tensor:
        """Return likelihood, absolute error, log scale and background likelihood, averaged over a 4 x 4 grid: (B, R)."""
        if self.background is None:
            return log_scale.mean(1, keepdim=True)
        statistics = torch.cat(
            [discretized_logistic(x, mean, log_scale), (x - mean).abs(), log_scale, self.background(x)], 1
        )
        return F.adaptive_avg_pool2d(statistics, 4).flatten(1)

    def _density(self, x: Tensor, mean: Tensor, log_scale: Tensor, observed: Tensor | None = None) -> Tensor:
        """Return log p(x | z), (B,) nats, from mean and log scale, over all or only the `observed` pixels (B, H, W)."""
        if self.task.domain is Domain.PIXELS8:
            log_density = discretized_logistic(x, mean, log_scale)
            return (log_density if observed is None else log_density * observed[:, None]).flatten(1).sum(1)
        return (normal(self.standardizer(x), mean, log_scale) - self.standardizer.scale.log()).sum(1)


def _soft_clamp(x: Tensor, low: float, high: float) -> Tensor:
    """Bound x smoothly; a hard clamp would have zero gradient outside the interval."""
    center, radius = (low + high) / 2, (high - low) / 2
    return center + radius * torch.tanh((x - center) / radius)
