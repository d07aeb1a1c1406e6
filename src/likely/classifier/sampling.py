"""Sampling of images from a predictor, directly or by a feature decoder, and the training of the decoder."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from likely.base import GenerativeModel, HasTemperature, Latent, to_eight_bit
from likely.classifier.predictor import Predictor, generative_model
from likely.data.dataset import LabeledImages
from likely.exceptions import InvalidValueError
from likely.features.feature_decoder import DecoderOptions, DecoderTraining, FeatureDecoder

BATCH_SIZE = 256  # images sampled together


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
    blocks = torch.split(torch.full((n,), predictor.index(label), device=device), BATCH_SIZE)
    if predictor.features is not None:
        decoder = _decoder_of(predictor)
        return np.concatenate(
            [to_eight_bit(_sample_from_features(model, decoder, c, rng, truncation)).cpu().numpy() for c in blocks]
        )
    if truncation == 1:
        return np.concatenate([to_pixels(model.sample(c, rng=rng), predictor) for c in blocks])
    if isinstance(model, HasTemperature):
        return np.concatenate([to_pixels(model.sample_at(c, truncation, rng=rng), predictor) for c in blocks])
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


def _sample_from_features(
    model: GenerativeModel, decoder: FeatureDecoder, c: Tensor, rng: torch.Generator, truncation: float
) -> Tensor:
    """Sample x ~ ∫∫ p(x | s, f) p(s | c) p(f | c) ds df: classes (B,) -> (B, 3, H, W) in [0, 1].

    `truncation` scales the deviations of s and f from the class means.
    """
    f = model.sample(c, rng=rng)
    if truncation != 1:
        mean = model.sample(c)
        f = mean + truncation * (f - mean)
    return decoder.sample_images(f, c, rng=rng, truncation=truncation)
