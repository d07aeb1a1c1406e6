"""Feature pipeline: extraction, caching and scaling of the features that replace pixels as model input."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Self

import numpy as np
import torch
from torch import Generator, Tensor, nn

from likely.base import FamilyOptions, Objective, Scorer
from likely.data.dataset import LabeledImages, fingerprint, to_hashes
from likely.data.image_dataset import ArrayDataset, ImageDataset
from likely.data.preprocessing import ImageOptions
from likely.exceptions import InvalidValueError
from likely.features.backbone import Backbone, load_preprocessor_config
from likely.features.cache import FeatureCache
from likely.features.feature_extractors import (
    Autoencoder,
    FeatureExtractor,
    FeatureOptions,
    FeatureScaler,
    RandomConvolutions,
)
from likely.features.model_input import ModelInput, complexity
from likely.networks.pixel_scaling import to_eight_bit, to_unit
from likely.training.device import tune_malloc

PIXELS_PER_BATCH = 8 * 224 * 224  # pixels per forward pass: the feature maps of larger batches exceed a CPU's cache
GPU_FACTOR = 16  # on a GPU, relative to the CPU
LOOKUP_BATCH_SIZE = 64  # images per cache query
CACHE_LAYOUT = "described"  # cached rows: unscaled features, then the image's complexity
TINY = 1e-12

Progress = Callable[[int, int], None]


class FeaturePipeline(nn.Module):
    """Scaled features f(x) of images x, the input of models that are not models of pixels."""

    def __init__(self, extractor: FeatureExtractor, options: FeatureOptions) -> None:
        """Combine an extractor with resolved options; the scaler is not fitted yet."""
        super().__init__()
        self.extractor, self.options = extractor, options
        assert options.feature_scaling is not None
        self.scaler = FeatureScaler(options.feature_scaling, extractor.groups, options.feature_components)
        self._cache: _CachedFeatures | None = None

    @classmethod
    def from_options(
        cls, requested: FeatureOptions, family: FamilyOptions, shape: Sequence[int], seed: int
    ) -> Self | None:
        """Build the pipeline for images (C, H, W), its scaler not fitted yet; None if the input is pixels."""
        extractor: FeatureExtractor
        match requested.kind:
            case "backbone":
                assert requested.backbone is not None
                extractor = Backbone.pretrained(requested.backbone, requested.backbone_stages)
            case "random":
                extractor = RandomConvolutions(shape, seed=seed)
            case "autoencoder":
                with torch.random.fork_rng(devices=[]):
                    torch.manual_seed(seed)
                    extractor = Autoencoder(shape, n_code=requested.feature_components)
            case _:
                return None
        updates = {"features": requested.kind, "feature_scaling": requested.feature_scaling or family.feature_scaling}
        return cls(extractor, requested.model_copy(update=updates))

    @classmethod
    def from_config(cls, document: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Self:
        """Rebuild a pipeline from `to_config` and its weights."""
        self = cls(extractor_from_config(document["map"]), FeatureOptions.from_stored(document["options"]))
        self.load_state_dict(tensors)
        return self

    def to_config(self) -> dict[str, Any]:
        """Return the JSON configuration from which `from_config` rebuilds the pipeline."""
        return {"map": self.extractor.to_config(), "options": self.options.model_dump()}

    @property
    def noise(self) -> float:
        """Standard deviation of the noise that training adds to features."""
        return self.options.feature_noise if self.scaler.kind == "whiten" else 0.0

    @property
    def device(self) -> torch.device:
        return next(t.device for t in (*self.parameters(), *self.buffers()))

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
        """Return scaled features of uint8 images (B, C, H, W) with the norms and complexities that scaling removes."""
        row = (
            self._features_and_complexity(pixels)
            if self._cache is None
            else self._cache(pixels, self._features_and_complexity)
        )
        return self._model_input(row[:, :-1], row[:, -1:])

    def differentiable(self, x: Tensor) -> ModelInput:
        """Return the model input with gradients for images (B, C, H, W) in [0, 1]."""
        return self._model_input(self.extractor(x), complexity(to_eight_bit(x.detach())))

    def _model_input(self, unscaled: Tensor, bits: Tensor) -> ModelInput:
        """Scale the features; the extra features are log ‖f_g‖ of each group and the image's complexity."""
        norms = [group.norm(dim=1, keepdim=True) for group in torch.split(unscaled, list(self.extractor.groups), 1)]
        extra_features = torch.cat([*(length.clamp_min(TINY).log().cpu() for length in norms), bits], 1)
        return ModelInput(self.scaler(unscaled.to(self.device)), extra_features)

    @torch.inference_mode()
    def fit_scaler(self, images: ImageDataset, progress: Progress | None = None) -> None:
        """Fit the scaler to the features of training images."""
        self.scaler.fit(self.unscaled(images, progress).to(self.device))

    @torch.inference_mode()
    def transform_images(self, split: LabeledImages) -> LabeledImages:
        """Replace the images of a split by their scaled features."""
        rows = self.scaler(self.unscaled(split.images).to(self.device)).cpu().numpy()
        return replace(split, images=ArrayDataset(rows, split.images.name))

    def enable_cache(self) -> None:
        """Cache features in memory and on disk from now on."""
        if self.device.type == "cpu":
            tune_malloc()
        self._cache = self._cache or _CachedFeatures(FeatureCache(f"{self.extractor.digest()[:16]}-{CACHE_LAYOUT}"))

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
        batches = []
        for start in range(0, len(images), LOOKUP_BATCH_SIZE):
            end = min(start + LOOKUP_BATCH_SIZE, len(images))
            batches.append(self._cached_features(images.batch(np.arange(start, end))))
            if progress is not None:
                progress(end, len(images))
        return torch.cat(batches) if batches else torch.zeros(0, self.extractor.n_features)

    def _cached_features(self, pixels: Tensor) -> Tensor:
        """Return unscaled features (B, D) on the CPU, from the cache if enabled."""
        return (
            self._compute(pixels) if self._cache is None else self._cache(pixels, self._features_and_complexity)[:, :-1]
        )

    def _features_and_complexity(self, pixels: Tensor) -> Tensor:
        """Return rows of unscaled features and complexity, (B, D + 1) on the CPU."""
        return torch.cat([self._compute(pixels), complexity(pixels)], 1)

    def _compute(self, pixels: Tensor) -> Tensor:
        """Compute unscaled features (B, D) on the CPU."""
        at_once = PIXELS_PER_BATCH * (1 if self.device.type == "cpu" else GPU_FACTOR)
        n = max(1, at_once // (pixels.shape[2] * pixels.shape[3]))
        blocks = (to_unit(block.to(self.device)) for block in torch.split(pixels, n))
        unscaled = [self.extractor(x.contiguous(memory_format=torch.channels_last)).float().cpu() for x in blocks]
        return torch.cat(unscaled) if unscaled else torch.zeros(0, self.extractor.n_features)


class ImageScorer(Scorer):
    """Scorer of images that applies a feature pipeline before a model of features."""

    def __init__(self, features: FeaturePipeline, model: Scorer) -> None:
        super().__init__(model.task, model.options)
        self.features, self.model = features, model

    def log_scores(self, x: Tensor, *, rng: Generator | None = None) -> Tensor:
        return self.model.log_scores(self.features(x), rng=rng)

    def objectives(self) -> Sequence[Objective]:
        return self.model.objectives()


class _CachedFeatures:
    """Rows by image hash, in memory and on disk."""

    def __init__(self, store: FeatureCache) -> None:
        self.store, self.rows = store, dict[int, Tensor]()

    def __call__(self, pixels: Tensor, computed: Callable[[Tensor], Tensor]) -> Tensor:
        keys = to_hashes(fingerprint(image) for image in pixels.numpy()).tolist()
        index = {key: i for i, key in enumerate(keys) if key not in self.rows}
        self.rows |= {key: torch.from_numpy(row.copy()) for key, row in self.store.get(index).items()}
        if missing := [key for key in index if key not in self.rows]:
            unscaled = computed(pixels[[index[key] for key in missing]])
            self.rows |= dict(zip(missing, unscaled.clone(), strict=True))
            self.store.put({key: self.rows[key].numpy() for key in missing})
        return torch.stack([self.rows[key] for key in keys])


def with_backbone_defaults(images: ImageOptions, requested: FeatureOptions) -> ImageOptions:
    """Return the image options with the backbone's preprocessing as defaults.

    An explicit size or resize mode replaces the backbone's cropping; only its size remains a default.
    """
    if requested.kind != "backbone":
        return images
    assert requested.backbone is not None
    explicit, defaults = images.model_dump(exclude_unset=True), load_preprocessor_config(requested.backbone)._asdict()
    if explicit.keys() & defaults.keys():
        defaults = {"size": defaults["size"]}
    return ImageOptions.model_validate({"color": "rgb"} | defaults | explicit)


def extractor_from_config(document: Mapping[str, Any]) -> FeatureExtractor:
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
