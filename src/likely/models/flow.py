"""The invertible flow with one Gaussian per class in its latent space: log p(x | c) = log N(z; mean_c, 1) + log |det ∂z/∂x|.

Izmailov 2020, Semi-Supervised Learning with Normalizing Flows; Ardizzone 2020, Training Normalizing Flows with the
Information Bottleneck. The determinant is the same for every class, so one pass serves for all.
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
from likely.models.new_class import (
    BATCH_SIZE,
    component_at,
    copy_weights,
    estimate_from_few,
    fit_new_component,
    sample_latents,
)
from likely.networks.aggregated_posterior import AggregatedPosterior
from likely.networks.blocks import standard_normal, uniform
from likely.networks.flow_layers import Invertible, halvings, init_from_data, multi_scale
from likely.networks.likelihoods import class_cross_entropy
from likely.networks.standardizer import Standardized, Standardizer

LEVELS = 256  # of an 8-bit pixel


class FlowOptions(FamilyOptions):
    """Options of `flow`."""

    n_couplings: int = Field(4, ge=1, description="Couplings at each scale of an image, or on a vector.")
    width: int = Field(
        32,
        ge=4,
        description="Channels inside a coupling at the finest scale, doubling with each; vectors get eight times.",
    )
    noise: float = Field(
        0.02,
        ge=0,
        description="Standard deviation of noise on training images, of the whole range; of five times as much on vectors, in "
        "units of theirs. Values that repeat exactly would otherwise draw the whole density to themselves.",
    )
    clamp: float = Field(2.0, gt=0, description="Largest logarithm of a coupling's scale, approached softly.")
    class_weight: float = Field(
        5.0,
        ge=0,
        description="Weight of the cross-entropy of p(c | x) beside the bound per dimension; 0: likelihood alone.",
    )
    label_smoothing: float = Field(
        0.0, ge=0, lt=1, description="Share of each label spread over all classes in training."
    )

    @property
    def training_defaults(self) -> Mapping[str, object]:
        return {"learning_rate": 2e-3}


class VectorFlow(Invertible):
    """Spline couplings on vectors (Durkan 2019, Neural Spline Flows), as zuko builds them: outliers pass as they are."""

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
    eq. 4); without noise u = ½. Sides that do not halve evenly are filled up with pixels of pure noise, whose density
    is 1: they cost nothing and say nothing.

    Trained on −L_y / d + class_weight · cross-entropy of softmax(L + log π_train), d the numbers after filling up (Ardizzone
    2020, eq. 9). That pulls the components apart as in `vae`; images are drawn from where the latents of a class lie.
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
            self.padded = _padded(task.shape)
            width, n = options.width, options.n_couplings
            self.flow: Invertible = multi_scale(self.padded, n_couplings=n, width=width, clamp=options.clamp)
        else:
            self.padded = task.shape
            self.flow = VectorFlow(task.n_dims, n_couplings=options.n_couplings, width=8 * options.width)
        # Components start a few standard deviations apart, however many dimensions there are.
        d = math.prod(self.padded)
        self.component_mean = nn.Parameter(3 * torch.randn(task.n_classes, d) / math.sqrt(d))
        self.aggregate = AggregatedPosterior(self.component_mean)

    @property
    def likelihood_kind(self) -> LikelihoodKind:
        return LikelihoodKind.LOWER_BOUND if self.is_image else LikelihoodKind.EXACT

    def log_scores(self, x: Tensor, *, rng: Generator | None = None) -> Tensor:
        z, _ = self.flow(self._continuous(x, rng))
        return self._nearness(z)

    def log_likelihood(self, x: Tensor, *, rng: Generator | None = None) -> Tensor:
        z, log_det = self.flow(self._continuous(x, rng))
        return self._nearness(z) + self._shared(z, log_det)[:, None]

    def outputs(self, x: Tensor) -> ModelOutputs:
        z, log_det = self.flow(self._continuous(x, None))
        nearness, shared, d = self._nearness(z), self._shared(z, log_det), z.shape[1]
        distance = (z.square().sum(1, keepdim=True) - 2 * nearness).clamp_min(0)
        return ModelOutputs(
            log_scores=nearness,
            log_likelihood=nearness + shared[:, None],
            statistics=stack_statistics([log_det / d, (distance / d).sqrt()], self.task.n_classes),
            latent=z / self.embedding_scale(),
        )

    def sample(self, c: Tensor, *, rng: Generator | None = None) -> Tensor:
        return self.decode(self.latent(c, rng=rng))

    def encode(self, x: Tensor) -> Tensor:
        z: Tensor = self.flow(self._continuous(x, None))[0]
        return z

    def decode(self, z: Tensor) -> Tensor:
        v = self.flow.inverse(z)
        if not self.is_image:
            return self.standardizer.inverse(v)
        _, H, W = self.task.shape
        v = v[..., :H, :W] + 0.5
        return ((LEVELS * v - 0.5) / (LEVELS - 1)).clamp(0, 1)  # what lies in the middle of a pixel's bin is that pixel

    def components(self) -> tuple[Tensor, Tensor]:
        return self.component_mean, torch.zeros_like(self.component_mean)

    def sampling_distribution(self) -> tuple[Tensor, Tensor]:
        return self.aggregate.gaussians()

    def exemplar_features(self, x: Tensor) -> Tensor:
        """z."""
        return self.encode(x)

    @torch.no_grad()
    def with_new_class(self, x: Tensor, exemplars: tuple[Tensor, Tensor] | None = None) -> Self:
        z = torch.cat([self.encode(block) for block in torch.split(x, BATCH_SIZE)])
        place = estimate_from_few(z, torch.zeros_like(z), self.sampling_distribution())
        with torch.random.fork_rng(devices=[]):
            new = type(self)(Task(self.task.shape, (*self.task.class_counts, len(x))), self.settings)
        new.to(z.device).train(self.training)
        copy_weights(new, self)
        new.aggregate.set_last(*place)
        start = component_at(place, self.components(), self.sampling_distribution())
        posteriors = z, torch.full_like(z, -torch.inf)
        others = sample_latents(self.sampling_distribution())
        if exemplars is not None:
            points = exemplars[0].to(z)
            others = (points, torch.full_like(points, -torch.inf)), exemplars[1].to(z.device)
        new.component_mean[-1], _ = fit_new_component(start, posteriors, others, self.components(), scales=False)
        return new

    def objectives(self) -> Sequence[Objective]:
        return (Objective("bound", tuple(self.parameters()), self._loss),)

    def init_from_data(self, x: Tensor) -> None:
        if self.is_image:
            # With the noise of a training step: filled-up pixels and constant ones have no other variance to go by.
            init_from_data(self.flow, self._noisy(x, torch.Generator(x.device).manual_seed(0)))

    def _loss(self, x: Tensor, y: Tensor, rng: Generator) -> Tensor:
        """The bound per dimension and the cross-entropy; an unlabeled image has Σ_c π_c p(x | c) for its likelihood."""
        z, log_det = self.flow(self._noisy(x, rng))
        self.aggregate.update(z.detach(), torch.zeros_like(z), y)
        log_joint = self.log_prior + self._nearness(z)  # (B, K)
        labeled = y >= 0
        own = (log_joint - self.log_prior).gather(1, y.clamp_min(0)[:, None])[:, 0]
        bound = torch.where(labeled, own, log_joint.logsumexp(1)) + self._shared(z, log_det)
        loss: Tensor = -bound.mean() / z.shape[1]
        if self.class_weight == 0:
            return loss
        return loss + self.class_weight * class_cross_entropy(log_joint, y, smoothing=self.label_smoothing)

    def _noisy(self, x: Tensor, rng: Generator) -> Tensor:
        """What the flow is trained on."""
        v = self._continuous(x, rng)
        return v + self.noise * standard_normal(v, rng)

    def _continuous(self, x: Tensor, rng: Generator | None) -> Tensor:
        """8-bit pixels with noise within their bins, about 0, filled up to the flow's shape; vectors standardized."""
        if not self.is_image:
            standardized: Tensor = self.standardizer(x)
            return standardized
        u = 0.5 if rng is None else uniform(x.shape, x, rng)
        v = (x * (LEVELS - 1) + u) / LEVELS - 0.5
        _, H, W = self.padded
        if tuple(v.shape[2:]) == (H, W):
            return v
        shape = (len(x), *self.padded)
        filled = x.new_zeros(shape) if rng is None else uniform(shape, x, rng) - 0.5
        filled[..., : v.shape[2], : v.shape[3]] = v
        return filled

    def _nearness(self, z: Tensor) -> Tensor:
        """z·mean_c − ½‖mean_c‖², (B, K): −½‖z − mean_c‖² without what no class shares in."""
        with torch.autocast(z.device.type, enabled=False):
            nearness: Tensor = z.float() @ self.component_mean.mT - 0.5 * self.component_mean.square().sum(1)
            return nearness

    def _shared(self, z: Tensor, log_det: Tensor) -> Tensor:
        """What L has besides `_nearness`, the same for every class, (B,) nats."""
        d = z.shape[1]
        shared: Tensor = log_det - 0.5 * z.square().sum(1) - 0.5 * d * math.log(2 * math.pi)
        if self.is_image:
            return shared - self.task.n_dims * math.log(LEVELS)
        return shared - self.standardizer.scale.log().sum()


def _padded(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The image's shape with sides that can be halved as often as the flow does."""
    C, *sides = shape
    unit = 2 ** halvings(*sides)
    return (C, *(unit * math.ceil(side / unit) for side in sides))
