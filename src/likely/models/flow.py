"""Normalizing flow with one Gaussian per class in its latent space: log p(x | c) = log N(z; mean_c, I) + log |det ∂z/∂x|.

Izmailov 2020, Semi-Supervised Learning with Normalizing Flows; Ardizzone 2020, Training Normalizing Flows with the
Information Bottleneck. All classes share the determinant, so one pass computes L.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Self

import torch
import zuko
from pydantic import Field
from torch import Generator, Tensor, nn

from likely.base import (
    Domain,
    FamilyOptions,
    GenerativeModel,
    LatentClassMixture,
    LikelihoodKind,
    ModelOutputs,
    Objective,
    SupportsNewClasses,
    Task,
    stack_statistics,
)
from likely.models.new_class import NewClassOptions, fit_new_class, with_untrained_class
from likely.networks.aggregated_posterior import AggregatedPosterior
from likely.networks.blocks import standard_normal, uniform
from likely.networks.flow_layers import Invertible, MultiScaleOptions, multi_scale
from likely.networks.likelihoods import class_cross_entropy
from likely.networks.standardizer import Standardized, Standardizer

N_LEVELS = 256  # values of an 8-bit pixel


class FlowOptions(FamilyOptions):
    """Options of `flow`."""

    n_couplings: int = Field(4, ge=1, description="Coupling layers per scale for images, in total for vectors.")
    width: int = Field(
        32,
        ge=4,
        description="Channels of the coupling networks at the finest scale, doubled at each coarser one. Networks for vectors "
        "have eight times as many units.",
    )
    noise: float = Field(
        0.02,
        ge=0,
        description="Standard deviation of noise on training images with values in [0, 1]; five times as much on standardized "
        "vectors. Noise keeps the density from collapsing onto repeated values.",
    )
    clamp: float = Field(2.0, gt=0, description="Bound of the log scale of an affine coupling (soft clamping).")
    class_weight: float = Field(
        5.0,
        ge=0,
        description="Weight of the cross-entropy of p(c | x) relative to the log-likelihood per dimension; 0: likelihood only.",
    )
    label_smoothing: float = Field(
        0.0, ge=0, lt=1, description="Label smoothing: probability mass of each label spread over all classes."
    )

    @property
    def training_defaults(self) -> Mapping[str, object]:
        return {"learning_rate": 2e-3}


class _SplineFlow(Invertible):
    """Neural spline flow on vectors (Durkan 2019), by zuko; the identity outside the splines' interval."""

    def __init__(self, n_dims: int, *, n_couplings: int, width: int) -> None:
        super().__init__()
        hidden = (width, width)
        self.flow = zuko.flows.NSF(n_dims, transforms=n_couplings, randperm=True, passes=2, hidden_features=hidden)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        z, log_det = self.flow.transform().call_and_ladj(x)
        return z, log_det

    def inverse(self, y: Tensor) -> Tensor:
        x: Tensor = self.flow.transform().inv(y)
        return x


class Flow(GenerativeModel, LatentClassMixture, SupportsNewClasses, Standardized):
    """L_c = log N(z; mean_c, 1) + log |det ∂z/∂x|, exact on vectors.

    On 8-bit pixels k, v = (k + u) / 256 with u ~ U(0, 1), and E_u log p(v) − D log 256 bounds log p(k) from below (Theis 2016,
    eq. 4); without noise u = ½. Sides that cannot be halved evenly are padded with uniform noise, whose density
    is 1.

    Trained on −L_y / d + class_weight · cross-entropy of softmax(L + log π_train), d the padded dimension (Ardizzone 2020,
    eq. 9). As in `vae` the cross-entropy separates the components, so samples come from the aggregated posteriors.
    """

    options_type = FlowOptions

    def __init__(self, task: Task, options: FlowOptions) -> None:
        super().__init__(task, options)
        self.settings = options
        self.class_weight, self.label_smoothing = options.class_weight, options.label_smoothing
        self.standardizer = Standardizer.of(task)
        self.is_image = task.domain is Domain.PIXELS8
        self.noise = options.noise if self.is_image else 5 * options.noise
        if self.is_image:
            scales = MultiScaleOptions(n_couplings=options.n_couplings, width=options.width, clamp=options.clamp)
            self.padded = scales.padded_shape(task.shape)
            self.flow: Invertible = multi_scale(self.padded, scales)
        else:
            self.padded = task.shape
            self.flow = _SplineFlow(task.n_dims, n_couplings=options.n_couplings, width=8 * options.width)
        # Components start about four standard deviations apart in any dimension.
        d = math.prod(self.padded)
        self.component_mean = nn.Parameter(3 * torch.randn(task.n_classes, d) / math.sqrt(d))
        self.aggregate = AggregatedPosterior(self.component_mean)

    @property
    def likelihood_kind(self) -> LikelihoodKind:
        return LikelihoodKind.LOWER_BOUND if self.is_image else LikelihoodKind.EXACT

    def log_scores(self, x: Tensor, *, rng: Generator | None = None) -> Tensor:
        z, _ = self.flow(self._dequantized(x, rng))
        return self._class_log_density(z)

    def log_likelihood(self, x: Tensor, *, rng: Generator | None = None) -> Tensor:
        z, log_det = self.flow(self._dequantized(x, rng))
        return self._class_log_density(z) + self._common_log_density(z, log_det)[:, None]

    def outputs(self, x: Tensor) -> ModelOutputs:
        z, log_det = self.flow(self._dequantized(x, None))
        class_log_density, common, d = self._class_log_density(z), self._common_log_density(z, log_det), z.shape[1]
        distance = (z.square().sum(1, keepdim=True) - 2 * class_log_density).clamp_min(0)
        return ModelOutputs(
            log_scores=class_log_density,
            log_likelihood=class_log_density + common[:, None],
            statistics=stack_statistics([log_det / d, (distance / d).sqrt()], self.task.n_classes),
            latent=z / self.embedding_scale(),
        )

    def sample(self, c: Tensor, *, rng: Generator | None = None) -> Tensor:
        return self.decode(self.latent(c, rng=rng))

    def encode(self, x: Tensor) -> Tensor:
        z: Tensor = self.flow(self._dequantized(x, None))[0]
        return z

    def decode(self, z: Tensor) -> Tensor:
        v = self.flow.inverse(z)
        if not self.is_image:
            return self.standardizer.inverse(v)
        _, H, W = self.task.shape
        v = v[..., :H, :W] + 0.5
        return ((N_LEVELS * v - 0.5) / (N_LEVELS - 1)).clamp(0, 1)  # bin centers map to their pixel value

    def components(self) -> tuple[Tensor, Tensor]:
        return self.component_mean, torch.zeros_like(self.component_mean)

    def sampling_distribution(self) -> tuple[Tensor, Tensor]:
        return self.aggregate.gaussians()

    def exemplar_features(self, x: Tensor) -> Tensor:
        """Return z."""
        return self.encode(x)

    @torch.no_grad()
    def with_new_class(self, x: Tensor, exemplars: tuple[Tensor, Tensor] | None = None) -> Self:
        options = NewClassOptions(fit_scale=False)
        z = torch.cat([self.encode(block) for block in torch.split(x, options.batch_size)])
        others = None if exemplars is None else (_points(exemplars[0].to(z)), exemplars[1].to(z.device))
        location, component = fit_new_class(
            _points(z), self.sampling_distribution(), self.components(), others, options
        )
        new = with_untrained_class(self, len(x))
        new.aggregate.set_last(*location)
        new.component_mean[-1] = component[0]
        return new

    def objectives(self) -> Sequence[Objective]:
        return (Objective("bound", tuple(self.parameters()), self._loss),)

    def init_from_data(self, x: Tensor) -> None:
        if self.is_image:
            # With training noise: padding and constant pixels have no variance without it.
            self.flow.init_from_data(self._noisy_input(x, torch.Generator(x.device).manual_seed(0)))

    def _loss(self, x: Tensor, y: Tensor, rng: Generator) -> Tensor:
        """Negative log-likelihood per dimension plus cross-entropy; unlabeled images contribute log Σ_c π_c p(x | c)."""
        z, log_det = self.flow(self._noisy_input(x, rng))
        self.aggregate.update(z.detach(), torch.zeros_like(z), y)
        log_joint = self.log_prior + self._class_log_density(z)  # (B, K)
        labeled = y >= 0
        log_likelihood = (log_joint - self.log_prior).gather(1, y.clamp_min(0)[:, None])[:, 0]
        bound = torch.where(labeled, log_likelihood, log_joint.logsumexp(1)) + self._common_log_density(z, log_det)
        loss: Tensor = -bound.mean() / z.shape[1]
        if self.class_weight == 0:
            return loss
        return loss + self.class_weight * class_cross_entropy(log_joint, y, smoothing=self.label_smoothing)

    def _noisy_input(self, x: Tensor, rng: Generator) -> Tensor:
        """Dequantized or standardized input with training noise."""
        v = self._dequantized(x, rng)
        return v + self.noise * standard_normal(v, rng)

    def _dequantized(self, x: Tensor, rng: Generator | None) -> Tensor:
        """Dequantize 8-bit pixels to [-0.5, 0.5] and pad them to the flow's shape; standardize vectors."""
        if not self.is_image:
            standardized: Tensor = self.standardizer(x)
            return standardized
        u = 0.5 if rng is None else uniform(x.shape, x, rng)
        v = (x * (N_LEVELS - 1) + u) / N_LEVELS - 0.5
        _, H, W = self.padded
        if tuple(v.shape[2:]) == (H, W):
            return v
        shape = (len(x), *self.padded)
        padded = x.new_zeros(shape) if rng is None else uniform(shape, x, rng) - 0.5
        padded[..., : v.shape[2], : v.shape[3]] = v
        return padded

    def _class_log_density(self, z: Tensor) -> Tensor:
        """Return z·mean_c − ½‖mean_c‖², (B, K): the class-dependent terms of log N(z; mean_c, I)."""
        with torch.autocast(z.device.type, enabled=False):
            class_log_density: Tensor = z.float() @ self.component_mean.mT - 0.5 * self.component_mean.square().sum(1)
            return class_log_density

    def _common_log_density(self, z: Tensor, log_det: Tensor) -> Tensor:
        """Return the terms of L that all classes share, (B,) nats."""
        d = z.shape[1]
        common: Tensor = log_det - 0.5 * z.square().sum(1) - 0.5 * d * math.log(2 * math.pi)
        if self.is_image:
            return common - self.task.n_dims * math.log(N_LEVELS)
        return common - self.standardizer.scale.log().sum()


def _points(z: Tensor) -> tuple[Tensor, Tensor]:
    """Return latents (N, d) as Gaussians without variance: means and log scales."""
    return z, torch.full_like(z, -torch.inf)
