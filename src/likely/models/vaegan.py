"""The mixture-prior autoencoder whose decoder is also a generator: L_total = L_GAN + L_VAE.

Larsen 2016, Autoencoding beyond Pixels using a Learned Similarity Metric. Classes, likelihoods and one encoder pass for all
of them are the autoencoder's; the discriminator teaches the decoder what the likelihood of single pixels cannot.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal, Self

import torch
from pydantic import Field
from torch import Generator, Tensor
from torch.nn import functional as F

from likely.base import Domain, ModelOutputs, Objective, Task, stack_statistics
from likely.models.vae import VAE, VAEOptions
from likely.networks import discriminator
from likely.networks.adversarial import ADVERSARIAL_LOSSES
from likely.networks.blocks import sample_classes, standard_normal
from likely.networks.diff_augment import PATTERN, diff_augment

# In L_GAN, of being taken for the class that was asked for: more of it makes a class's images all alike.
CLASS_WEIGHT = 0.2
SILENT = -1e4  # a logit that adds nothing to the sum of the others


class VAEGANOptions(VAEOptions):
    """Options of `vaegan`."""

    adversarial_weight: float = Field(0.1, ge=0, description="Weight of L_GAN for the decoder.")
    feature_weight: float = Field(
        0.1, ge=0, description="Weight of the reconstruction measured in the discriminator's features."
    )
    loss: Literal["bce", "hinge"] = Field("bce", description="The adversarial loss.")
    fake_ratio: float = Field(
        0.25, gt=0, le=1, description="Images that are made at each step, as a share of the batch: more cost more time."
    )
    d_lr_ratio: float = Field(0.5, gt=0, description="The discriminator's share of the learning rate.")
    diff_augment: str = Field(
        "shift",
        pattern=PATTERN,
        description="Changes to real and made images alike before the discriminator: none, or any of color, shift, "
        "cutout with commas between.",
    )


class VAEGAN(VAE):
    """L_VAE as in `vae`, and for the decoder L_GAN on images drawn as `sample` draws them.

    All that reaches the encoder of L_GAN goes through the decoder's batch statistics, which both kinds of images share.

    A subclass, for whatever it is asked after training it is the autoencoder. The discriminator has a logit for every class:
    the decoder is to be taken for real, and for the class that it was asked for.
    """

    options_type = VAEGANOptions

    def __init__(self, task: Task, options: VAEGANOptions) -> None:
        super().__init__(task, options)
        self.settings = options
        if task.domain is Domain.PIXELS8:
            trunk = discriminator.convolutional(
                task.shape, width=options.width, depth=options.depth, noise=0.0, norm="layer"
            )
        else:
            trunk = discriminator.dense(task.shape, width=options.width, noise=0.0, norm="layer")
        self.discriminator = discriminator.Discriminator(trunk, task.n_classes, auxiliary=False)
        self._made = torch.zeros(0)  # the images of the step under way

    def outputs(self, x: Tensor) -> ModelOutputs:
        found = super().outputs(x)
        if self.settings.loss != "bce":  # of the other loss it is no odds
            return found
        _, logits = self.discriminator(self._seen(self.standardizer(x)))
        log_odds_real = logits.logsumexp(1)
        first, others = found.statistics[..., :1], found.statistics[..., 1:]
        statistics = torch.cat([first, stack_statistics([log_odds_real], self.task.n_classes), others], 2)
        return replace(found, statistics=statistics, log_odds_real=log_odds_real)

    @torch.no_grad()
    def _of_one_class_more(self, n: int) -> Self:
        """What its discriminator takes for real is as before: it has never seen the class, and is silent about it."""
        new = super()._of_one_class_more(n)
        last = new.discriminator.to_logits
        last.weight[-1], last.bias[-1] = 0, SILENT
        return new

    def objectives(self) -> Sequence[Objective]:
        theirs = tuple(self.discriminator.parameters())
        ours = self._parameters_but("discriminator")
        return (
            Objective("autoencoder", ours, self._autoencoder_loss, bounded=self.settings.loss == "bce"),
            Objective("discriminator", theirs, self._discriminator_loss, lr_ratio=self.settings.d_lr_ratio),
            *self._beside(),
        )

    def _autoencoder_loss(self, x: Tensor, y: Tensor, rng: Generator) -> Tensor:
        """L_VAE, and for the decoder what the discriminator says of images drawn from the classes."""
        c, chosen = self._classes(x, rng), self.settings
        n = len(c)
        mean, log_scale = self._posterior(x)
        self._latest = mean.detach(), log_scale.detach()
        self.aggregate.update(mean, (2 * log_scale).exp(), y)
        z = mean + log_scale.exp() * standard_normal(mean, rng)
        # One pass for both: normalized apart, made images would be made otherwise in training than later.
        pixels, pixel_scale = self._pixels(torch.cat([z, self.latent(c, rng=rng)]))
        remade, made = pixels[: len(x)], self._changed(self._cut(pixels[len(x) :]), rng)
        self._made = made.detach()
        loss = self._bound_loss(x, y, (mean, log_scale), (remade, pixel_scale[: len(x)]))
        shown = [made]
        if chosen.feature_weight:
            shown += [self._seen(self._cut(remade[:n])), self._seen(self.standardizer(x[:n]))]
        features, logits = self.discriminator(torch.cat(shown))
        as_asked = CLASS_WEIGHT * F.cross_entropy(logits[:n], c)
        deceiving = ADVERSARIAL_LOSSES[chosen.loss].generator(logits[:n].logsumexp(1)) + as_asked
        loss = loss + chosen.adversarial_weight * deceiving
        if chosen.feature_weight:
            loss = loss + chosen.feature_weight * _apart(*features[n:].chunk(2))
        return loss

    def _discriminator_loss(self, x: Tensor, y: Tensor, rng: Generator) -> Tensor:
        """Real images from those that the decoder has just made, and the classes of labeled images from one another."""
        made = self._made if len(self._made) else self._decoded(x, rng)
        n, loss = len(made), ADVERSARIAL_LOSSES[self.settings.loss]
        real = self._changed(self.standardizer(x[:n]), rng)
        _, logits = self.discriminator(torch.cat([real, made]))
        total = loss.real(logits[:n].logsumexp(1)) + loss.fake(logits[n:].logsumexp(1))
        labeled = y[:n] >= 0
        return total + F.cross_entropy(logits[:n][labeled], y[:n][labeled]) if labeled.any() else total

    @torch.no_grad()
    def _decoded(self, x: Tensor, rng: Generator) -> Tensor:
        """Made images where the decoder has not made any at this step."""
        pixels, _ = self._pixels(self.latent(self._classes(x, rng), rng=rng))
        return self._changed(self._cut(pixels), rng)

    def _classes(self, x: Tensor, rng: Generator) -> Tensor:
        """The classes of as many images as are to be made beside a batch."""
        n = max(2, round(self.settings.fake_ratio * len(x)))
        return sample_classes(self.log_prior, n, rng)

    def _cut(self, x: Tensor) -> Tensor:
        """What a sample would show: a black that is a little less than black would give every made image away."""
        return x.clamp(0, 1) if self.task.domain is Domain.PIXELS8 else x

    def _changed(self, x: Tensor, rng: Generator) -> Tensor:
        return self._seen(diff_augment(x, self.settings.diff_augment, rng))

    def _seen(self, x: Tensor) -> Tensor:
        """What the discriminator looks at: pixels in [-1, 1], vectors standardized."""
        return 2 * x - 1 if self.task.domain is Domain.PIXELS8 else x


def _apart(remade: Tensor, original: Tensor) -> Tensor:
    """The mean squared distance of features (B, F), as a share of the originals' mean square."""
    original = original.detach()
    return (remade - original).square().mean() / (original.square().mean() + 1e-6)
