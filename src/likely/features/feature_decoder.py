"""Image generation for models of backbone features: p(x | c) = ∫∫ p(x | s, f) p(s | c) p(f | c) ds df.

p(f | c) is the model, p(s | c) a kernel density estimate of thumbnails, and p(x | s, f) a generator conditioned on both. It is
trained to reconstruct training images under perceptual and texture losses, and adversarially, also on sampled thumbnails and
features, against discriminators on the backbone's feature maps (Sauer 2021, Projected GANs Converge Faster).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar, Self

import numpy as np
import torch
from pydantic import Field
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from likely.base import GenerativeModel, Objective, Trainable, to_eight_bit, to_unit
from likely.data.dataset import LabeledImages
from likely.data.image_dataset import ArrayDataset, ImageDataset
from likely.exceptions import InvalidValueError
from likely.features.backbone import Backbone
from likely.features.feature_extraction import FeaturePipeline
from likely.features.feature_extractors import FeatureScaler
from likely.features.thumbnail_kde import ThumbnailKDE, ThumbnailKDEOptions
from likely.networks.adversarial import ADVERSARIAL_LOSSES
from likely.networks.blocks import standard_normal
from likely.networks.discriminator import LEAKY_SLOPE
from likely.networks.projected_gan import (
    FeatureProjection,
    ProjectedDiscriminator,
    perceptual_distance,
    texture_distance,
)
from likely.options import Options
from likely.training.data_loader import ShuffledBatches
from likely.training.device import to_device
from likely.training.loop import Step, fit
from likely.training.options import TrainingOptions
from likely.training.state import TrainingState

_TRAINING_ONLY = ("discriminators.", "projection.")  # prefixes of weights that sampling does not need
_RESIZE_BATCH_SIZE = 64  # images resized together


class DecoderOptions(Options):
    """Options of image generation from features."""

    minutes: float | None = Field(
        None, gt=0, description="Minutes of decoder training after the model's own. Default: no decoder."
    )
    side: int = Field(64, ge=16, le=256, description="Side of generated images in pixels.")
    thumbnail_side: int = Field(
        16, ge=2, le=64, description="Maximum side in pixels of the thumbnail from which an image is generated."
    )
    thumbnail_components: int = Field(64, ge=1, description="Principal components of the thumbnails.")
    bandwidth: float = Field(
        0.5,
        ge=0,
        le=1,
        description="Bandwidth of the kernel density estimate of thumbnails: 0 resamples training thumbnails, 1 is a Gaussian.",
    )
    width: int = Field(64, ge=8, description="Channels of the generator at the lowest resolution.")
    depth: int = Field(3, ge=1, description="Residual blocks at the thumbnail's resolution.")
    noise_dims: int = Field(
        4, ge=1, description="Noise channels, the source of variation between images from one thumbnail."
    )
    components: int = Field(64, ge=1, description="Principal components of the features that condition the generator.")
    adversarial_weight: float = Field(
        0.3, ge=0, description="Weight of the adversarial loss relative to the reconstruction losses."
    )
    discriminator_side: int = Field(
        64, ge=32, description="Side in pixels of images shown to the backbone in adversarial training."
    )


class DecoderTrainingOptions(Options):
    """Options of decoder training that users do not set."""

    training: TrainingOptions = Field(
        TrainingOptions(batch_size=16, learning_rate=2e-3, momentum=0.5, ema_decay=0.995, weight_decay=0.0),
        description="Options of the training loop.",
    )
    thumbnail_weight: float = Field(
        2.0, ge=0, description="Weight of the thumbnail's mean absolute error relative to the image's."
    )
    max_shift: int = Field(2, ge=0, description="Pixels of the random translation before the discriminators.")
    min_map_side: int = Field(4, ge=1, description="Side in pixels of the smallest feature maps with a discriminator.")
    n_init_images: int = Field(64, ge=1, description="Images that scale the backbone's feature maps.")


@dataclass(frozen=True)
class DecoderTrainingData:
    """Thumbnails (N, 3, s, s), features (N, D), classes (N,) of training images; a sampler f ~ p(f | c), (B,) -> (B, D)."""

    thumbnails: Tensor
    features: Tensor
    labels: Tensor
    n_classes: int
    sample_features: Callable[[Tensor, Generator], Tensor]


class FeatureDecoder(Trainable):
    """Generator G(s, f, z), z ~ N(0, 1), of images (B, 3, side, side).

    In training the labels of a batch are indices into the data of `init_from_data`.
    """

    training_options: ClassVar = DecoderTrainingOptions()

    def __init__(self, n_features: int, options: DecoderOptions, n_thumbnails: int = 0) -> None:
        super().__init__()
        self.options = options
        self.whitening = FeatureScaler("whiten", (n_features,), options.components)
        n_condition = 2 * options.width
        self.to_condition = nn.Linear(self.whitening.n_features, n_condition)
        self.upsampler = _Upsampler(
            options.side,
            options.thumbnail_side,
            options.noise_dims,
            n_condition,
            width=options.width,
            depth=options.depth,
        )
        kde = ThumbnailKDEOptions(n_components=options.thumbnail_components, bandwidth=options.bandwidth)
        self.thumbnails = ThumbnailKDE(self.upsampler.sizes[0], kde, n_thumbnails)
        self.discriminators: ProjectedDiscriminator | None = None
        self.projection: FeatureProjection | None = None

    @classmethod
    def from_state(cls, options: DecoderOptions, tensors: Mapping[str, Tensor]) -> Self:
        """Rebuild from the tensors of `to_state`; RuntimeError if they do not match the options."""
        try:
            self = cls(len(tensors["whitening.location"]), options, len(tensors["thumbnails.codes"]))
        except KeyError as error:
            raise RuntimeError(f"missing tensor {error}") from error
        self.load_state_dict(dict(tensors))
        return self

    def init_from_data(self, backbone: Backbone, images: Tensor, data: DecoderTrainingData) -> None:
        """Fit whitening and thumbnails, and scale the backbone's maps by some images (M, 3, side, side)."""
        self.whitening.fit(data.features)
        codes = self.thumbnails.fit(data.thumbnails, data.labels)
        self._data = data.features, codes, data.labels
        # In tuples, so that neither is registered as a submodule, saved or averaged.
        self._backbone, self._sample_features = (backbone,), (data.sample_features,)
        with torch.inference_mode():
            maps = self._maps(images)
        channels, width = [h.shape[1] for h in maps], self.options.width // 2
        self.projection = FeatureProjection(channels, width).to(images.device)
        self.projection.init_from_data(maps)
        self.discriminators = ProjectedDiscriminator(len(channels), width, data.n_classes).to(images.device)

    def forward(self, u: Tensor, f: Tensor, z: Tensor) -> Tensor:
        """Generate images (B, 3, H, W) from thumbnail codes (B, n), features (B, D) and noise (B, d, s, s)."""
        image: Tensor = self.upsampler(self.thumbnails(u), z, F.silu(self.to_condition(self.whitening(f))))
        return image

    def to_state(self) -> dict[str, Tensor]:
        """Return the tensors that sampling needs."""
        return {name: t for name, t in self.state_dict().items() if not name.startswith(_TRAINING_ONLY)}

    def with_new_class(self, images: ImageDataset, c: int) -> Self:
        """Return a copy with a new class c of these images; the generator is unchanged."""
        thumbnails = self.thumbnails.with_new_class(_thumbnails(images, self), c)
        tensors = self.to_state() | {f"thumbnails.{name}": t for name, t in thumbnails.state_dict().items()}
        return type(self).from_state(self.options, tensors).to(self.to_condition.weight.device).eval()

    @torch.no_grad()
    def sample_images(self, f: Tensor, c: Tensor, *, rng: Generator | None = None, truncation: float = 1.0) -> Tensor:
        """Sample an image in [0, 1] per feature vector (B, D) and class (B,); without `rng`, mean thumbnail and no noise."""
        u = self.thumbnails.sample_codes(c, rng)
        if truncation != 1:
            mean = self.thumbnails.sample_codes(c, None)
            u = mean + truncation * (u - mean)
        f = f.to(u)
        image: Tensor = self(u, f, self._noise(f, rng))
        return image.clamp(0, 1)

    def objectives(self) -> Sequence[Objective]:
        assert self.discriminators is not None
        parameters = (*self.to_condition.parameters(), *self.upsampler.parameters())
        return (
            Objective("generator", parameters, self._generator_loss, bounded=False),
            Objective(
                "discriminator", tuple(self.discriminators.parameters()), self._discriminator_loss, bounded=False
            ),
        )

    def _generator_loss(self, x: Tensor, i: Tensor, rng: Generator) -> Tensor:
        """Reconstruction losses on one half of the batch; thumbnail and adversarial losses on all of it."""
        f, u, c = (data[i] for data in self._data)
        n = (len(x) + 1) // 2  # the other half has sampled thumbnails and features
        if n < len(x):
            f = torch.cat([f[:n], self._sample_features[0](c[n:], rng).to(f)])
            u = torch.cat([u[:n], self.thumbnails.sample_codes(c[n:], rng)])
        fake: Tensor = self(u, f, self._noise(f, rng))
        out_of_range = (fake - fake.clamp(0, 1)).abs().mean()
        downscaled = F.interpolate(fake, size=(self.thumbnails.side,) * 2, mode="area")
        thumbnail_error = (downscaled - self.thumbnails(u)).abs().mean()
        x, fake = _shifted_alike((x, fake), self.training_options.max_shift, rng)
        with torch.no_grad():
            real_maps = self._maps(x)
        fake_maps = self._maps(fake)
        self._step = c, x, real_maps, fake.detach(), [h.detach() for h in fake_maps]
        fake_pair, real_pair = [h[:n] for h in fake_maps], [h[:n] for h in real_maps]
        adversarial = ADVERSARIAL_LOSSES["hinge"].generator(self._critic(fake, fake_maps, c))
        loss = (
            (fake[:n] - x[:n]).abs().mean()
            + perceptual_distance(fake_pair, real_pair)
            + texture_distance(fake_pair, real_pair)
        )
        loss = loss + self.training_options.thumbnail_weight * thumbnail_error + out_of_range
        total: Tensor = loss + self.options.adversarial_weight * adversarial
        return total

    def _discriminator_loss(self, x: Tensor, i: Tensor, rng: Generator) -> Tensor:
        """Hinge loss on the real and fake images of the current step."""
        (c, real, real_maps, fake, fake_maps), loss = self._step, ADVERSARIAL_LOSSES["hinge"]
        return loss.real(self._critic(real, real_maps, c)) + loss.fake(self._critic(fake, fake_maps, c))

    def _critic(self, x: Tensor, maps: Sequence[Tensor], c: Tensor) -> Tensor:
        assert self.projection is not None
        assert self.discriminators is not None
        values: Tensor = self.discriminators(x, self.projection(maps), c)
        return values

    def _noise(self, like: Tensor, rng: Generator | None) -> Tensor:
        side = self.thumbnails.side
        z = torch.zeros(len(like), self.options.noise_dims, side, side, device=like.device)
        return z if rng is None else standard_normal(z, rng)

    def _maps(self, x: Tensor) -> list[Tensor]:
        """Return the backbone's feature maps, finest first."""
        resized = F.interpolate(x, size=(self.options.discriminator_side,) * 2, mode="bilinear", antialias=True)
        maps = self._backbone[0].maps(resized, None)
        n_usable = sum(h.ndim == 4 and min(h.shape[2:]) >= self.training_options.min_map_side for h in maps)
        return maps[: max(1, n_usable)]


class _Upsampler(nn.Module):
    """x = s↑ + r(s, z, p): thumbnails (B, 3, s, s), noise (B, d, s, s), conditions (B, P) -> images (B, 3, side, side).

    The condition acts by FiLM.
    """

    def __init__(
        self, side: int, max_input_side: int, noise_dims: int, n_condition: int, *, width: int, depth: int
    ) -> None:
        """Build an upsampler to `side` pixels by doubling, from the largest size of at most `max_input_side`."""
        super().__init__()
        self.sizes = [side]
        while self.sizes[0] > max_input_side:
            self.sizes.insert(0, (self.sizes[0] + 1) // 2)
        channels = [max(16, width >> i) for i in range(len(self.sizes))]
        self.first = nn.Conv2d(3 + noise_dims, channels[0], 3, padding=1)
        self.blocks = nn.ModuleList(_FiLMBlock(channels[0], n_condition) for _ in range(depth))
        self.up = nn.ModuleList(nn.Conv2d(a, 4 * b, 3, padding=1) for a, b in pairwise(channels))
        self.up_blocks = nn.ModuleList(_FiLMBlock(n, n_condition) for n in channels[1:])
        self.last = nn.Conv2d(channels[-1], 3, 3, padding=1)
        with torch.no_grad():
            # Initialize the four sub-pixels alike to avoid checkerboard artifacts (Aitken 2017).
            for up in self.up:
                up.weight.copy_(up.weight[::4].repeat_interleave(4, 0))  # type: ignore[operator,index]
            self.last.weight *= 0.1

    def forward(self, s: Tensor, z: Tensor, condition: Tensor) -> Tensor:
        h = self.first(torch.cat([s - 0.5, z], 1))
        for block in self.blocks:
            h = block(h, condition)
        for up, block, size in zip(self.up, self.up_blocks, self.sizes[1:], strict=True):
            h = block(F.pixel_shuffle(up(h), 2)[..., :size, :size], condition)
        larger = F.interpolate(s, size=(self.sizes[-1],) * 2, mode="bicubic")
        image: Tensor = larger + self.last(F.leaky_relu(h, LEAKY_SLOPE))
        return image


class _FiLMBlock(nn.Module):
    """h + g(γ f(h) + β), f and g 3x3 convolutions, γ − 1 and β linear in the condition (Perez 2018, FiLM)."""

    def __init__(self, n_channels: int, n_condition: int) -> None:
        super().__init__()
        self.inner = nn.Conv2d(n_channels, n_channels, 3, padding=1)
        self.outer = nn.Conv2d(n_channels, n_channels, 3, padding=1)
        self.to_film = nn.Linear(n_condition, 2 * n_channels)
        with torch.no_grad():
            self.outer.weight *= 0.1  # a block starts near the identity

    def forward(self, h: Tensor, condition: Tensor) -> Tensor:
        scale, shift = self.to_film(condition)[..., None, None].chunk(2, 1)
        residual: Tensor = self.outer(
            F.leaky_relu(self.inner(F.leaky_relu(h, LEAKY_SLOPE)) * (1 + scale) + shift, LEAKY_SLOPE)
        )
        return h + residual


class DecoderTraining:
    """Training of a feature decoder: `steps` trains, `decoder` returns the result so far."""

    def __init__(
        self,
        features: FeaturePipeline,
        model: GenerativeModel,
        images: LabeledImages,
        options: DecoderOptions,
        *,
        seed: int,
    ) -> None:
        """Prepare training for a model of backbone features; InvalidValueError for other features."""
        if not isinstance(features.extractor, Backbone):
            raise InvalidValueError(
                f"image generation needs backbone features; this model has {features.options.kind!r}"
            )
        labeled, device, settings = images.labeled(), features.device, FeatureDecoder.training_options
        vectors = features.transform_images(labeled).images.batch(np.arange(len(labeled))).to(device)
        downscaled, indices = _downscale(labeled.images, options.side), np.arange(len(labeled))

        @torch.no_grad()
        def sample_features(c: Tensor, rng: Generator) -> Tensor:
            return model.sample(c, rng=rng)

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            decoder = to_device(FeatureDecoder(vectors.shape[1], options), device)
            labels = torch.from_numpy(labeled.labels).to(device)
            data = DecoderTrainingData(
                _thumbnails(downscaled, decoder).to(device), vectors, labels, model.task.n_classes, sample_features
            )
            init_images = downscaled.batch(indices[:: max(1, len(labeled) // settings.n_init_images)])
            decoder.init_from_data(features.extractor, to_unit(init_images).to(device), data)
        training = settings.training.model_copy(update={"minutes": options.minutes})
        self.state = TrainingState(decoder, training, seed=seed)
        assert training.batch_size is not None
        batch_size = min(training.batch_size, len(labeled))
        self.batches = ShuffledBatches(downscaled, indices, batch_size=batch_size, seed=seed, augment=None)

    def steps(self) -> Iterator[Step]:
        """Train until the minutes of the options are over."""
        yield from fit(self.state, self.batches.to(self.state.device))

    @property
    def decoder(self) -> FeatureDecoder:
        """Decoder with averaged weights, without the discriminators."""
        self.state.load_best()
        trained = self.state.model
        assert isinstance(trained, FeatureDecoder)
        return to_device(FeatureDecoder.from_state(trained.options, trained.to_state()).eval(), self.state.device)


def _thumbnails(images: ImageDataset, decoder: FeatureDecoder) -> Tensor:
    """Return the images at the decoder's thumbnail size: (N, 3, s, s) in [0, 1]."""
    return to_unit(_downscale(images, decoder.thumbnails.side).batch(np.arange(len(images))))


def _downscale(images: ImageDataset, side: int) -> ArrayDataset:
    """Resize images to uint8 (N, C, side, side) in memory."""
    resized = []
    for start in range(0, len(images), _RESIZE_BATCH_SIZE):
        x = to_unit(images.batch(np.arange(start, min(start + _RESIZE_BATCH_SIZE, len(images)))))
        resized.append(to_eight_bit(F.interpolate(x, size=(side, side), mode="area")))
    return ArrayDataset(torch.cat(resized).numpy(), images.name)


def _shifted_alike(images: Sequence[Tensor], d: int, rng: Generator) -> list[Tensor]:
    """Translate all images alike by up to d pixels.

    Otherwise patterns between the samples of a strided first convolution go unnoticed.
    """
    dy, dx = torch.randint(2 * d + 1, (2,), generator=rng, device=rng.device).tolist()
    height, width = images[0].shape[2:]
    return [F.pad(x, (d, d, d, d), mode="reflect")[..., dy : dy + height, dx : dx + width] for x in images]
