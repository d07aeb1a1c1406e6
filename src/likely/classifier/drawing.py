"""How a classifier that knows features learns to draw: an artist is taught by the backbone that the features are of."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from likely.classifier.featuring import Features
from likely.contract import GenerativeModel, Latent
from likely.data.collection import CachedImages, Images
from likely.data.parts import Part
from likely.models.artist import Artist, ArtistOptions, Lessons
from likely.nets.backbone import Backbone
from likely.nets.scaling import to_eight_bit, to_unit
from likely.training import hardware
from likely.training.feed import Batches
from likely.training.loop import Step, fit
from likely.training.options import TrainingOptions
from likely.training.state import TrainingState

if TYPE_CHECKING:
    from likely.classifier.classifier import BayesClassifier

BATCH = 16
BATCH_DRAWN = 256  # images that are drawn together
AT_ONCE = 64  # images that are shrunk together
MEASURED = 64  # images by which what the teacher sees is scaled
TRAINING = TrainingOptions(batch_size=BATCH, learning_rate=2e-3, momentum=0.5, ema=0.995, weight_decay=0.0)


class Drawing:
    """A training under way: `steps` trains, `artist` is what has been learned so far."""

    def __init__(
        self, features: Features, model: GenerativeModel, part: Part, options: ArtistOptions, *, seed: int
    ) -> None:
        """From labelled images, for a model of their features; a ValueError if these are of no backbone."""
        if not isinstance(features.map, Backbone):
            raise ValueError(f"{features.options.kind!r} features teach nobody to draw; a backbone was expected")
        part, on = part.labelled(), features.device
        vectors = features.over(part).images.batch(np.arange(len(part))).to(on)
        images, places = shrunk(part.images, options.side), np.arange(len(part))

        @torch.no_grad()
        def imagine(c: Tensor, rng: torch.Generator) -> Tensor:
            return model.sample(c, rng=rng)

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            artist = hardware.placed(Artist(vectors.shape[1], options), on)
            labels = torch.from_numpy(part.labels).to(on)
            known = Lessons(sketched(images, artist).to(on), vectors, labels, model.task.n_classes, imagine)
            some = places[:: max(1, len(part) // MEASURED)]
            artist.learn_from(features.map, to_unit(images.batch(some)).to(on), known)
        training = TRAINING.model_copy(update={"minutes": options.minutes})
        self.state = TrainingState(artist, training, seed=seed)
        self.feed = Batches(images, places, batch_size=min(BATCH, len(part)), seed=seed, augment=None)

    def steps(self) -> Iterator[Step]:
        """Until the minutes are over."""
        yield from fit(self.state, self.feed.to(self.state.device))

    @property
    def artist(self) -> Artist:
        """With averaged weights, and without its teachers."""
        self.state.use_best()
        pupil = self.state.model
        assert isinstance(pupil, Artist)
        return hardware.placed(Artist.restored(pupil.options, pupil.finished()).eval(), self.state.device)


def samples(classifier: BayesClassifier, label: int, n: int, *, seed: int, truncation: float) -> NDArray[Any]:
    """n new images of a class: uint8 (n, C, H, W), or float vectors (n, D).

    A ValueError if the classifier cannot draw, or not with that truncation.
    """
    model = classifier.generative("sample")
    rng = torch.Generator(classifier.device).manual_seed(seed)
    blocks = torch.split(torch.full((n,), label, device=classifier.device), BATCH_DRAWN)
    if classifier.features_ is not None:
        artist = _artist_of(classifier)
        return np.concatenate([to_eight_bit(drawn(model, artist, c, rng, truncation)).cpu().numpy() for c in blocks])
    if truncation == 1:
        return np.concatenate([classifier.pixels(model.sample(c, rng=rng)) for c in blocks])
    if not isinstance(model, Latent):
        raise ValueError(f"truncation {truncation:g} needs a model with latent vectors; {classifier.family!r} has none")
    latents = (model.latent(c, rng=rng, truncation=truncation) for c in blocks)
    return np.concatenate([classifier.pixels(model.decode(z)) for z in latents])


def _artist_of(classifier: BayesClassifier) -> Artist:
    if classifier.artist is None:
        raise ValueError(
            f"this {classifier.family!r} knows features of images and has not learned to draw them; train it with "
            "--draw-minutes, such as 10, beside --backbone, or a model of pixels, such as --model vaegan"
        )
    return classifier.artist


def drawn(model: GenerativeModel, artist: Artist, c: Tensor, rng: torch.Generator, truncation: float) -> Tensor:
    """x ~ ∫∫ p(x | s, f) p(s | c) p(f | c) ds df, what s and f are apart from the class's own scaled by `truncation`:
    (B,) -> (B, 3, H, W)."""
    f = model.sample(c, rng=rng)
    if truncation != 1:
        middle = model.sample(c)
        f = middle + truncation * (f - middle)
    return artist.draw(f, c, rng=rng, truncation=truncation)


def shrunk(images: Images, side: int) -> CachedImages:
    """The images as uint8 (N, C, side, side), in memory."""
    made = []
    for start in range(0, len(images), AT_ONCE):
        x = to_unit(images.batch(np.arange(start, min(start + AT_ONCE, len(images)))))
        made.append(to_eight_bit(F.interpolate(x, size=(side, side), mode="area")))
    return CachedImages(torch.cat(made).numpy(), images.name)


def sketched(images: Images, artist: Artist) -> Tensor:
    """The images a few pixels a side, as an artist begins them: (N, 3, s, s) in [0, 1]."""
    return to_unit(shrunk(images, artist.sketches.side).batch(np.arange(len(images))))
