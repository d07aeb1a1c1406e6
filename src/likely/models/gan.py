"""The adversarial classifier: a generator G(z, c), and a discriminator whose K logits say which class, and how real.

With the logit of "made" fixed at 0, p(c | x) = softmax l(x) and p(real | x) = Z / (Z + 1), Z = Σ_c exp l_c(x)
(Salimans 2016, Improved Techniques for Training GANs, section 5).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

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
from likely.networks import discriminator
from likely.networks.adversarial import ADVERSARIAL_LOSSES, gradient_penalty
from likely.networks.blocks import TrunkOptions, make_decoder, sample_classes, standard_normal, uniform
from likely.networks.diff_augment import PATTERN, diff_augment
from likely.networks.standardizer import Standardized, Standardizer

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
DARKEST = 0.01  # of the image that a fully connected generator begins with: from black no slope leads away
CANDIDATES = 4  # expected of a class, for each image that is drawn of it by a generator that knows no classes
MOST_CANDIDATES = 16_384  # of all classes; of a very rare one some images will then be of others
CHUNK = 256  # of them are judged at a time
# Weight decay, which for Adam is a penalty beside the loss, would drown what two networks have to say to each other.
_ADVERSARIAL_TRAINING = {"optimizer": "adam", "momentum": 0.5, "max_grad_norm": 10.0, "weight_decay": 0.0}
PRESET_TRAINING: dict[str, dict[str, object]] = {
    # Shifts are left to diff_augment, which does not teach the generator to shift.
    "generator": _ADVERSARIAL_TRAINING | {"learning_rate": 2e-3, "batch_size": 64, "augment": {"shift": 0.0}},
    "classifier": _ADVERSARIAL_TRAINING
    | {
        "learning_rate": 3e-3,
        "batch_size": 128,
        "schedule": "wsd",
        "ema_decay": 0.9995,
        "beta2": 0.999,
        "max_grad_norm": 1000.0,  # a difference of mean features may be as long as it likes
        "augment": {"shift": 0.0},
    },
}


class GANOptions(TrunkOptions):
    """Options of `gan`."""

    preset: Literal["generator", "classifier"] = Field(
        "generator",
        description="What it is to be good at; a preset sets what is not set by hand. classifier: the generator matches "
        "features, the discriminator is fully connected, with noise, and both learn in one step, for few labels among many "
        "small images without.",
    )
    architecture: Literal["convolutional", "dense"] = Field(
        "convolutional",
        description="Convolutions in the discriminator, or fully connected layers; vectors always take the latter.",
    )
    generator_width: int | None = Field(None, ge=4, description="As `width`, of the generator; the same when left out.")
    generator_architecture: Literal["convolutional", "dense"] = Field(
        "convolutional", description="As `architecture`, of the generator."
    )
    latent_dims: int = Field(64, ge=1, description="Dimensions of the noise that an image is made from.")
    loss: Literal["bce", "hinge", "wgan-gp"] = Field("bce", description="The adversarial loss.")
    head: Literal["semi_supervised", "auxiliary"] = Field(
        "semi_supervised",
        description="One logit a class, whose sum says how real; or class logits beside one for how real (ACGAN).",
    )
    adversarial_weight: float = Field(1.0, ge=0, description="Weight of the adversarial loss for the generator.")
    feature_matching: float = Field(
        0.0, ge=0, description="Weight of the distance between the mean features of real and made images."
    )
    class_weight: float = Field(5.0, ge=0, description="Weight of the classes' cross-entropy for the discriminator.")
    aux_class_weight: float = Field(
        0.1, ge=0, description="Weight, for the generator, of being taken for the class that was asked for."
    )
    g_lr_ratio: float = Field(
        0.2,
        gt=0,
        description="The generator's share of the learning rate, with preset generator (Heusel 2017): a quick one comes to "
        "make the same image of a class again and again.",
    )
    noise: float = Field(
        0.0,
        ge=0,
        description="Standard deviation of noise on the discriminator's hidden layers; on the image a fifth more.",
    )
    norm: Literal["none", "weight", "fixed_weight_norm", "spectral", "layer"] = Field(
        "layer",
        description="What is normalized in the discriminator: its weights, their length being learned (weight) or set by the "
        "first images (fixed_weight_norm), or by their largest singular value (spectral); or its layers.",
    )
    diff_augment: str = Field(
        "shift",
        pattern=PATTERN,
        description="Changes to real and made images alike, against learning a small set by heart: none, or any of "
        "color, shift, cutout with commas between.",
    )

    @model_validator(mode="before")
    @classmethod
    def _fill_in(cls, given: Any, info: ValidationInfo) -> Any:
        stored = info.context and info.context.get(STORED)  # of a model that was trained with them
        if stored or not isinstance(given, Mapping):
            return given
        return PRESETS.get(str(given.get("preset", "generator")), {}) | dict(given)

    @model_validator(mode="after")
    def _fits_together(self) -> GANOptions:
        if self.loss == "wgan-gp" and self.head != "auxiliary":
            raise InvalidValueError(
                "loss 'wgan-gp' needs head 'auxiliary': a critic's value is no logarithm of odds that classes could share"
            )
        if self.preset == "classifier" and self.g_lr_ratio != type(self).model_fields["g_lr_ratio"].default:
            raise InvalidValueError(
                "g_lr_ratio has no effect with preset 'classifier', whose networks learn in one step; leave it out, or use "
                "preset 'generator'"
            )
        if not (self.adversarial_weight or self.feature_matching or self.aux_class_weight):
            raise InvalidValueError(
                "adversarial_weight, feature_matching and aux_class_weight are all 0, and the generator would learn nothing; "
                "at least one of them above 0 was expected"
            )
        return self

    @property
    def training_defaults(self) -> Mapping[str, object]:
        return PRESET_TRAINING[self.preset]


class GAN(GenerativeModel, Latent, HasFeatures, Standardized):
    """log_scores = l_c(x) − log π_c, so that Σ_c π_c exp(log_scores) = Z: the evidence is the odds of being real.

    The discriminator learns to tell real images from made ones and the classes of labeled ones apart; the generator to be
    taken for real, and for the class that it was asked for. Unlabeled images (y = -1) are real all the same.
    """

    options_type = GANOptions

    def __init__(self, task: Task, options: GANOptions) -> None:
        super().__init__(task, options)
        self.settings = options
        self.standardizer = Standardizer.of(task)
        self._n_latent, width = options.latent_dims + task.n_classes, options.width
        generator_width = options.generator_width or width
        how: dict[str, Any] = {"width": width, "noise": options.noise, "norm": options.norm}
        vectors = task.domain is Domain.FEATURES
        self.generator: nn.Module
        if vectors or options.generator_architecture == "dense":
            self.generator = discriminator.DenseGenerator(self._n_latent, task.shape, width=generator_width)
        else:
            self.generator = make_decoder(self._n_latent, task.shape, width=generator_width, depth=options.depth)
        if vectors or options.architecture == "dense":
            trunk = discriminator.dense(task.shape, **how)
        else:
            trunk = discriminator.convolutional(task.shape, depth=options.depth, **how)
        self.discriminator = discriminator.Discriminator(trunk, task.n_classes, auxiliary=options.head == "auxiliary")

    @property
    def likelihood_kind(self) -> LikelihoodKind:
        return LikelihoodKind.UNNORMALIZED

    def log_scores(self, x: Tensor, *, rng: Generator | None = None) -> Tensor:
        return self._judged(x)[1] - self.log_prior

    def log_likelihood(self, x: Tensor, *, rng: Generator | None = None) -> Tensor:
        return self.log_scores(x)

    def outputs(self, x: Tensor) -> ModelOutputs:
        features, logits = self._judged(x)
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
        self.discriminator.init_from_data(self._seen(x), torch.Generator(x.device).manual_seed(0))
        if isinstance(self.generator, discriminator.DenseGenerator) and self.task.domain is Domain.PIXELS8:
            self.generator.start_at(x.mean(0).clamp(DARKEST, 1 - DARKEST).logit())

    def features(self, x: Tensor) -> Tensor:
        return self.discriminator.pooled(self._seen(x))

    def sample(self, c: Tensor, *, rng: Generator | None = None) -> Tensor:
        return self.decode(self.latent(c, rng=rng))

    def latent(self, c: Tensor, *, rng: Generator | None = None, truncation: float = 1.0) -> Tensor:
        """Noise, and the class as one-hot beside it: between two classes lies a mixture of their codes.

        A generator that was never asked for a class (aux_class_weight 0) draws from p(x) alone. Of many such draws some are
        picked with probabilities as p(c | x), since p(x | c) ∝ p(c | x) p(x) (importance resampling, Rubin 1988); its mean
        is of no class.
        """
        if self.settings.aux_class_weight:
            return self._noise_and_class(c, rng, truncation)
        mean = torch.cat([self.log_prior.new_zeros(self.settings.latent_dims), self.log_prior.exp()]).expand(len(c), -1)
        return mean if rng is None else mean + truncation * (self._picked(c, rng) - mean)

    def _picked(self, c: Tensor, rng: Generator) -> Tensor:
        """Without replacement: the largest of log p(c | x) plus Gumbel noise (Kool 2019, Gumbel-Top-k), a chunk at a time."""
        asked = torch.bincount(c, minlength=self.task.n_classes)
        enough = int((CANDIDATES * asked / self.log_prior.exp().clamp_min(1e-6)).max().ceil())
        n = max(min(MOST_CANDIDATES, enough), int(asked.max()))
        best = {each: (self.log_prior[:0], self.log_prior.new_zeros(0, self._n_latent)) for each in set(c.tolist())}
        for start in range(0, n, CHUNK):
            z = self._noise_and_class(sample_classes(self.log_prior, min(CHUNK, n - start), rng), rng)
            log_p = self._judged(self.decode(z))[1].log_softmax(1)
            for each, (scores, kept) in best.items():
                gumbel = -uniform((len(z),), log_p, rng).clamp_min(1e-10).log().neg().log()
                scores, kept = torch.cat([scores, log_p[:, each] + gumbel]), torch.cat([kept, z])
                order = scores.argsort(descending=True)[: asked[each]]
                best[each] = scores[order], kept[order]
        picked = self.log_prior.new_zeros(len(c), self._n_latent)
        for each, (_, kept) in best.items():
            picked[c == each] = kept
        return picked

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
        ours, theirs = tuple(self.discriminator.parameters()), tuple(self.generator.parameters())
        chosen = self.settings
        bounded = chosen.loss == "bce" and not chosen.feature_matching  # features have no bounds
        if chosen.preset == "classifier":
            return (Objective("joint", (*ours, *theirs), self._joint_loss, bounded=bounded),)
        return (
            Objective("discriminator", ours, self._discriminator_loss, bounded=chosen.loss != "wgan-gp"),
            Objective("generator", theirs, self._generator_loss, lr_ratio=chosen.g_lr_ratio, bounded=bounded),
        )

    def _joint_loss(self, x: Tensor, y: Tensor, rng: Generator) -> Tensor:
        """Both losses of one batch; each network learns from its own alone."""
        real, made, c = self._shown(x, rng), *self._made(y, rng)
        features, logits = self.discriminator(real, rng)
        loss = self._telling_apart(real, logits, y, made.detach(), c, rng)
        fixed = {name: parameter.detach() for name, parameter in self.discriminator.named_parameters()}
        judged = torch.func.functional_call(self.discriminator, fixed, (made, rng))
        return loss + self._deceiving(judged, c, features[_adversaries(y)].detach())

    def _discriminator_loss(self, x: Tensor, y: Tensor, rng: Generator) -> Tensor:
        with torch.no_grad():
            made, c = self._made(y, rng)
        real = self._shown(x, rng)
        _, logits = self.discriminator(real, rng)
        return self._telling_apart(real, logits, y, made, c, rng)

    def _generator_loss(self, x: Tensor, y: Tensor, rng: Generator) -> Tensor:
        made, c = self._made(y, rng)
        features = made.new_zeros(0)
        if self.settings.feature_matching:
            with torch.no_grad():
                features, _ = self.discriminator(self._shown(x[_adversaries(y)], rng), rng)
        return self._deceiving(self.discriminator(made, rng), c, features)

    def _telling_apart(
        self, real: Tensor, logits: Tensor, y: Tensor, made: Tensor, c: Tensor, rng: Generator
    ) -> Tensor:
        """What the discriminator minimizes, given real images and their logits, and made images of the classes c."""
        chosen, loss = self.settings, ADVERSARIAL_LOSSES[self.settings.loss]
        _, made_logits = self.discriminator(made, rng)
        total = loss.real(logits[_adversaries(y)].logsumexp(1)) + loss.fake(made_logits.logsumexp(1))
        labeled = y >= 0
        if labeled.any():
            total = total + chosen.class_weight * F.cross_entropy(logits[labeled], y[labeled])
        if chosen.head == "auxiliary":
            total = total + chosen.class_weight * F.cross_entropy(made_logits, c)
        if chosen.loss == "wgan-gp":
            total = total + gradient_penalty(self._realness, real[_adversaries(y)], made, rng)
        return total

    def _deceiving(self, judged: tuple[Tensor, Tensor], c: Tensor, real_features: Tensor) -> Tensor:
        """What the generator minimizes, given what the discriminator makes of its images of the classes c."""
        (features, logits), chosen = judged, self.settings
        total = chosen.aux_class_weight * F.cross_entropy(logits, c)
        if chosen.adversarial_weight:
            total = total + chosen.adversarial_weight * ADVERSARIAL_LOSSES[chosen.loss].generator(logits.logsumexp(1))
        if chosen.feature_matching:
            apart = real_features.mean(0) - features.mean(0)
            total = total + chosen.feature_matching * apart.square().mean()
        return total

    def _realness(self, x: Tensor) -> Tensor:
        logits: Tensor = self.discriminator(x)[1]
        return logits.logsumexp(1)

    def _made(self, y: Tensor, rng: Generator) -> tuple[Tensor, Tensor]:
        """New images as the discriminator sees them, as many as the real ones to tell them from, and their classes."""
        n = max(2, int(_adversaries(y).sum()))  # of a single image there is no variance to normalize by
        c = sample_classes(self.log_prior, n, rng)
        x = self.generator(self._noise_and_class(c, rng)).float()
        return (self._shown(x.sigmoid(), rng) if self.task.domain is Domain.PIXELS8 else x), c

    def _shown(self, x: Tensor, rng: Generator) -> Tensor:
        return self._seen(diff_augment(x, self.settings.diff_augment, rng))

    def _judged(self, x: Tensor) -> tuple[Tensor, Tensor]:
        features, logits = self.discriminator(self._seen(x))
        return features, logits

    def _seen(self, x: Tensor) -> Tensor:
        """What the discriminator looks at: pixels in [-1, 1], vectors standardized."""
        return 2 * x - 1 if self.task.domain is Domain.PIXELS8 else self.standardizer(x)


def _adversaries(y: Tensor) -> Tensor:
    """The images that the adversarial loss looks at, (B,): the unlabeled ones where they are most, for the labeled among
    them come round more often; else all."""
    unlabeled = y < 0
    return unlabeled if 2 * unlabeled.sum() > len(y) else torch.ones_like(unlabeled)
