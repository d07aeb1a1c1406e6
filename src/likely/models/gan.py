"""GAN classifier: a generator G(z, c) and a discriminator with K class logits l_c(x).

With the logit of "fake" fixed at 0, p(c | x) = softmax l(x) and p(real | x) = Z / (Z + 1), Z = Σ_c exp l_c(x)
(Salimans 2016, Improved Techniques for Training GANs, section 5).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field, ValidationInfo, model_validator
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from likely.base import (
    STORED,
    Domain,
    GenerativeModel,
    HasFeatures,
    Latent,
    LikelihoodKind,
    ModelOutputs,
    Objective,
    Task,
    stack_statistics,
)
from likely.exceptions import InvalidValueError
from likely.networks.adversarial import ADVERSARIAL_LOSSES
from likely.networks.blocks import TrunkOptions, make_decoder, sample_classes, standard_normal, uniform
from likely.networks.diff_augment import PATTERN, diff_augment
from likely.networks.discriminator import DenseGenerator, Discriminator, DiscriminatorOptions, WeightNorm
from likely.networks.standardizer import Standardized, Standardizer
from likely.options import Options

PRESETS: dict[str, dict[str, object]] = {
    "generator": {},
    "classifier": {
        "architecture": "dense",
        "generator_width": 16,
        "latent_dims": 100,
        "feature_matching": 1.0,
        "adversarial_weight": 0.0,
        "class_weight": 2.0,
        "aux_class_weight": 0.0,
        "noise": 0.5,
        "norm": "fixed_weight_norm",
        "diff_augment": "none",
    },
}
# No weight decay: Adam adds it to the gradient, where it would dominate the adversarial loss.
_ADVERSARIAL_TRAINING = {"optimizer": "adam", "momentum": 0.5, "max_grad_norm": 10.0, "weight_decay": 0.0}
PRESET_TRAINING: dict[str, dict[str, object]] = {
    # Only diff_augment shifts images: the generator would imitate shifted training images.
    "generator": _ADVERSARIAL_TRAINING | {"learning_rate": 2e-3, "batch_size": 64, "augment": {"shift": 0.0}},
    "classifier": _ADVERSARIAL_TRAINING
    | {
        "learning_rate": 3e-3,
        "batch_size": 128,
        "schedule": "wsd",
        "ema_decay": 0.9995,
        "beta2": 0.999,
        "max_grad_norm": 1000.0,  # the feature-matching loss is unbounded
        "augment": {"shift": 0.0},
    },
}


class GANOptions(TrunkOptions):
    """Options of `gan`."""

    preset: Literal["generator", "classifier"] = Field(
        "generator",
        description="Defaults of the other options. generator: image quality. classifier: semi-supervised classification of "
        "small images with few labels (feature matching, fully connected discriminator with noise, joint updates).",
    )
    architecture: Literal["convolutional", "dense"] = Field(
        "convolutional",
        description="Layers of the discriminator; for vectors always dense.",
    )
    generator_width: int | None = Field(
        None, ge=4, description="`width` of the generator. Default: the same as `width`."
    )
    generator_architecture: Literal["convolutional", "dense"] = Field(
        "convolutional", description="Layers of the generator; for vectors always dense."
    )
    latent_dims: int = Field(64, ge=1, description="Dimensions of the generator's noise input.")
    loss: Literal["bce", "hinge", "wgan-gp"] = Field("bce", description="Adversarial loss.")
    head: Literal["semi_supervised", "auxiliary"] = Field(
        "semi_supervised",
        description="semi_supervised: one logit per class, whose log-sum-exp is the log odds of being real; auxiliary: class "
        "logits and a separate output for real or fake (ACGAN).",
    )
    adversarial_weight: float = Field(1.0, ge=0, description="Weight of the adversarial loss for the generator.")
    feature_matching: float = Field(
        0.0,
        ge=0,
        description="Weight of feature matching: squared distance of the mean features of real and generated images.",
    )
    class_weight: float = Field(5.0, ge=0, description="Weight of the class cross-entropy for the discriminator.")
    aux_class_weight: float = Field(
        0.1,
        ge=0,
        description="Weight of the class cross-entropy of generated images for the generator; 0: unconditional.",
    )
    g_lr_ratio: float = Field(
        0.2,
        gt=0,
        description="Learning rate of the generator relative to the base learning rate, with preset generator (Heusel 2017). "
        "Large values cause mode collapse.",
    )
    noise: float = Field(
        0.0,
        ge=0,
        description="Standard deviation of noise on the discriminator's hidden layers; 1.2 times as much on the image.",
    )
    norm: WeightNorm = Field(
        "layer",
        description="Normalization in the discriminator: weight normalization with learned norms (weight) or norms set by the "
        "first batch (fixed_weight_norm), spectral normalization (spectral), layer normalization (layer).",
    )
    diff_augment: str = Field(
        "shift",
        pattern=PATTERN,
        description="Differentiable augmentation of real and generated images against memorization: none, or a "
        "comma-separated list of color, shift and cutout.",
    )

    @model_validator(mode="before")
    @classmethod
    def _fill_in(cls, values: Any, info: ValidationInfo) -> Any:
        is_stored = info.context and info.context.get(
            STORED
        )  # presets may have changed since a stored model was trained
        if is_stored or not isinstance(values, Mapping):
            return values
        return PRESETS.get(str(values.get("preset", "generator")), {}) | dict(values)

    @model_validator(mode="after")
    def _fits_together(self) -> GANOptions:
        if self.loss == "wgan-gp" and self.head != "auxiliary":
            raise InvalidValueError(
                "loss 'wgan-gp' needs head 'auxiliary': the class logits of head 'semi_supervised' must be log odds"
            )
        if self.preset == "classifier" and self.g_lr_ratio != type(self).model_fields["g_lr_ratio"].default:
            raise InvalidValueError(
                "g_lr_ratio has no effect with preset 'classifier', whose networks are updated jointly; leave it out, or use "
                "preset 'generator'"
            )
        if not (self.adversarial_weight or self.feature_matching or self.aux_class_weight):
            raise InvalidValueError(
                "adversarial_weight, feature_matching and aux_class_weight are all 0, and the generator would learn nothing; "
                "set at least one of them above 0"
            )
        return self

    @property
    def training_defaults(self) -> Mapping[str, object]:
        return PRESET_TRAINING[self.preset]


class GANConstants(Options):
    """Constants of the initialization and the sampling of `gan`."""

    min_initial_pixel: float = Field(
        0.01, gt=0, description="Minimum of a dense generator's initial image: the sigmoid has no gradient at black."
    )
    candidates_per_image: int = Field(
        4, ge=1, description="Expected candidates per sample in importance resampling, for an unconditional generator."
    )
    max_candidates: int = Field(
        16_384,
        ge=1,
        description="Candidates of all classes; samples of a very rare class may then be of other classes.",
    )
    batch_size: int = Field(256, ge=1, description="Candidates per pass through the networks.")


class GAN(GenerativeModel, Latent, HasFeatures, Standardized):
    """log_scores = l_c(x) − log π_c, so that Σ_c π_c exp(log_scores) = Z = p(real | x) / p(fake | x).

    The discriminator separates real from generated images and the classes of labeled images. The generator's images should be
    classified as real and as their class. Unlabeled images (y = -1) count as real.
    """

    options_type = GANOptions
    constants: ClassVar = GANConstants()

    def __init__(self, task: Task, options: GANOptions) -> None:
        super().__init__(task, options)
        self.settings = options
        self.standardizer = Standardizer.of(task)
        self._n_latent = options.latent_dims + task.n_classes
        generator_width = options.generator_width or options.width
        is_vector = task.domain is Domain.FEATURES
        self.generator: nn.Module
        if is_vector or options.generator_architecture == "dense":
            self.generator = DenseGenerator(self._n_latent, task.shape, width=generator_width)
        else:
            self.generator = make_decoder(self._n_latent, task.shape, width=generator_width, depth=options.depth)
        discriminator_options = DiscriminatorOptions(
            architecture="dense" if is_vector or options.architecture == "dense" else "convolutional",
            width=options.width,
            depth=options.depth,
            norm=options.norm,
            noise=options.noise,
            auxiliary=options.head == "auxiliary",
        )
        self.discriminator = Discriminator(task.shape, task.n_classes, discriminator_options)

    @property
    def likelihood_kind(self) -> LikelihoodKind:
        return LikelihoodKind.UNNORMALIZED

    def log_scores(self, x: Tensor, *, rng: Generator | None = None) -> Tensor:
        return self._discriminate(x)[1] - self.log_prior

    def log_likelihood(self, x: Tensor, *, rng: Generator | None = None) -> Tensor:
        return self.log_scores(x)

    def outputs(self, x: Tensor) -> ModelOutputs:
        features, logits = self._discriminate(x)
        scores = logits - self.log_prior
        # With the other losses Z is larger for what is more real, but it is not the odds of being real.
        log_odds_real = logits.logsumexp(1) if self.settings.loss == "bce" else None
        columns = (
            [features.square().mean(1).sqrt()]
            if log_odds_real is None
            else [log_odds_real, features.square().mean(1).sqrt()]
        )
        return ModelOutputs(
            log_scores=scores,
            log_likelihood=scores,
            statistics=stack_statistics(columns, self.task.n_classes),
            features=torch.cat([*self.discriminator.trunk.summary(features), logits], 1),
            log_odds_real=log_odds_real,
        )

    def init_from_data(self, x: Tensor) -> None:
        self.discriminator.init_from_data(self._discriminator_input(x), torch.Generator(x.device).manual_seed(0))
        if isinstance(self.generator, DenseGenerator) and self.task.domain is Domain.PIXELS8:
            low = self.constants.min_initial_pixel
            self.generator.start_at(x.mean(0).clamp(low, 1 - low).logit())

    def features(self, x: Tensor) -> Tensor:
        return self.discriminator.pooled(self._discriminator_input(x))

    def sample(self, c: Tensor, *, rng: Generator | None = None) -> Tensor:
        return self.decode(self.latent(c, rng=rng))

    def latent(self, c: Tensor, *, rng: Generator | None = None, truncation: float = 1.0) -> Tensor:
        """Concatenate noise and the one-hot class: (B,) -> (B, latent_dims + K).

        An unconditional generator (aux_class_weight 0) samples from p(x). Since p(x | c) ∝ p(c | x) p(x), candidates are
        resampled with probabilities proportional to p(c | x) (importance resampling, Rubin 1988); without `rng` all classes
        share one mean.
        """
        if self.settings.aux_class_weight:
            return self._noise_and_class(c, rng, truncation)
        mean = torch.cat([self.log_prior.new_zeros(self.settings.latent_dims), self.log_prior.exp()]).expand(len(c), -1)
        return mean if rng is None else mean + truncation * (self._resampled(c, rng) - mean)

    def _resampled(self, c: Tensor, rng: Generator) -> Tensor:
        """Resample latents without replacement by log p(c | x) plus Gumbel noise (Kool 2019, Gumbel-Top-k), in batches."""
        counts, constants = torch.bincount(c, minlength=self.task.n_classes), self.constants
        n_expected = int((constants.candidates_per_image * counts / self.log_prior.exp().clamp_min(1e-6)).max().ceil())
        n = max(min(constants.max_candidates, n_expected), int(counts.max()))
        best = {k: (self.log_prior[:0], self.log_prior.new_zeros(0, self._n_latent)) for k in set(c.tolist())}
        for start in range(0, n, constants.batch_size):
            n_batch = min(constants.batch_size, n - start)
            z = self._noise_and_class(sample_classes(self.log_prior, n_batch, rng), rng)
            log_p = self._discriminate(self.decode(z))[1].log_softmax(1)
            for k, (scores, latents) in best.items():
                gumbel = -uniform((len(z),), log_p, rng).clamp_min(1e-10).log().neg().log()
                scores, latents = torch.cat([scores, log_p[:, k] + gumbel]), torch.cat([latents, z])
                order = scores.argsort(descending=True)[: counts[k]]
                best[k] = scores[order], latents[order]
        result = self.log_prior.new_zeros(len(c), self._n_latent)
        for k, (_, latents) in best.items():
            result[c == k] = latents
        return result

    def _noise_and_class(self, c: Tensor, rng: Generator | None, truncation: float = 1.0) -> Tensor:
        code = F.one_hot(c, self.task.n_classes).to(self.log_prior.dtype)
        noise = code.new_zeros(len(c), self.settings.latent_dims)
        if rng is not None:
            noise = truncation * standard_normal(noise, rng)
        return torch.cat([noise, code], 1)

    def decode(self, z: Tensor) -> Tensor:
        x = self.generator(z).float()
        return x.sigmoid() if self.task.domain is Domain.PIXELS8 else self.standardizer.inverse(x)

    def objectives(self) -> Sequence[Objective]:
        discriminator_parameters, generator_parameters = (
            tuple(self.discriminator.parameters()),
            tuple(self.generator.parameters()),
        )
        settings = self.settings
        bounded = settings.loss == "bce" and not settings.feature_matching  # features are unbounded
        if settings.preset == "classifier":
            return (
                Objective(
                    "joint", (*discriminator_parameters, *generator_parameters), self._joint_loss, bounded=bounded
                ),
            )
        return (
            Objective(
                "discriminator", discriminator_parameters, self._discriminator_loss, bounded=settings.loss != "wgan-gp"
            ),
            Objective(
                "generator", generator_parameters, self._generator_loss, lr_ratio=settings.g_lr_ratio, bounded=bounded
            ),
        )

    def _joint_loss(self, x: Tensor, y: Tensor, rng: Generator) -> Tensor:
        """Sum of both losses on one batch, each with gradients for its own network only."""
        real, fake, c = self._augmented_input(x, rng), *self._fake_batch(y, rng)
        features, logits = self.discriminator(real, rng)
        loss = self._discriminator_terms(real, logits, y, fake.detach(), c, rng)
        frozen = {name: parameter.detach() for name, parameter in self.discriminator.named_parameters()}
        fake_outputs = torch.func.functional_call(self.discriminator, frozen, (fake, rng))
        return loss + self._generator_terms(fake_outputs, c, features[_adversarial_mask(y)].detach())

    def _discriminator_loss(self, x: Tensor, y: Tensor, rng: Generator) -> Tensor:
        with torch.no_grad():
            fake, c = self._fake_batch(y, rng)
        real = self._augmented_input(x, rng)
        _, logits = self.discriminator(real, rng)
        return self._discriminator_terms(real, logits, y, fake, c, rng)

    def _generator_loss(self, x: Tensor, y: Tensor, rng: Generator) -> Tensor:
        fake, c = self._fake_batch(y, rng)
        features = fake.new_zeros(0)
        if self.settings.feature_matching:
            with torch.no_grad():
                features, _ = self.discriminator(self._augmented_input(x[_adversarial_mask(y)], rng), rng)
        return self._generator_terms(self.discriminator(fake, rng), c, features)

    def _discriminator_terms(
        self, real: Tensor, logits: Tensor, y: Tensor, fake: Tensor, c: Tensor, rng: Generator
    ) -> Tensor:
        """Return the discriminator's loss from real images with their logits and fake images of classes c."""
        settings, loss = self.settings, ADVERSARIAL_LOSSES[self.settings.loss]
        _, fake_logits = self.discriminator(fake, rng)
        total = loss.real(logits[_adversarial_mask(y)].logsumexp(1)) + loss.fake(fake_logits.logsumexp(1))
        labeled = y >= 0
        if labeled.any():
            total = total + settings.class_weight * F.cross_entropy(logits[labeled], y[labeled])
        if settings.head == "auxiliary":
            total = total + settings.class_weight * F.cross_entropy(fake_logits, c)
        if loss.penalty is not None:
            total = total + loss.penalty(self._critic, real[_adversarial_mask(y)], fake, rng)
        return total

    def _generator_terms(self, fake_outputs: tuple[Tensor, Tensor], c: Tensor, real_features: Tensor) -> Tensor:
        """Return the generator's loss from the discriminator's features and logits of fake images of classes c."""
        (features, logits), settings = fake_outputs, self.settings
        total = settings.aux_class_weight * F.cross_entropy(logits, c)
        if settings.adversarial_weight:
            total = total + settings.adversarial_weight * ADVERSARIAL_LOSSES[settings.loss].generator(
                logits.logsumexp(1)
            )
        if settings.feature_matching:
            difference = real_features.mean(0) - features.mean(0)
            total = total + settings.feature_matching * difference.square().mean()
        return total

    def _critic(self, x: Tensor) -> Tensor:
        logits: Tensor = self.discriminator(x)[1]
        return logits.logsumexp(1)

    def _fake_batch(self, y: Tensor, rng: Generator) -> tuple[Tensor, Tensor]:
        """Generate as many discriminator inputs as there are real ones in the adversarial loss, with their classes."""
        n = max(2, int(_adversarial_mask(y).sum()))  # batch normalization needs two images
        c = sample_classes(self.log_prior, n, rng)
        x = self.generator(self._noise_and_class(c, rng)).float()
        return (self._augmented_input(x.sigmoid(), rng) if self.task.domain is Domain.PIXELS8 else x), c

    def _augmented_input(self, x: Tensor, rng: Generator) -> Tensor:
        return self._discriminator_input(diff_augment(x, self.settings.diff_augment, rng))

    def _discriminate(self, x: Tensor) -> tuple[Tensor, Tensor]:
        features, logits = self.discriminator(self._discriminator_input(x))
        return features, logits

    def _discriminator_input(self, x: Tensor) -> Tensor:
        """Scale pixels to [-1, 1]; standardize vectors."""
        return 2 * x - 1 if self.task.domain is Domain.PIXELS8 else self.standardizer(x)


def _adversarial_mask(y: Tensor) -> Tensor:
    """Return the mask (B,) of real images in the adversarial loss: the unlabeled ones if they are the majority, else all.

    Labeled images among many unlabeled ones are oversampled.
    """
    unlabeled = y < 0
    return unlabeled if 2 * unlabeled.sum() > len(y) else torch.ones_like(unlabeled)
