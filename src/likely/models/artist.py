"""An artist: what draws images for a model of features, p(x | f, c), taught by the backbone that the features are of.

With p(f | c) the model's own, p(x | c) = ∫ p(x | f, c) p(f | c) df. A generator learns to make an image again from its
features, as far as the backbone tells two images apart, and to be taken for real by discriminators that see with the backbone's
eyes (Sauer 2021, Projected GANs Converge Faster).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from pydantic import Field
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from likely.contract import Learner, Objective
from likely.nets.adversarial import ADVERSARIAL
from likely.nets.backbone import Backbone
from likely.nets.blocks import head, standard_normal
from likely.nets.features import Scaling
from likely.nets.projected import Judges, Projection, distance, useful
from likely.options import Options

STAGES = 4  # of the backbone, that teach
APPRENTICE = ("judges.", "projection.")  # what is of no use once it draws


class ArtistOptions(Options):
    """How a model of features learns to draw."""

    minutes: float | None = Field(
        None, gt=0, description="How long to learn to draw, after everything else; not at all when left out."
    )
    side: int = Field(64, ge=16, le=256, description="Pixels a side of what is drawn.")
    width: int = Field(48, ge=8, description="Channels of the generator's finest maps.")
    noise_dims: int = Field(32, ge=1, description="Numbers by which images of the same features differ.")
    components: int = Field(64, ge=1, description="Principal components of the features that an image is drawn from.")
    adversarial: float = Field(0.1, ge=0, description="Weight of being taken for real beside being alike.")
    teacher_side: int = Field(96, ge=32, description="Pixels a side of what the backbone is shown while it teaches.")


class Artist(Learner):
    """G(z, f, c), z ~ N(0, 1); trained on images x (B, 3, H, W), whose labels are their places among `known` features."""

    def __init__(self, n_features: int, n_classes: int, options: ArtistOptions) -> None:
        super().__init__()
        self.options, d = options, 8 * options.width
        self.to_plan = Scaling("whiten", (n_features,), options.components)
        self.classes = nn.Embedding(n_classes, d)
        self.start = nn.Linear(options.noise_dims + self.to_plan.n_features, d)
        self.generator = head(d, (3, options.side, options.side), width=options.width, depth=1)
        self.judges: Judges | None = None
        self.projection: Projection | None = None

    def learn_from(self, backbone: Backbone, features: Tensor, labels: Tensor) -> None:
        """What is taught by whom: the training images' features (N, D) and classes (N,)."""
        self.to_plan.measure(features)
        self._known = features, labels
        # Not a module of this one: it is kept elsewhere, and an average of its weights would be nothing new.
        self._teacher = (backbone,)
        with torch.inference_mode():
            maps = self._maps(features.new_zeros(1, 3, self.options.side, self.options.side))
        channels, width = [h.shape[1] for h in maps], 2 * self.options.width
        self.projection = Projection(channels, width).to(features.device)
        self.judges = Judges(len(channels), width, self.classes.num_embeddings).to(features.device)

    def forward(self, z: Tensor, f: Tensor, c: Tensor) -> Tensor:
        """Noise (B, d), features (B, D), classes (B,) -> images (B, 3, H, W) in [0, 1]."""
        plan = self.start(torch.cat([z, self.to_plan(f).to(z)], 1)) + self.classes(c)
        drawn: Tensor = self.generator(F.silu(plan))
        return drawn.sigmoid()

    def finished(self) -> dict[str, Tensor]:
        """The tensors that it takes to draw."""
        return {name: t for name, t in self.state_dict().items() if not name.startswith(APPRENTICE)}

    @torch.no_grad()
    def draw(self, f: Tensor, c: Tensor, *, rng: Generator | None = None) -> Tensor:
        """An image of each feature vector, in [0, 1]; without `rng`, with no noise."""
        z = torch.zeros(len(f), self.options.noise_dims, device=f.device)
        drawn: Tensor = self(z if rng is None else standard_normal(z, rng), f.float(), c)
        return drawn

    def objectives(self) -> Sequence[Objective]:
        assert self.judges is not None
        ours = (*self.classes.parameters(), *self.start.parameters(), *self.generator.parameters())
        return (
            Objective("drawing", ours, self._generator_loss, bounded=False),
            Objective("judging", tuple(self.judges.parameters()), self._judges_loss, bounded=False),
        )

    def _generator_loss(self, x: Tensor, i: Tensor, rng: Generator) -> Tensor:
        """Alike and, to the judges, real."""
        f, c = (known[i] for known in self._known)
        z = standard_normal(torch.zeros(len(x), self.options.noise_dims, device=x.device), rng)
        made: Tensor = self(z, f, c)
        real_maps = self._maps(self._sized(x))
        self._real = real_maps, c
        made_maps = self._maps(made)
        self._made = [h.detach() for h in made_maps]
        deceived = ADVERSARIAL["hinge"].generator(self._judged(made_maps, c))
        return (
            distance(made_maps, real_maps) + (made - self._sized(x)).abs().mean() + self.options.adversarial * deceived
        )

    def _judges_loss(self, x: Tensor, i: Tensor, rng: Generator) -> Tensor:
        """By the maps of the step under way."""
        (real, c), loss = self._real, ADVERSARIAL["hinge"]
        return loss.real(self._judged(real, c)) + loss.made(self._judged(self._made, c))

    def _judged(self, maps: Sequence[Tensor], c: Tensor) -> Tensor:
        assert self.projection is not None
        assert self.judges is not None
        found: Tensor = self.judges(self.projection(maps), c)
        return found

    def _sized(self, x: Tensor) -> Tensor:
        return F.interpolate(x, size=(self.options.side,) * 2, mode="area")

    def _maps(self, x: Tensor) -> list[Tensor]:
        """What the teacher sees of images, the finest maps first."""
        shown = F.interpolate(x, size=(self.options.teacher_side,) * 2, mode="bilinear", antialias=True)
        maps = self._teacher[0].maps(shown, STAGES)
        return maps[: useful(maps)]
