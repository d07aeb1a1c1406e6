"""An artist: what draws images for a model of features, p(x | s, f), taught by the backbone that the features are of.

With p(f | c) the model's own and p(s | c) that of sketches, p(x | c) = ∫∫ p(x | s, f) p(s | c) p(f | c) ds df. What a sketch
leaves out is made by a generator that learns to make photographs again from their sketches and features, as far as the
backbone tells two images and two textures apart, and to be taken for real, of what it has never seen as well, by
discriminators that see with the backbone's eyes (Sauer 2021, Projected GANs Converge Faster).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import torch
from pydantic import Field
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from likely.base import Objective, Trainable
from likely.features.backbone import Backbone
from likely.features.feature_extractors import FeatureScaler
from likely.features.thumbnail_kde import ThumbnailKDE
from likely.networks.adversarial import ADVERSARIAL
from likely.networks.blocks import standard_normal
from likely.networks.projected_gan import (
    FeatureProjection,
    ProjectedDiscriminator,
    distance,
    texture_distance,
    usable_maps,
)
from likely.networks.upsampler import Upsampler
from likely.options import Options

APPRENTICE = ("judges.", "projection.")  # what is of no use once it draws
SHAKEN = 2  # pixels by which images are moved before they are looked at
SKETCH = 2.0  # weight of the mean error of the drawing, a few pixels a side, beside that of its pixels


class DecoderOptions(Options):
    """How a model of features learns to draw."""

    minutes: float | None = Field(
        None, gt=0, description="How long to learn to draw, after everything else; not at all when left out."
    )
    side: int = Field(64, ge=16, le=256, description="Pixels a side of what is drawn.")
    thumbnail_side: int = Field(
        16, ge=2, le=64, description="Pixels a side of the sketch that a drawing begins with, at most."
    )
    thumbnail_components: int = Field(64, ge=1, description="Principal components of the sketches of all classes.")
    bandwidth: float = Field(
        0.5, ge=0, le=1, description="How far a sketch is from the nearest photograph's: 0 copies it, 1 follows none."
    )
    width: int = Field(64, ge=8, description="Channels of the generator's coarsest maps.")
    depth: int = Field(3, ge=1, description="Residual blocks at the sketch's size.")
    noise_dims: int = Field(4, ge=1, description="Channels of noise, by which drawings of one sketch differ.")
    components: int = Field(64, ge=1, description="Principal components of the features that an image is drawn from.")
    adversarial_weight: float = Field(0.3, ge=0, description="Weight of being taken for real beside being alike.")
    discriminator_side: int = Field(
        64, ge=32, description="Pixels a side of what the backbone is shown while it teaches."
    )


@dataclass(frozen=True)
class DecoderTrainingData:
    """What is known of the training images: sketches (N, 3, s, s), features (N, D), classes (N,); and how to make up features
    of a class, f ~ p(f | c): (B,) -> (B, D)."""

    thumbnails: Tensor
    features: Tensor
    labels: Tensor
    n_classes: int
    sample_features: Callable[[Tensor, Generator], Tensor]


class FeatureDecoder(Trainable):
    """G(s, f, z), z ~ N(0, 1); trained on images x (B, 3, side, side), whose labels are their places among those `known`."""

    def __init__(self, n_features: int, options: DecoderOptions, n_sketches: int = 0) -> None:
        super().__init__()
        self.options = options
        self.to_plan = FeatureScaler("whiten", (n_features,), options.components)
        n_plan = 2 * options.width
        self.plan = nn.Linear(self.to_plan.n_features, n_plan)
        self.refiner = Upsampler(
            options.side, options.thumbnail_side, options.noise_dims, n_plan, width=options.width, depth=options.depth
        )
        self.thumbnails = ThumbnailKDE(
            self.refiner.sizes[0], options.thumbnail_components, options.bandwidth, n_sketches
        )
        self.judges: ProjectedDiscriminator | None = None
        self.projection: FeatureProjection | None = None

    @classmethod
    def from_state(cls, options: DecoderOptions, tensors: Mapping[str, Tensor]) -> Self:
        """Of the tensors that were `finished`; a RuntimeError if they are another's."""
        try:
            self = cls(len(tensors["to_plan.location"]), options, len(tensors["thumbnails.codes"]))
        except KeyError as error:
            raise RuntimeError(f"there is no {error}") from error
        self.load_state_dict(dict(tensors))
        return self

    def init_from_data(self, backbone: Backbone, some: Tensor, known: DecoderTrainingData) -> None:
        """What is taught by whom, and `some` of the training images (M, 3, side, side), to scale the teacher's maps by."""
        self.to_plan.fit(known.features)
        codes = self.thumbnails.fit(known.thumbnails, known.labels)
        self._known = known.features, codes, known.labels
        # Neither a module of this one: they are kept elsewhere, and an average of weights would be nothing new.
        self._teacher, self._imagine = (backbone,), (known.sample_features,)
        with torch.inference_mode():
            maps = self._maps(some)
        channels, width = [h.shape[1] for h in maps], self.options.width // 2
        self.projection = FeatureProjection(channels, width).to(some.device)
        self.projection.init_from_data(maps)
        self.judges = ProjectedDiscriminator(len(channels), width, known.n_classes).to(some.device)

    def forward(self, u: Tensor, f: Tensor, z: Tensor) -> Tensor:
        """Sketches' codes (B, n), features (B, D), noise (B, d, s, s) -> images (B, 3, H, W), about in [0, 1]."""
        drawn: Tensor = self.refiner(self.thumbnails(u), z, F.silu(self.plan(self.to_plan(f))))
        return drawn

    def to_state(self) -> dict[str, Tensor]:
        """The tensors that it takes to draw."""
        return {name: t for name, t in self.state_dict().items() if not name.startswith(APPRENTICE)}

    def with_new_class(self, s: Tensor, c: int) -> Self:
        """With a class more, of sketches (N, 3, s, s): filled in as those of all others are."""
        sketches = self.thumbnails.with_new_class(s, c)
        tensors = self.to_state() | {f"thumbnails.{name}": t for name, t in sketches.state_dict().items()}
        return type(self).from_state(self.options, tensors).to(self.plan.weight.device).eval()

    @torch.no_grad()
    def sample_images(self, f: Tensor, c: Tensor, *, rng: Generator | None = None, truncation: float = 1.0) -> Tensor:
        """An image of each feature vector and class, in [0, 1]; without `rng`, of the class's mean sketch and no noise."""
        u = self.thumbnails.encode(c, rng)
        if truncation != 1:
            middle = self.thumbnails.encode(c, None)
            u = middle + truncation * (u - middle)
        f = f.to(u)
        drawn: Tensor = self(u, f, self._noise(f, rng))
        return drawn.clamp(0, 1)

    def objectives(self) -> Sequence[Objective]:
        assert self.judges is not None
        ours = (*self.plan.parameters(), *self.refiner.parameters())
        return (
            Objective("drawing", ours, self._generator_loss, bounded=False),
            Objective("judging", tuple(self.judges.parameters()), self._judges_loss, bounded=False),
        )

    def _generator_loss(self, x: Tensor, i: Tensor, rng: Generator) -> Tensor:
        """Half of them alike, all of them true to their sketches and, to the judges, real."""
        f, u, c = (known[i] for known in self._known)
        n = (len(x) + 1) // 2  # the others are of sketches and features that are made up
        if n < len(x):
            f = torch.cat([f[:n], self._imagine[0](c[n:], rng).to(f)])
            u = torch.cat([u[:n], self.thumbnails.encode(c[n:], rng)])
        made: Tensor = self(u, f, self._noise(f, rng))
        outside = (made - made.clamp(0, 1)).abs().mean()
        small = F.interpolate(made, size=(self.thumbnails.side,) * 2, mode="area")
        true = (small - self.thumbnails(u)).abs().mean()
        x, made = _shaken((x, made), rng)
        with torch.no_grad():
            real_maps = self._maps(x)
        made_maps = self._maps(made)
        self._step = c, x, real_maps, made.detach(), [h.detach() for h in made_maps]
        alike, model = [h[:n] for h in made_maps], [h[:n] for h in real_maps]
        attack_success_rate = ADVERSARIAL["hinge"].generator(self._judged(made, made_maps, c))
        loss = (made[:n] - x[:n]).abs().mean() + distance(alike, model) + texture_distance(alike, model)
        whole: Tensor = loss + SKETCH * true + outside + self.options.adversarial_weight * attack_success_rate
        return whole

    def _judges_loss(self, x: Tensor, i: Tensor, rng: Generator) -> Tensor:
        """By the images and maps of the step under way."""
        (c, real, real_maps, made, made_maps), loss = self._step, ADVERSARIAL["hinge"]
        return loss.real(self._judged(real, real_maps, c)) + loss.fake(self._judged(made, made_maps, c))

    def _judged(self, x: Tensor, maps: Sequence[Tensor], c: Tensor) -> Tensor:
        assert self.projection is not None
        assert self.judges is not None
        found: Tensor = self.judges(x, self.projection(maps), c)
        return found

    def _noise(self, like: Tensor, rng: Generator | None) -> Tensor:
        side = self.thumbnails.side
        z = torch.zeros(len(like), self.options.noise_dims, side, side, device=like.device)
        return z if rng is None else standard_normal(z, rng)

    def _maps(self, x: Tensor) -> list[Tensor]:
        """What the teacher sees of images, the finest maps first."""
        shown = F.interpolate(x, size=(self.options.discriminator_side,) * 2, mode="bilinear", antialias=True)
        maps = self._teacher[0].maps(shown, None)
        return maps[: usable_maps(maps)]


def _shaken(images: Sequence[Tensor], rng: Generator) -> list[Tensor]:
    """All moved alike, by up to `SHAKEN` pixels each way: a network that looks at every other pixel would else be attack_success_rate by
    a pattern in between."""
    d, (dy, dx) = SHAKEN, torch.randint(2 * SHAKEN + 1, (2,), generator=rng, device=rng.device).tolist()
    height, width = images[0].shape[2:]
    return [F.pad(x, (d, d, d, d), mode="reflect")[..., dy : dy + height, dx : dx + width] for x in images]
