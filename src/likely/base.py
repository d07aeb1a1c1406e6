"""The contract between models and the rest of Likely.

A model of any kind narrows to one matrix, L[b, k] = log p(x_b | c = k) in nats. Posteriors, rejection of unknown images, label
shift and filtering over time are arithmetic on it (`likely.inference`) and do not know which model produced it. Small abstract
classes, the capabilities, declare what a model can do beyond that.

Shapes: B images, K classes, x (B, C, H, W) with pixels in [0, 1] or (B, D) vectors, class indices c and y (B,).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Any, ClassVar, Literal, Self, TypeAlias

import torch
from torch import Generator, Tensor, nn

from likely.options import Options

# Key of a validation context: options read from a checkpoint are taken as they are, without new defaults or restrictions.
STORED = "stored"

# "l2" divides by the norm, "whiten" takes principal components of unit variance, "none" changes nothing.
FeatureScaling: TypeAlias = Literal["l2", "whiten", "none"]


class FamilyOptions(Options):
    """Base of the options of a model family."""

    @property
    def training_defaults(self) -> Mapping[str, object]:
        """Training options in which the family differs from the general defaults; a user's own choice takes precedence."""
        return {}

    @property
    def feature_scaling(self) -> FeatureScaling:
        """Default scaling of features, if the family models features."""
        return "whiten"


class LikelihoodKind(StrEnum):
    """Kind of a log-likelihood: its exact value, a lower bound, or known up to an additive constant only."""

    EXACT = "exact"
    LOWER_BOUND = "lower bound"
    UNNORMALIZED = "unnormalized"


class Domain(StrEnum):
    """Sample space of a likelihood: the resized, stored 8-bit image, its sequence of tokens, or a feature vector."""

    PIXELS8 = "pixels8"
    TOKENS = "tokens"
    FEATURES = "features"


@dataclass(frozen=True)
class LikelihoodType:
    """Kind and domain of a log-likelihood, printed by every report as "lower bound on pixels8"."""

    kind: LikelihoodKind
    domain: Domain

    @property
    def has_bits_per_dim(self) -> bool:
        """True for a normalized probability of an 8-bit image, the only case in which bits/dim are comparable."""
        return self.kind is not LikelihoodKind.UNNORMALIZED and self.domain is Domain.PIXELS8

    def __str__(self) -> str:
        return f"{self.kind} on {self.domain}"


@dataclass(frozen=True)
class Task:
    """Shape of one input, (C, H, W) for images or (D,) for vectors, and the number of training images of each class."""

    shape: tuple[int, ...]
    class_counts: tuple[int, ...]

    @property
    def n_classes(self) -> int:
        return len(self.class_counts)

    @property
    def n_dims(self) -> int:
        return math.prod(self.shape)

    @property
    def domain(self) -> Domain:
        return Domain.PIXELS8 if len(self.shape) == 3 else Domain.FEATURES

    @property
    def log_prior(self) -> Tensor:
        """Training prior log π_train, shape (K,): log of the class fractions among the training images."""
        counts = torch.tensor(self.class_counts, dtype=torch.float32)
        return (counts / counts.sum()).log()


@dataclass(frozen=True)
class ModelOutputs:
    """Outputs of a model for B images: everything that a prediction is computed from, after a single pass.

    `log_scores` (B, K): log p(x | c), plus a correction per class if any, up to one constant per image, nats.
    `log_likelihood` (B, K): log p(x | c), nats; None for a model without a likelihood.
    `statistics` (B, K, n): n statistics of each image under each class, from which nonconformity scores are computed.
    `features` (B, F): features of the images that do not depend on the class, used in the same way; None without any.
    `latent` (B, d): embedding of the images in the space of `HasEmbedding.class_embeddings`; None without one.
    `log_odds_real` (B,): log p(real | x) / p(generated | x), nats; None for a model without a calibrated discriminator.
    `distances` (B, n): distances of each image to the known images, components of its nonconformity; None for a model that
    leaves them to the statistics.
    """

    log_scores: Tensor
    log_likelihood: Tensor | None
    statistics: Tensor
    features: Tensor | None = None
    latent: Tensor | None = None
    log_odds_real: Tensor | None = None
    distances: Tensor | None = None

    @classmethod
    def empty(cls, n_classes: int, n_statistics: int = 1) -> ModelOutputs:
        """Return the outputs for zero images."""
        return cls(torch.zeros(0, n_classes), None, torch.zeros(0, n_classes, n_statistics))

    @classmethod
    def concatenate(cls, batches: Sequence[ModelOutputs]) -> ModelOutputs:
        """Concatenate the outputs of one or more batches."""
        return cls(*(concatenate([getattr(batch, f.name) for batch in batches]) for f in fields(cls)))

    def subset(self, indices: Tensor) -> ModelOutputs:
        """Return the outputs of the images at `indices`, shape (n,)."""
        return self._map(lambda tensor: tensor[indices])

    def cpu(self) -> ModelOutputs:
        """Return the outputs in main memory."""
        return self._map(Tensor.cpu)

    def _map(self, function: Callable[[Tensor], Tensor]) -> ModelOutputs:
        values = (getattr(self, f.name) for f in fields(self))
        return ModelOutputs(*(None if value is None else function(value) for value in values))  # type: ignore[arg-type]


def concatenate(tensors: Sequence[Tensor | None]) -> Any:
    """Concatenate along the first axis; None if every item is None."""
    present = [tensor for tensor in tensors if tensor is not None]
    return torch.cat(present) if present else None


def stack_statistics(columns: Sequence[Tensor], n_classes: int) -> Tensor:
    """Stack statistics, (B,) or (B, K) each, to `ModelOutputs.statistics`, shape (B, K, n)."""
    return torch.stack([t if t.ndim == 2 else t[:, None].expand(-1, n_classes) for t in columns], 2)


def to_unit(x: Tensor) -> Tensor:
    """Return x / 255: uint8 of any shape -> float32 in [0, 1]."""
    return x.to(torch.float32) / 255


def to_eight_bit(x: Tensor) -> Tensor:
    """Return round(255 x), clamped: floats in [0, 1] of any shape -> uint8; inverts `to_unit`."""
    return (x.to(torch.float32) * 255).round().clamp(0, 255).to(torch.uint8)


@dataclass(frozen=True)
class Objective:
    """A loss and the parameters that minimize it: a likelihood model has one objective, a GAN two, a VAE-GAN three.

    `loss(x, y, rng)` returns a scalar; y = -1 marks an unlabeled image. The parameters are updated every `interval` steps, with
    `lr_ratio` times the learning rate (Heusel 2017, GANs trained by a two time-scale update rule). A loss that is not `bounded`
    below its start, such as a critic's or a distance between features, may rise without having diverged. A training in several
    phases has objectives that are active in a `span` of it only, each with the whole schedule of the learning rate.
    """

    name: str
    parameters: Sequence[nn.Parameter]
    loss: Callable[[Tensor, Tensor, Generator], Tensor]
    interval: int = 1
    lr_ratio: float = 1.0
    bounded: bool = True
    span: tuple[float, float] = (0.0, 1.0)  # fractions of the training

    def is_active(self, fraction: float) -> bool:
        """Return True if the parameters are updated at this fraction of the training."""
        return self.span[0] <= fraction < self.span[1]

    def progress(self, fraction: float) -> float:
        """Return the completed fraction of the span at a fraction of the training."""
        start, end = self.span
        return (fraction - start) / (end - start)


class Trainable(nn.Module, ABC):
    """A module that the training loop can train."""

    @abstractmethod
    def objectives(self) -> Sequence[Objective]:
        """Return the objectives in the order of their updates."""


class Scorer(Trainable):
    """A model that can classify; the softmax baseline is a Scorer and nothing more."""

    options_type: ClassVar[type[FamilyOptions]]
    evaluations_per_image: int = 1  # passes through the network for a prediction, of all classes together
    trained_by_gradient: ClassVar[bool] = True  # False: fitted in closed form, in one pass over the images

    def __init__(self, task: Task, options: FamilyOptions) -> None:
        super().__init__()
        self.task = task
        self.options = options
        self.log_prior: Tensor
        self.register_buffer("log_prior", task.log_prior, persistent=False)

    @abstractmethod
    def log_scores(self, x: Tensor, *, rng: Generator | None = None) -> Tensor:
        """Return log p(x | c) up to one constant per image, without the training prior: (B, K) nats, float32.

        p(c | x) = softmax(log_scores / T + log π). Without `rng` there is no noise.
        """

    def quick_log_scores(self, x: Tensor) -> Tensor:
        """Return `log_scores`, or an estimate of them at lower cost, for validation during training: (B, K) nats."""
        return self.log_scores(x)


class GenerativeModel(Scorer):
    """A model of p(x | c), the images of each class."""

    @property
    @abstractmethod
    def likelihood_kind(self) -> LikelihoodKind:
        """Kind of the value that `log_likelihood` returns."""

    @property
    def likelihood_type(self) -> LikelihoodType:
        """Kind and domain of the value that `log_likelihood` returns."""
        return LikelihoodType(self.likelihood_kind, self.task.domain)

    @property
    def score_correction(self) -> Tensor:
        """Correction of the scores for the noise of fitted parameters, (K,) nats: scores are L plus it, up to a constant."""
        return torch.zeros_like(self.log_prior)

    @abstractmethod
    def log_likelihood(self, x: Tensor, *, rng: Generator | None = None) -> Tensor:
        """Return L = log p(x | c), shape (B, K), in nats, with the same noise for every class.

        Without `rng` there is no noise: a stochastic bound takes its value at the posterior mean.
        """

    @abstractmethod
    def outputs(self, x: Tensor) -> ModelOutputs:
        """Return all outputs in one pass, without noise; statistics are comparable between image sizes."""

    @abstractmethod
    def sample(self, c: Tensor, *, rng: Generator | None = None) -> Tensor:
        """Sample x ~ p(x | c), (B, C, H, W) in [0, 1] or (B, D); without `rng`, return the most typical image of each class."""


class Latent(ABC):
    """Capability: images are decoded from a latent vector z, which allows interpolation and truncation."""

    @abstractmethod
    def latent(self, c: Tensor, *, rng: Generator | None = None, truncation: float = 1.0) -> Tensor:
        """Sample z ~ p(z | c), shape (B, d), with the noise scaled by `truncation`; without `rng`, return the mean."""

    @abstractmethod
    def decode(self, z: Tensor) -> Tensor:
        """Decode latent vectors (B, d) to (B, C, H, W) in [0, 1] or (B, D)."""


class HasEmbedding(ABC):
    """Capability: images and classes are points of one space, in which near classes are likely classes."""

    @abstractmethod
    def embed(self, x: Tensor) -> Tensor:
        """Return the embedding of each image, shape (B, d)."""

    @abstractmethod
    def class_embeddings(self) -> Tensor:
        """Return the embedding of each class, shape (K, d)."""


class LatentClassMixture(Latent, HasEmbedding):
    """Capability: every class is one Gaussian in a common latent space, p(z | c) = N(mean_c, diag exp(2 log_scale_c))."""

    @abstractmethod
    def encode(self, x: Tensor) -> Tensor:
        """Return the mean of q(z | x), shape (B, d)."""

    @abstractmethod
    def components(self) -> tuple[Tensor, Tensor]:
        """Return means and log scales of p(z | c), (K, d) each."""

    def sampling_distribution(self) -> tuple[Tensor, Tensor]:
        """Return means and log scales, (K, d) each, of the distribution that images are sampled from: p(z | c) by default."""
        return self.components()

    def embed(self, x: Tensor) -> Tensor:
        return self.encode(x) / self.embedding_scale()

    def class_embeddings(self) -> Tensor:
        return self.sampling_distribution()[0] / self.embedding_scale()

    def embedding_scale(self) -> Tensor:
        """Return the geometric mean over classes of the standard deviation along each latent axis, shape (d,)."""
        return self.sampling_distribution()[1].mean(0).exp()

    def latent(self, c: Tensor, *, rng: Generator | None = None, truncation: float = 1.0) -> Tensor:
        mean, log_scale = (values[c] for values in self.sampling_distribution())
        if rng is None:
            return mean
        noise = torch.randn(mean.shape, generator=rng, device=rng.device, dtype=mean.dtype).to(mean.device)
        return mean + truncation * log_scale.exp() * noise


class HasFeatures(ABC):
    """Capability: a few hundred learned features of an image that do not depend on a class; fidelity is measured in them."""

    @abstractmethod
    def features(self, x: Tensor) -> Tensor:
        """Return the features, shape (B, F), float32."""


class ImportanceWeighted(ABC):
    """Capability: a bound that tightens with the number of samples (Burda 2016, Importance Weighted Autoencoders, eq. 8)."""

    @abstractmethod
    def importance_weighted(self, x: Tensor, n_samples: int, *, rng: Generator) -> Tensor:
        """Return log 1/S Σ_s p(x | z_s) p(z_s | c) / q(z_s | x) with z_s ~ q(z | x), shape (B, K), in nats."""


class SupportsMissingPixels(ABC):
    """Capability: p(x_o | c), the likelihood of the observed pixels o, with the hidden pixels integrated out."""

    @abstractmethod
    def observed_log_likelihood(self, x: Tensor, observed: Tensor, *, rng: Generator | None = None) -> Tensor:
        """Return log p(x_o | c), shape (B, K), in nats, for a mask `observed` (B, H, W) bool; 0 where nothing is observed.

        Hidden pixels may hold any finite value.
        """

    @abstractmethod
    def impute(self, x: Tensor, observed: Tensor, c: Tensor, *, rng: Generator | None = None) -> Tensor:
        """Return the images with the hidden pixels replaced by their most likely values under class c, (B, C, H, W)."""


class HasLikelihoodMap(ABC):
    """Capability: log p(x | c) is a sum over pixels, so the difference of two classes shows where an image decides for one."""

    @abstractmethod
    def likelihood_map(self, x: Tensor) -> Tensor:
        """Return the contribution of every pixel to log p(x | c), shape (B, K, C, H, W) or (B, K, D), in nats."""

    @abstractmethod
    def unconditional_map(self, x: Tensor) -> Tensor:
        """Return the contributions to log p(x | ∅) of the model without a class, shape (B, C, H, W) or (B, D), in nats."""


class HasTemperature(ABC):
    """Capability: sampling at a temperature; below 1 samples are more typical and less varied."""

    @abstractmethod
    def sample_at(self, c: Tensor, temperature: float, *, rng: Generator) -> Tensor:
        """Sample with log-probabilities divided by the temperature, and normalized again: the shape of `sample`."""


class SupportsNewClasses(ABC):
    """Capability: one more class from a few images of it, without changing L for the existing classes."""

    def exemplar_features(self, x: Tensor) -> Tensor:
        """Return the features of images to keep for separating them from later classes, shape (B, F); F = 0 if none."""
        return x.new_zeros(len(x), 0)

    @abstractmethod
    def with_new_class(self, x: Tensor, exemplars: tuple[Tensor, Tensor] | None = None) -> Self:
        """Return a model with class K added, fitted to its images x (n, C, H, W).

        `exemplars` are the `exemplar_features` (N, F) of some images of the existing classes and their class indices (N,).
        """


class SupportsMoreImages(ABC):
    """Capability: more images improve one class, without changing L for the others."""

    @abstractmethod
    def with_more_images(self, x: Tensor, c: int) -> Self:
        """Return a model whose class c also learned from the images x (n, C, H, W), as if they had been trained on."""


class FitsInClosedForm(ABC):
    """Capability: statistics of the training images (mean, covariance, scale) that are computed instead of learned.

    One pass over the images calls `update_statistics` with every batch, then `finalize_statistics`; gradient steps, if any,
    follow. If the fit depends on a hyperparameter, `candidates` goes through its values and the likelihood of held-out images
    chooses.
    """

    @abstractmethod
    def update_statistics(self, x: Tensor, y: Tensor) -> None:
        """Add a batch to the running sums: x (B, ...), class indices y (B,), -1 for unlabeled."""

    @abstractmethod
    def finalize_statistics(self) -> None:
        """Compute the model's buffers from the running sums and discard the sums."""

    def candidates(self) -> Iterator[None]:
        """Finalize the statistics for each value of the hyperparameter in turn."""
        self.finalize_statistics()
        yield

    def with_chosen(self, options: FamilyOptions) -> FamilyOptions:
        """Return the options with the chosen hyperparameter fixed, for fitting the same model to other images."""
        return options
