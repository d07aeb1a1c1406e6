"""Explanation: pixel attributions, a counterfactual path, imputed images, and the nearest training images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from likely.base import Domain, GenerativeModel, HasFeatures, HasLikelihoodMap, LatentClassMixture, Scorer, to_unit
from likely.classifier.inputs import BATCH_SIZE, to_masks
from likely.classifier.predictor import Predictor
from likely.classifier.scoring import supports_missing_pixels
from likely.data.dataset import LabeledImages
from likely.data.image_dataset import ImageBatch
from likely.exceptions import InvalidValueError
from likely.features.feature_extraction import ImageScorer
from likely.inference.attribution import integrated_gradients
from likely.inference.counterfactual import DEFAULT_OPTIONS, flip_index, interpolate, transport
from likely.inference.posterior import log_posterior


@dataclass(frozen=True)
class _ContrastPair:
    """Fact and foil: the predicted class and the one that it is contrasted with, under a prior and a temperature."""

    label: int
    against: int
    log_prior: Tensor
    temperature: float


@dataclass(frozen=True, eq=False)
class Explanation:
    """Explanation of why an image x (C, H, W), or a vector (D,), is classified as `label` rather than `against`.

    `log_odds` is log p(x | label) / p(x | against), divided by the temperature, in nats. `attribution` (C, H, W) divides it
    among the pixels; it sums to `log_odds` less that of the baseline image, or to `log_odds` of a model that is a sum over
    pixels. `counterfactual_path` needs one latent space for all classes and is None for other families.
    """

    image: Tensor
    label: int
    against: int
    log_posterior: Tensor
    log_odds: float
    attribution: Tensor
    counterfactual_path: CounterfactualPath | None

    def probability(self, c: int) -> float:
        """Return p(c | x)."""
        return float(self.log_posterior[c].exp())


@dataclass(frozen=True, eq=False)
class CounterfactualPath:
    """Path from an image to its counterfactual in another class: images (n, C, H, W) in [0, 1].

    `probability` (n,) is that of the other class for each image, which becomes the most probable class at index `flip`;
    None if it never does.
    """

    images: Tensor
    probability: Tensor
    flip: int | None


@dataclass(frozen=True, eq=False)
class Imputation:
    """The most likely completions of an image x (C, H, W) with missing pixels.

    `mask` (H, W) is True where a pixel is observed, `log_posterior` (K,) is log p(c | x_observed), and `images`
    (K, C, H, W) in [0, 1] hold one completion for each class.
    """

    image: Tensor
    mask: Tensor
    log_posterior: Tensor
    images: Tensor


def explain(predictor: Predictor, image: Any, *, against: Any = None) -> Explanation:
    """Explain why an image is of its most probable class rather than of the class `against`, by default the runner-up.

    `image` is anything that `Predictor.classify` takes, or a batch of one. Raises InvalidValueError if it cannot be read,
    or if there is no other class.
    """
    if len(predictor.labels) < 2:
        raise InvalidValueError(
            f"{predictor.labels[0]!r} is the only class; another one was expected to contrast it with"
        )
    x, log_prior, temperature = _read(predictor, image), predictor.log_prior, predictor.decision_rule.temperature
    model = predictor.model if predictor.features is None else ImageScorer(predictor.features, predictor.model)
    with torch.inference_mode():
        log_scores = model.log_scores(x).cpu()
    label, runner_up = log_posterior(log_scores, log_prior, temperature)[0].topk(2).indices.tolist()
    other = runner_up if against is None else predictor.index(against)
    if other == label:
        raise InvalidValueError(
            f"{against!r} is the predicted class; another one was expected, such as {predictor.labels[runner_up]!r}"
        )
    return _explain(model, x, _ContrastPair(label, other, log_prior, temperature), log_scores)


@torch.inference_mode()
def impute(predictor: Predictor, image: Any, mask: ArrayLike, *, temperature: float | None = None) -> Imputation:
    """Impute the missing pixels of an image for each class, from the pixels where `mask`, (H, W) bool, is True.

    `temperature` is by default that of the predictor. Raises UnsupportedError if the family needs whole images.
    """
    model = supports_missing_pixels(predictor.model, predictor.features)
    x, K = _read(predictor, image), len(predictor.labels)
    observed = to_masks(mask, 1, predictor.shape[1:]).to(x.device)
    T = predictor.decision_rule.temperature if temperature is None else temperature
    L = model.observed_log_likelihood(x, observed).cpu()
    images = model.impute(x.expand(K, -1, -1, -1), observed.expand(K, -1, -1), torch.arange(K, device=x.device))
    return Imputation(x[0].cpu(), observed[0].cpu(), log_posterior(L, predictor.log_prior, T)[0], images.cpu())


@torch.inference_mode()
def nearest_images(predictor: Predictor, x: Tensor, images: LabeledImages, c: int, n: int) -> LabeledImages:
    """Return the n images of class c that are nearest to x (C, H, W), in [0, 1], the nearest first.

    Distances are between the model's features, standardized within the class; between pixels for a model without features.
    """
    of_class = images.subset(np.flatnonzero(images.labels == c))
    if not len(of_class):
        return of_class
    blocks = np.split(np.arange(len(of_class)), range(BATCH_SIZE, len(of_class), BATCH_SIZE))
    of_images = torch.cat([_features_or_pixels(predictor, to_unit(of_class.images.batch(block))) for block in blocks])
    deviation = of_images.std(0, correction=0).clamp_min(1e-6)
    distance = ((of_images - _features_or_pixels(predictor, x[None])) / deviation).square().sum(1)
    return of_class.subset(distance.argsort()[:n].numpy())


def _read(predictor: Predictor, image: Any) -> Tensor:
    """Return one image (1, C, H, W) in [0, 1], or a vector (1, D)."""
    batch = predictor.load_images(image if isinstance(image, ImageBatch) else [image])
    for error in filter(None, batch.errors):
        raise InvalidValueError(error.message)
    return predictor.input_pipeline.to_model(batch.images.batch([0]))


def _explain(model: Scorer, x: Tensor, pair: _ContrastPair, log_scores: Tensor) -> Explanation:
    log_odds = float(log_scores[0, pair.label] - log_scores[0, pair.against]) / pair.temperature
    return Explanation(
        image=x[0].cpu(),
        label=pair.label,
        against=pair.against,
        log_posterior=log_posterior(log_scores, pair.log_prior, pair.temperature)[0],
        log_odds=log_odds,
        attribution=_attribution(model, x, pair).cpu(),
        counterfactual_path=_counterfactual_path(model, x, pair) if isinstance(model, LatentClassMixture) else None,
    )


def _attribution(model: Scorer, x: Tensor, pair: _ContrastPair) -> Tensor:
    """Divide the log odds of an image x (1, ...) among its pixels: (...)."""
    if isinstance(model, HasLikelihoodMap):
        with torch.inference_mode():
            each: Tensor = model.likelihood_map(x)[0]
        return (each[pair.label] - each[pair.against]) / pair.temperature
    a, b = (torch.tensor([c], device=x.device) for c in (pair.label, pair.against))

    def scores(x: Tensor) -> Tensor:
        return model.log_scores(x) / pair.temperature

    return integrated_gradients(scores, x, a, b, baseline_image(model, x))[0]


@torch.inference_mode()
def baseline_image(model: Scorer, x: Tensor) -> Tensor:
    """Return the mean of all classes' most typical images, (C, H, W); mid-gray if the model is not generative."""
    if not isinstance(model, GenerativeModel):
        return torch.full_like(x[0], 0.5)
    each = model.sample(torch.arange(model.task.n_classes, device=x.device))
    return (each * model.log_prior.exp().reshape(-1, *[1] * (each.ndim - 1))).sum(0).to(x).clone()


@torch.inference_mode()
def _counterfactual_path(model: LatentClassMixture, x: Tensor, pair: _ContrastPair) -> CounterfactualPath:
    """x_t = decode((1 − t) z + t z') + (1 − t) (x − decode(z)), t from 0 to 1: from the image to one of class b.

    The reconstruction error fades along the path. Each point is classified by its image, not by its latent vector.
    """
    assert isinstance(model, Scorer)
    a, b = (torch.tensor([c], device=x.device) for c in (pair.label, pair.against))
    n_points = DEFAULT_OPTIONS.n_points
    z, classes = model.encode(x), model.sampling_distribution()
    weight = torch.linspace(1, 0, n_points, device=x.device).reshape(-1, *[1] * (x.ndim - 1))
    residual, is_image = (x - model.decode(z)) * weight, model.task.domain is Domain.PIXELS8
    for end in (transport(z, a, b, classes), classes[0][b]):  # the class mean, if transport does not reach it
        decoded = model.decode(interpolate(z, end, n_points)[0]) + residual
        images = decoded.clamp(0, 1) if is_image else decoded
        posterior = log_posterior(model.log_scores(images).cpu(), pair.log_prior, pair.temperature)
        flip = int(flip_index(posterior[None], b.cpu()))
        if flip < n_points:
            break
    return CounterfactualPath(images.cpu(), posterior[:, pair.against].exp(), flip if flip < n_points else None)


def _features_or_pixels(predictor: Predictor, x: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, F)."""
    model, features = predictor.model, predictor.features
    if features is not None:
        values: Tensor = features(x.to(predictor.device)).cpu()
        return values
    return model.features(x.to(predictor.device)).cpu() if isinstance(model, HasFeatures) else x.flatten(1)
