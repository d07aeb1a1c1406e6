"""Feature pipeline: extraction, caching and scaling of the features that replace pixels as model input."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import chain
from typing import Any, ClassVar, Final, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor, nn

from likely.base import FamilyOptions, Objective, Scorer
from likely.data.dataset import LabeledImages
from likely.data.image_dataset import ArrayDataset, ImageDataset, TransformedImages, prefetch
from likely.exceptions import CheckpointError, InvalidValueError
from likely.features.backbone import Backbone
from likely.features.cache import FeatureCache
from likely.features.feature_extractors import (
    Autoencoder,
    FeatureExtractor,
    FeatureOptions,
    FeatureScaler,
    RandomConvolutions,
)
from likely.training.augment import N_UNIFORMS, augment
from likely.training.device import tune_malloc
from likely.training.options import AugmentOptions
from likely.training.rng import hash_uniforms

Progress = Callable[[int, int], None]
AUGMENTATION: Final = AugmentOptions(shift=0, flip=True, crop=0.5)  # of copies of training images


class ModelInput(NamedTuple):
    """Model input of a batch: images, vectors or scaled features `x`.

    `extra_features` (B, F) hold what feature scaling removes; None for models of pixels, which have features of their own.
    """

    x: Tensor
    extra_features: Tensor | None = None

    @classmethod
    def concatenate(cls, pieces: Sequence[ModelInput]) -> ModelInput:
        """Concatenate batches, at least one."""
        x, extra_features = zip(*pieces, strict=True)
        return cls(torch.cat(x), None if extra_features[0] is None else torch.cat(extra_features))

    def subset(self, indices: Tensor) -> ModelInput:
        """Select images by indices or booleans."""
        return ModelInput(self.x[indices], None if self.extra_features is None else self.extra_features[indices])

    def split(self, n: int) -> list[ModelInput]:
        """Split into batches of n images."""
        return [self.subset(batch) for batch in torch.split(torch.arange(len(self.x)), n)]


class FeaturePipeline(nn.Module):
    """Scaled features f(x) of images x, the input of models that are not models of pixels."""

    lookup_batch_size: ClassVar = 64  # images per cache query

    def __init__(self, extractor: FeatureExtractor, options: FeatureOptions) -> None:
        """Combine an extractor with resolved options; the scaler is not fitted yet."""
        super().__init__()
        self.extractor, self.options = extractor, options
        assert options.feature_scaling is not None
        self.scaler = FeatureScaler(options.feature_scaling, extractor.groups, options.feature_components)
        self._cache: FeatureCache | None = None

    @classmethod
    def from_options(
        cls, requested: FeatureOptions, family: FamilyOptions, shape: Sequence[int], seed: int
    ) -> Self | None:
        """Build the pipeline for images (C, H, W), its scaler not fitted yet; None if the input is pixels."""
        extractor: FeatureExtractor
        match requested.kind:
            case "backbone":
                assert requested.backbone is not None
                extractor = Backbone.pretrained(requested.backbone, requested.stages)
            case "random":
                extractor = RandomConvolutions(shape, seed=seed)
            case "autoencoder":
                with torch.random.fork_rng(devices=[]):
                    torch.manual_seed(seed)
                    extractor = Autoencoder(shape, n_code=requested.feature_components)
            case _:
                return None
        updates = {
            "features": requested.kind,
            "feature_scaling": requested.feature_scaling or family.feature_scaling,
            "backbone_stages": requested.stages,
        }
        return cls(extractor, requested.model_copy(update=updates))

    @classmethod
    def from_config(cls, document: Mapping[str, Any], tensors: Mapping[str, Tensor], source: object) -> Self:
        """Rebuild a pipeline from `to_config`, which was read from `source`, and its weights."""
        options = FeatureOptions.from_stored(document["options"], f"{source}.options")
        if options.feature_scaling is None:
            raise CheckpointError(f"{source}.options lacks feature_scaling; copy the model folder again, whole")
        self = cls(_extractor_from_config(document["map"]), options)
        self.load_state_dict(tensors)
        return self

    def to_config(self) -> dict[str, Any]:
        """Return the JSON configuration from which `from_config` rebuilds the pipeline."""
        return {"map": self.extractor.to_config(), "options": self.options.model_dump()}

    @property
    def device(self) -> torch.device:
        return next(t.device for t in chain(self.parameters(), self.buffers()))

    def forward(self, x: Tensor) -> Tensor:
        """Return scaled features with gradients: (B, C, H, W) in [0, 1] -> (B, D)."""
        features: Tensor = self.scaler(self.extractor(x))
        return features

    @torch.inference_mode()
    def transform(self, pixels: Tensor) -> Tensor:
        """Return scaled features: uint8 (B, C, H, W) -> (B, D) on the device."""
        features: Tensor = self.scaler(self._cached_features(pixels).to(self.device))
        return features

    @torch.inference_mode()
    def model_input(self, pixels: Tensor) -> ModelInput:
        """Return scaled features of uint8 images (B, C, H, W) with the norms that scaling removes."""
        return self._model_input(self._cached_features(pixels))

    def differentiable(self, x: Tensor) -> ModelInput:
        """Return the model input with gradients for images (B, C, H, W) in [0, 1]."""
        return self._model_input(self.extractor(x))

    def _model_input(self, unscaled: Tensor) -> ModelInput:
        """Scale the features; the extra features are log ‖f_g‖ of each group."""
        norms = [group.norm(dim=1) for group in torch.split(unscaled, list(self.extractor.groups), 1)]
        log_norms = torch.stack(norms, 1).clamp_min(1e-12).log().cpu()
        return ModelInput(self.scaler(unscaled.to(self.device)), log_norms)

    @torch.inference_mode()
    def fit_scaler(self, images: ImageDataset, progress: Progress | None = None) -> None:
        """Fit the scaler to the features of training images."""
        self.scaler.fit(self.unscaled(images, progress).to(self.device))

    @torch.inference_mode()
    def transform_images(self, split: LabeledImages, progress: Progress | None = None) -> LabeledImages:
        """Replace the images of a split by their scaled features."""
        rows = self.scaler(self.unscaled(split.images, progress).to(self.device)).cpu().numpy()
        return replace(split, images=ArrayDataset(rows, split.images.name))

    def enable_cache(self) -> None:
        """Cache features in memory and on disk from now on."""
        if self.device.type == "cpu":
            tune_malloc()
        self._cache = self._cache or FeatureCache(self.extractor.digest()[:16])

    @contextmanager
    def caching(self, enabled: bool = True) -> Iterator[None]:
        """Enable or disable the cache within a `with` block."""
        before = self._cache
        if enabled:
            self.enable_cache()
        else:
            self.disable_cache()
        try:
            yield
        finally:
            self._cache = before

    @property
    def is_cached(self) -> bool:
        """True if features are cached."""
        return self._cache is not None

    def disable_cache(self) -> None:
        """Stop caching and release the features in memory."""
        self._cache = None

    @torch.inference_mode()
    def unscaled(self, images: ImageDataset, progress: Progress | None = None) -> Tensor:
        """Return the unscaled features of all images, (N, D) on the CPU."""
        batches, n = [], self.lookup_batch_size
        indices = [np.arange(start, min(start + n, len(images))) for start in range(0, len(images), n)]
        for each, pixels in zip(indices, prefetch(images.batch, indices), strict=True):
            batches.append(self._cached_features(pixels))
            if progress is not None:
                progress(int(each[-1]) + 1, len(images))
        return torch.cat(batches) if batches else torch.zeros(0, self.extractor.n_features)

    def _cached_features(self, pixels: Tensor) -> Tensor:
        """Return unscaled features (B, D) on the CPU, from the cache if enabled."""
        return self._compute(pixels) if self._cache is None else self._cache.lookup(pixels, self._compute)

    def _compute(self, pixels: Tensor) -> Tensor:
        """Compute unscaled features (B, D) on the CPU."""
        if not len(pixels):
            return torch.zeros(0, self.extractor.n_features)
        return self.extractor.of_pixels(pixels.to(self.device)).cpu()


def augmented_images(split: LabeledImages, seed: int, copy: int) -> ImageDataset:
    """Return the images of a split, cropped and flipped at random: a function of image, `seed` and `copy`, not of the order.

    Moderate crops and flips, as in the training of the backbones themselves, keep the class.
    """

    def augmented(pixels: Tensor, indices: NDArray[np.int64]) -> Tensor:
        return augment(pixels, hash_uniforms(seed, copy, split.hashes[indices], N_UNIFORMS), AUGMENTATION)

    return TransformedImages(split.images, augmented)


class ImageScorer(Scorer):
    """Scorer of images that applies a feature pipeline before a model of features."""

    def __init__(self, features: FeaturePipeline, model: Scorer) -> None:
        super().__init__(model.task, model.options)
        self.features, self.model = features, model

    def log_scores(self, x: Tensor, *, rng: Generator | None = None) -> Tensor:
        return self.model.log_scores(self.features(x), rng=rng)

    def objectives(self) -> Sequence[Objective]:
        return self.model.objectives()


def _extractor_from_config(document: Mapping[str, Any]) -> FeatureExtractor:
    """Build the extractor of a configuration; its weights are loaded separately."""
    arguments = dict(document)
    match arguments.pop("kind"):
        case "random":
            return RandomConvolutions(**arguments)
        case "autoencoder":
            return Autoencoder(**arguments)
        case "backbone":
            return Backbone(**arguments)
    raise InvalidValueError(f"unknown kind of features {document['kind']!r}: the model is of another version of Likely")
