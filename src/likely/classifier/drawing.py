"""How a classifier that knows features learns to draw: an artist is taught by the backbone that the features are of."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from likely.classifier.featuring import Features
from likely.contract import GenerativeModel
from likely.data.collection import CachedImages, Images
from likely.data.parts import Part
from likely.models.artist import Artist, ArtistOptions
from likely.nets.backbone import Backbone
from likely.nets.scaling import to_eight_bit, to_unit
from likely.training import hardware
from likely.training.feed import Batches
from likely.training.loop import Step, fit
from likely.training.options import TrainingOptions
from likely.training.state import TrainingState

BATCH = 32
AT_ONCE = 64  # images that are shrunk together
TRAINING = TrainingOptions(batch_size=BATCH, learning_rate=2e-3, momentum=0.5, ema=0.995, weight_decay=0.0)


class Drawing:
    """A training under way: `steps` trains, `artist` is what has been learned so far."""

    def __init__(self, features: Features, part: Part, n_classes: int, options: ArtistOptions, *, seed: int) -> None:
        """From labelled images; a ValueError if their features are of no backbone."""
        if not isinstance(features.map, Backbone):
            raise ValueError(f"{features.options.kind!r} features teach nobody to draw; a backbone was expected")
        part, side = part.labelled(), options.side
        vectors = features.over(part).images.batch(np.arange(len(part))).to(features.device)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            artist = hardware.placed(Artist(vectors.shape[1], n_classes, options), features.device)
            artist.learn_from(features.map, vectors, torch.from_numpy(part.labels).to(features.device))
        training = TRAINING.model_copy(update={"minutes": options.minutes})
        self.state = TrainingState(artist, training, seed=seed)
        places, images = np.arange(len(part)), shrunk(part.images, side)
        self.feed = Batches(images, places, batch_size=min(BATCH, len(part)), seed=seed, augment=None)

    def steps(self) -> Iterator[Step]:
        """Until the minutes are over."""
        yield from fit(self.state, self.feed.to(self.state.device))

    @property
    def artist(self) -> Artist:
        """With averaged weights."""
        self.state.use_best()
        found = self.state.model
        assert isinstance(found, Artist)
        return found.eval()


def drawn(model: GenerativeModel, artist: Artist, c: Tensor, rng: torch.Generator, truncation: float) -> Tensor:
    """x ~ ∫ p(x | f, c) p(f | c) df, features' distance from the class's own scaled by `truncation`: (B,) -> (B, 3, H, W)."""
    f = model.sample(c, rng=rng)
    if truncation != 1:
        middle = model.sample(c)
        f = middle + truncation * (f - middle)
    return artist.draw(f, c, rng=rng)


def shrunk(images: Images, side: int) -> CachedImages:
    """The images as uint8 (N, C, side, side), in memory."""
    made = []
    for start in range(0, len(images), AT_ONCE):
        x = to_unit(images.batch(np.arange(start, min(start + AT_ONCE, len(images)))))
        made.append(to_eight_bit(F.interpolate(x, size=(side, side), mode="area")))
    return CachedImages(torch.cat(made).numpy(), images.name)
