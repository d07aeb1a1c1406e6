"""How a classifier that knows features learns to draw: an artist is taught by the backbone that the features are of."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from likely.base import GenerativeModel, Latent
from likely.classifier.predictor import Predictor, generative_model
from likely.data.dataset import LabeledImages
from likely.data.image_dataset import ArrayDataset, ImageDataset
from likely.exceptions import InvalidValueError
from likely.features.backbone import Backbone
from likely.features.feature_decoder import DecoderOptions, DecoderTrainingData, FeatureDecoder
from likely.features.feature_extraction import FeaturePipeline
from likely.networks.pixel_scaling import to_eight_bit, to_unit
from likely.training.data_loader import ShuffledBatches
from likely.training.device import to_device
from likely.training.loop import Step, fit
from likely.training.options import TrainingOptions
from likely.training.state import TrainingState

BATCH_SIZE = 16
SAMPLE_BATCH_SIZE = 256  # images that are drawn together
RESIZE_BATCH_SIZE = 64  # images that are shrunk together
N_INIT_IMAGES = 64  # images by which what the teacher sees is scaled
TRAINING = TrainingOptions(batch_size=BATCH_SIZE, learning_rate=2e-3, momentum=0.5, ema_decay=0.995, weight_decay=0.0)


class DecoderTraining:
    """A training under way: `steps` trains, `artist` is what has been learned so far."""

    def __init__(
        self,
        features: FeaturePipeline,
        model: GenerativeModel,
        part: LabeledImages,
        options: DecoderOptions,
        *,
        seed: int,
    ) -> None:
        """From labeled images, for a model of their features; a ValueError if these are of no backbone."""
        if not isinstance(features.extractor, Backbone):
            raise InvalidValueError(f"{features.options.kind!r} features teach nobody to draw; a backbone was expected")
        part, on = part.labeled(), features.device
        vectors = features.transform_images(part).images.batch(np.arange(len(part))).to(on)
        images, places = downscale(part.images, options.side), np.arange(len(part))

        @torch.no_grad()
        def imagine(c: Tensor, rng: torch.Generator) -> Tensor:
            return model.sample(c, rng=rng)

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            artist = to_device(FeatureDecoder(vectors.shape[1], options), on)
            labels = torch.from_numpy(part.labels).to(on)
            known = DecoderTrainingData(
                thumbnails(images, artist).to(on), vectors, labels, model.task.n_classes, imagine
            )
            some = places[:: max(1, len(part) // N_INIT_IMAGES)]
            artist.init_from_data(features.extractor, to_unit(images.batch(some)).to(on), known)
        training = TRAINING.model_copy(update={"minutes": options.minutes})
        self.state = TrainingState(artist, training, seed=seed)
        self.feed = ShuffledBatches(images, places, batch_size=min(BATCH_SIZE, len(part)), seed=seed, augment=None)

    def steps(self) -> Iterator[Step]:
        """Until the minutes are over."""
        yield from fit(self.state, self.feed.to(self.state.device))

    @property
    def decoder(self) -> FeatureDecoder:
        """With averaged weights, and without its teachers."""
        self.state.load_best()
        pupil = self.state.model
        assert isinstance(pupil, FeatureDecoder)
        return to_device(FeatureDecoder.from_state(pupil.options, pupil.to_state()).eval(), self.state.device)


def decoder_training(predictor: Predictor, images: LabeledImages, options: DecoderOptions) -> DecoderTraining:
    """Prepare to train an image decoder for a predictor of a backbone's features; InvalidValueError if it has none."""
    if predictor.features is None:
        raise InvalidValueError(f"{predictor.family!r} is a model of pixels and generates images without a decoder")
    model = generative_model(predictor, "sample")
    with predictor.features.caching():
        return DecoderTraining(predictor.features, model, images, options, seed=predictor.seed)


@torch.inference_mode()
def sample(predictor: Predictor, label: Any, n: int = 1, *, seed: int = 0, truncation: float = 1.0) -> NDArray[Any]:
    """Return n new images of a class: uint8 (n, C, H, W), or float vectors (n, D).

    `truncation` scales the noise that they are generated from: below 1 they are more typical and less varied. Raises
    UnsupportedError if the model is not generative, InvalidValueError if it cannot generate images or not so truncated.
    """
    model, device = generative_model(predictor, "sample"), predictor.device
    rng = torch.Generator(device).manual_seed(seed)
    blocks = torch.split(torch.full((n,), predictor.index(label), device=device), SAMPLE_BATCH_SIZE)
    if predictor.features is not None:
        decoder = _decoder_of(predictor)
        return np.concatenate(
            [to_eight_bit(sample_from_features(model, decoder, c, rng, truncation)).cpu().numpy() for c in blocks]
        )
    if truncation == 1:
        return np.concatenate([to_pixels(model.sample(c, rng=rng), predictor) for c in blocks])
    if not isinstance(model, Latent):
        raise InvalidValueError(
            f"truncation {truncation:g} needs a model with latent vectors; {predictor.family!r} has none"
        )
    latents = (model.latent(c, rng=rng, truncation=truncation) for c in blocks)
    return np.concatenate([to_pixels(model.decode(z), predictor) for z in latents])


def latent_model(predictor: Predictor) -> Latent | None:
    """Return the model if it generates inputs from latent vectors, and no features."""
    return predictor.model if isinstance(predictor.model, Latent) and predictor.features is None else None


def to_pixels(x: Tensor, predictor: Predictor) -> NDArray[Any]:
    """Return a model's images in [0, 1] as uint8, and its vectors as they are."""
    return (x if predictor.format is None else to_eight_bit(x)).cpu().numpy()


def _decoder_of(predictor: Predictor) -> FeatureDecoder:
    if predictor.feature_decoder is None:
        raise InvalidValueError(
            f"this {predictor.family!r} models features of images and has no decoder for them; train it with "
            "--decoder-minutes, such as 10, beside --backbone, or a model of pixels, such as --model vaegan"
        )
    return predictor.feature_decoder


def sample_from_features(
    model: GenerativeModel, decoder: FeatureDecoder, c: Tensor, rng: torch.Generator, truncation: float
) -> Tensor:
    """x ~ ∫∫ p(x | s, f) p(s | c) p(f | c) ds df, what s and f are apart from the class's own scaled by `truncation`:
    (B,) -> (B, 3, H, W)."""
    f = model.sample(c, rng=rng)
    if truncation != 1:
        middle = model.sample(c)
        f = middle + truncation * (f - middle)
    return decoder.sample_images(f, c, rng=rng, truncation=truncation)


def downscale(images: ImageDataset, side: int) -> ArrayDataset:
    """The images as uint8 (N, C, side, side), in memory."""
    made = []
    for start in range(0, len(images), RESIZE_BATCH_SIZE):
        x = to_unit(images.batch(np.arange(start, min(start + RESIZE_BATCH_SIZE, len(images)))))
        made.append(to_eight_bit(F.interpolate(x, size=(side, side), mode="area")))
    return ArrayDataset(torch.cat(made).numpy(), images.name)


def thumbnails(images: ImageDataset, decoder: FeatureDecoder) -> Tensor:
    """The images a few pixels a side, as an artist begins them: (N, 3, s, s) in [0, 1]."""
    return to_unit(downscale(images, decoder.thumbnails.side).batch(np.arange(len(images))))
