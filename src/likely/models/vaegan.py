"""VAE-GAN: the class-mixture VAE with its decoder trained as a GAN generator too, L_total = L_VAE + L_GAN.

Larsen 2016, Autoencoding beyond Pixels using a Learned Similarity Metric. Scores and likelihoods are those of `vae`; the
discriminator adds what a likelihood of independent pixels does not penalize, such as blur.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar, Literal, Self

import torch
from pydantic import Field
from torch import Generator, Tensor
from torch.nn import functional as F

from likely.base import Domain, ModelOutputs, Objective, Task, stack_statistics
from likely.models.vae import VAE, VAEOptions
from likely.networks.adversarial import ADVERSARIAL_LOSSES
from likely.networks.blocks import sample_classes, standard_normal
from likely.networks.diff_augment import PATTERN, diff_augment
from likely.networks.discriminator import Discriminator, DiscriminatorOptions
from likely.options import Options


class VAEGANOptions(VAEOptions):
    """Options of `vaegan`."""

    adversarial_weight: float = Field(0.1, ge=0, description="Weight of the adversarial loss for the decoder.")
    feature_weight: float = Field(
        0.1, ge=0, description="Weight of the reconstruction error in the discriminator's features (feature matching)."
    )
    loss: Literal["bce", "hinge"] = Field("bce", description="Adversarial loss.")
    fake_ratio: float = Field(
        0.25, gt=0, le=1, description="Generated images per training step, as a fraction of the batch size."
    )
    d_lr_ratio: float = Field(
        0.5, gt=0, description="Learning rate of the discriminator relative to the base learning rate."
    )
    diff_augment: str = Field(
        "shift",
        pattern=PATTERN,
        description="Differentiable augmentation before the discriminator: none, or a comma-separated list of color, shift "
        "and cutout.",
    )


class VAEGANConstants(Options):
    """Constants of the losses of `vaegan`."""

    aux_class_weight: float = Field(
        0.2,
        ge=0,
        description="Weight of the class cross-entropy in the generator loss; larger weights reduce the diversity within a "
        "class.",
    )
    min_logit: float = Field(-1e4, lt=0, description="Logit of a class without effect on log Σ exp.")


class VAEGAN(VAE):
    """L_VAE of `vae`, plus L_GAN of the decoder on images from `sample`'s distribution; after training it acts as the VAE.

    The discriminator has one logit per class (Salimans 2016, section 5): generated images should be classified as real and as
    their class. L_GAN reaches the encoder only through the decoder's batch statistics, which both kinds of images share.
    """

    options_type = VAEGANOptions
    constants: ClassVar = VAEGANConstants()

    def __init__(self, task: Task, options: VAEGANOptions) -> None:
        super().__init__(task, options)
        self.settings = options
        discriminator_options = DiscriminatorOptions(
            architecture="convolutional" if task.domain is Domain.PIXELS8 else "dense",
            width=options.width,
            depth=options.depth,
        )
        self.discriminator = Discriminator(task.shape, task.n_classes, discriminator_options)
        self._fake = torch.zeros(0)  # generated images of the current step

    def outputs(self, x: Tensor) -> ModelOutputs:
        vae_outputs = super().outputs(x)
        if self.settings.loss != "bce":  # with other losses the value is not log odds
            return vae_outputs
        _, logits = self.discriminator(self._discriminator_input(self.standardizer(x)))
        log_odds_real = logits.logsumexp(1)
        first, others = vae_outputs.statistics[..., :1], vae_outputs.statistics[..., 1:]
        statistics = torch.cat([first, stack_statistics([log_odds_real], self.task.n_classes), others], 2)
        return replace(vae_outputs, statistics=statistics, log_odds_real=log_odds_real)

    @torch.no_grad()
    def _with_extra_class(self, n: int) -> Self:
        """Leave the discriminator's p(real | x) unchanged: it was not trained on the new class."""
        new = super()._with_extra_class(n)
        last = new.discriminator.to_logits
        last.weight[-1], last.bias[-1] = 0, self.constants.min_logit
        return new

    def objectives(self) -> Sequence[Objective]:
        discriminator_parameters = tuple(self.discriminator.parameters())
        parameters = self._parameters_except("discriminator")
        return (
            Objective("autoencoder", parameters, self._autoencoder_loss, bounded=self.settings.loss == "bce"),
            Objective(
                "discriminator", discriminator_parameters, self._discriminator_loss, lr_ratio=self.settings.d_lr_ratio
            ),
            *self._auxiliary_objectives(),
        )

    def _autoencoder_loss(self, x: Tensor, y: Tensor, rng: Generator) -> Tensor:
        """L_VAE, plus adversarial and feature-matching losses of the decoder."""
        c, settings = self._sample_classes(x, rng), self.settings
        n = len(c)
        mean, log_scale = self._posterior(x)
        self._last_posterior = mean.detach(), log_scale.detach()
        self.aggregate.update(mean, (2 * log_scale).exp(), y)
        z = mean + log_scale.exp() * standard_normal(mean, rng)
        # One pass for both: with batch statistics of their own, generated images would differ between training and sampling.
        pixels, pixel_log_scale = self._pixels(torch.cat([z, self.latent(c, rng=rng)]))
        reconstruction, fake = pixels[: len(x)], self._augmented_input(self._clamped(pixels[len(x) :]), rng)
        self._fake = fake.detach()
        loss = self._bound_loss(x, y, (mean, log_scale), (reconstruction, pixel_log_scale[: len(x)]))
        batch = [fake]
        if settings.feature_weight:
            batch += [
                self._discriminator_input(self._clamped(reconstruction[:n])),
                self._discriminator_input(self.standardizer(x[:n])),
            ]
        features, logits = self.discriminator(torch.cat(batch))
        class_loss = self.constants.aux_class_weight * F.cross_entropy(logits[:n], c)
        adversarial_loss = ADVERSARIAL_LOSSES[settings.loss].generator(logits[:n].logsumexp(1)) + class_loss
        loss = loss + settings.adversarial_weight * adversarial_loss
        if settings.feature_weight:
            loss = loss + settings.feature_weight * _relative_distance(*features[n:].chunk(2))
        return loss

    def _discriminator_loss(self, x: Tensor, y: Tensor, rng: Generator) -> Tensor:
        """Adversarial loss on real and just generated images, plus cross-entropy of labeled real images."""
        fake = self._fake if len(self._fake) else self._fake_images(x, rng)
        n, loss = len(fake), ADVERSARIAL_LOSSES[self.settings.loss]
        real = self._augmented_input(self.standardizer(x[:n]), rng)
        _, logits = self.discriminator(torch.cat([real, fake]))
        total = loss.real(logits[:n].logsumexp(1)) + loss.fake(logits[n:].logsumexp(1))
        labeled = y[:n] >= 0
        return total + F.cross_entropy(logits[:n][labeled], y[:n][labeled]) if labeled.any() else total

    @torch.no_grad()
    def _fake_images(self, x: Tensor, rng: Generator) -> Tensor:
        """Generate images for a step without the autoencoder objective."""
        pixels, _ = self._pixels(self.latent(self._sample_classes(x, rng), rng=rng))
        return self._augmented_input(self._clamped(pixels), rng)

    def _sample_classes(self, x: Tensor, rng: Generator) -> Tensor:
        """Sample the classes of the generated images of a batch."""
        n = max(2, round(self.settings.fake_ratio * len(x)))
        return sample_classes(self.log_prior, n, rng)

    def _clamped(self, x: Tensor) -> Tensor:
        """Clamp pixels to [0, 1] as `sample` does; values below black would identify generated images."""
        return x.clamp(0, 1) if self.task.domain is Domain.PIXELS8 else x

    def _augmented_input(self, x: Tensor, rng: Generator) -> Tensor:
        return self._discriminator_input(diff_augment(x, self.settings.diff_augment, rng))

    def _discriminator_input(self, x: Tensor) -> Tensor:
        """Scale pixels to [-1, 1]; vectors are standardized already."""
        return 2 * x - 1 if self.task.domain is Domain.PIXELS8 else x


def _relative_distance(reconstruction: Tensor, original: Tensor) -> Tensor:
    """Return the mean squared distance of features (B, F) relative to the originals' mean square."""
    original = original.detach()
    return (reconstruction - original).square().mean() / (original.square().mean() + 1e-6)
