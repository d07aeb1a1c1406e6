"""The contract that every model keeps: p(c | x) ∝ p(x | c) p(c), with p(x | c) the model's business and the rest arithmetic.

A model narrows whatever it is to one matrix, L[b, k] = log p(x_b | c = k). What is done with L is none of its concern.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar, Literal, Self, TypeAlias

import torch
from torch import Generator, Tensor, nn

from likely.options import Options

# In the context of a validation: the options are a model's own, and nothing of today is to change or to refuse them.
STORED = "stored"


# Features of length 1; their principal components, of variance 1; as they are.
FeatureScaling: TypeAlias = Literal["l2", "whiten", "none"]


class FamilyOptions(Options):
    """The options of a family."""

    @property
    def training_defaults(self) -> Mapping[str, object]:
        """The training options that the family does better with than with the general ones, which a user may still change."""
        return {}

    @property
    def feature_scaling(self) -> FeatureScaling:
        """What the family would have features scaled to, where it is a density of features."""
        return "whiten"


class LikelihoodKind(StrEnum):
    """What a log-likelihood is: the value itself, a bound from below, or known only up to a constant."""

    EXACT = "exact"
    LOWER_BOUND = "lower bound"
    UNNORMALIZED = "unnormalized"


class Domain(StrEnum):
    """What the likelihood is a likelihood of: the resized, stored 8-bit image, or a vector of features."""

    PIXELS8 = "pixels8"
    FEATURES = "features"


@dataclass(frozen=True)
class LikelihoodType:
    """The kind and the space of a model's log-likelihood; every report prints it."""

    kind: LikelihoodKind
    domain: Domain

    @property
    def has_bits_per_dim(self) -> bool:
        """Whether bits/dim mean anything: a normalized probability of an 8-bit image."""
        return self.kind is not LikelihoodKind.UNNORMALIZED and self.domain is Domain.PIXELS8

    def __str__(self) -> str:
        return f"{self.kind} on {self.domain}"


@dataclass(frozen=True)
class Task:
    """What a model is built for: one image's shape, (C, H, W) or (D,) for vectors, and the training images of each class."""

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
        """log π_train, (K,): the training images' class shares."""
        counts = torch.tensor(self.class_counts, dtype=torch.float32)
        return (counts / counts.sum()).log()


@dataclass(frozen=True)
class Objective:
    """What to minimize, over which parameters: a likelihood model has one, a GAN two, a VAE-GAN three.

    `loss(x, y, rng)` is a scalar; y = -1 marks an unlabeled image. `every` counts the steps from one update to the next,
    `rate` is the objective's share of the learning rate (Heusel 2017: two networks that play against each other need two).
    A loss that is not `bounded`, as a critic's or a distance between features, may rise far from where it was and all is well.
    """

    name: str
    parameters: Sequence[nn.Parameter]
    loss: Callable[[Tensor, Tensor, Generator], Tensor]
    interval: int = 1
    lr_ratio: float = 1.0
    bounded: bool = True


class Trainable(nn.Module, ABC):
    """Anything that the training loop can train."""

    @abstractmethod
    def objectives(self) -> Sequence[Objective]:
        """What to minimize, over which parameters."""


class Scorer(Trainable):
    """Enough to classify, and no more: the softmax twin is a Scorer and nothing else."""

    options_type: ClassVar[type[FamilyOptions]]
    evaluations_per_image: ClassVar[int] = 1  # passes through the network in prediction, for all classes together
    trained_by_gradient: ClassVar[bool] = True  # else all that it knows is measured, in one pass over the images

    def __init__(self, task: Task, options: FamilyOptions) -> None:
        super().__init__()
        self.task = task
        self.options = options
        self.log_prior: Tensor
        self.register_buffer("log_prior", task.log_prior, persistent=False)

    @abstractmethod
    def log_scores(self, x: Tensor, *, rng: Generator | None = None) -> Tensor:
        """log p(x | c) up to one constant per image, the training prior removed: (B, C, H, W) in [0, 1] -> (B, K) nats."""


class GenerativeModel(Scorer):
    """A model of what the images of each class look like."""

    @property
    @abstractmethod
    def likelihood_type(self) -> LikelihoodType:
        """What `log_likelihood` is, and of what space."""

    @abstractmethod
    def log_likelihood(self, x: Tensor, *, rng: Generator | None = None) -> Tensor:
        """L itself: (B, C, H, W) in [0, 1] -> (B, K) nats, with the same noise for every class.

        Without `rng` there is no noise: a bound by sampling becomes its value at the posterior's mean.
        """

    @abstractmethod
    def sample(self, c: Tensor, *, rng: Generator | None = None) -> Tensor:
        """x ~ p(x | c): (B,) class indices -> (B, C, H, W) in [0, 1]; without `rng`, each class's most typical image."""


class Diagnostics(ABC):
    """Ability: more about an image than its likelihood, for telling the unknown from the known."""

    @abstractmethod
    def statistics(self, x: Tensor) -> Mapping[str, Tensor]:
        """Named (B,) or (B, K) tensors, of comparable size whatever the image's: what rejection looks at.

        `log_scores` and `log_likelihood`, (B, K) nats as the methods of these names give them, are always among them, so that
        one pass through the networks serves for all. `log_odds_real`, (B,) nats, is there if a discriminator says as much:
        log p(real | x) / p(made | x). `description`, (B, F), may be: all that the networks see in an image, whatever its class.
        """


class Latent(ABC):
    """Ability: an image comes from a vector z, so that one can walk from one image to another, or stay near the typical."""

    @abstractmethod
    def latent(self, c: Tensor, *, rng: Generator | None = None, truncation: float = 1.0) -> Tensor:
        """z ~ p(z | c) with its noise scaled by `truncation`: (B,) class indices -> (B, d); without `rng`, the mean."""

    @abstractmethod
    def decode(self, z: Tensor) -> Tensor:
        """The image of a latent vector: (B, d) -> (B, C, H, W) in [0, 1]."""


class HasEmbedding(ABC):
    """Ability: images and classes are places in one space, in which an image's distance from a class tells how like it is."""

    @abstractmethod
    def embed(self, x: Tensor) -> Tensor:
        """Where images are: (B, ...) -> (B, d)."""

    @abstractmethod
    def class_embeddings(self) -> Tensor:
        """Where the classes are, (K, d)."""


class LatentClassMixture(Latent, HasEmbedding):
    """Ability: one latent space in which every class is one component, p(z | c) = N(mean_c, diag exp(2 log_scale_c))."""

    @abstractmethod
    def encode(self, x: Tensor) -> Tensor:
        """The mean of q(z | x): (B, C, H, W) -> (B, d)."""

    @abstractmethod
    def components(self) -> tuple[Tensor, Tensor]:
        """The components' means and log scales, (K, d) each."""

    def sampling_distribution(self) -> tuple[Tensor, Tensor]:
        """Means and log scales (K, d) of what images are drawn from: the components, unless a family knows better."""
        return self.components()

    def embed(self, x: Tensor) -> Tensor:
        return self.encode(x) / self._mean_scale()

    def class_embeddings(self) -> Tensor:
        return self.sampling_distribution()[0] / self._mean_scale()

    def _mean_scale(self) -> Tensor:
        """Of where a class's images lie along each axis, (d,)."""
        return self.sampling_distribution()[1].mean(0).exp()

    def latent(self, c: Tensor, *, rng: Generator | None = None, truncation: float = 1.0) -> Tensor:
        mean, log_scale = (part[c] for part in self.sampling_distribution())
        if rng is None:
            return mean
        noise = torch.randn(mean.shape, generator=rng, device=rng.device, dtype=mean.dtype).to(mean.device)
        return mean + truncation * log_scale.exp() * noise


class HasFeatures(ABC):
    """Ability: a few hundred learned features of an image, before any class is decided: what fidelity is measured in."""

    @abstractmethod
    def features(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, F)."""


class ImportanceWeighted(ABC):
    """Ability: a bound that tightens with the number of samples (Burda 2016, Importance Weighted Autoencoders, eq. 8)."""

    @abstractmethod
    def importance_weighted(self, x: Tensor, n_samples: int, *, rng: Generator) -> Tensor:
        """log 1/S Σ_s p(x | z_s) p(z_s | c) / q(z_s | x), z_s ~ q(z | x): (B, C, H, W) -> (B, K) nats."""


class SupportsMissingPixels(ABC):
    """Ability: p(x_o | c), the likelihood of the observed pixels o alone, whatever the hidden ones may show."""

    @abstractmethod
    def observed_log_likelihood(self, x: Tensor, observed: Tensor, *, rng: Generator | None = None) -> Tensor:
        """log p(x_o | c): (B, C, H, W) in [0, 1], (B, H, W) bool -> (B, K) nats; 0 where nothing is observed.

        Hidden pixels may hold anything finite.
        """

    @abstractmethod
    def impute(self, x: Tensor, observed: Tensor, c: Tensor, *, rng: Generator | None = None) -> Tensor:
        """The images with what class c (B,) would most likely have behind the mask: (B, C, H, W) in [0, 1]."""


class SupportsNewClasses(ABC):
    """Ability: one more class from a few images of it, while everything that was learned before stays as it is."""

    def exemplar_features(self, x: Tensor) -> Tensor:
        """What is worth keeping of images (B, C, H, W), so that classes that come later are told from theirs: (B, F)."""
        return x.new_zeros(len(x), 0)

    @abstractmethod
    def with_new_class(self, x: Tensor, exemplars: tuple[Tensor, Tensor] | None = None) -> Self:
        """A model of one class more, the last, learned from its images x (n, C, H, W); the same L of the others.

        `known` is what is `remembered` of some images of the other classes, (N, F), and these, (N,).
        """


class FitsInClosedForm(ABC):
    """Ability: statistics of the training images that are computed, not learned (a mean, a covariance, a scale).

    One pass calls `measure` with every labeled batch, then `conclude`; gradient steps, if any, come after. What may be
    concluded in several ways is so by `conclusions`, and who trains keeps what explains held-out images best.
    """

    @abstractmethod
    def update_statistics(self, x: Tensor, y: Tensor) -> None:
        """Take a batch into the running sums: x (B, ...), y (B,) class indices, -1 for unlabeled."""

    @abstractmethod
    def finalize_statistics(self) -> None:
        """Turn the sums into the model's buffers and forget the sums."""

    def candidates(self) -> Iterator[None]:
        """Conclude, and then anew for every other way to do so."""
        self.finalize_statistics()
        yield

    def with_chosen(self, options: FamilyOptions) -> FamilyOptions:
        """The options by which a model of other images would be concluded as this one is."""
        return options
