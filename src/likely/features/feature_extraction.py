"""What a model sees instead of pixels: features, computed once an image and scaled as the model's family likes them."""

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
from likely.features.backbone import Backbone, load_preprocessor_config
from likely.features.cache import FeatureCache
from likely.features.feature_extractors import (
    Autoencoder,
    FeatureExtractor,
    FeatureOptions,
    FeatureScaler,
    RandomConvolutions,
    from_config,
)
from likely.features.model_input import ModelInput, complexity
from likely.networks.pixel_scaling import to_eight_bit, to_unit
from likely.training.device import tune_malloc

PIXELS_PER_BATCH = (
    8 * 224 * 224
)  # pixels that go through together: of more, the maps of a backbone leave a processor's cache
GPU_FACTOR = 16  # times as many
LOOKUP_BATCH_SIZE = 64  # images whose features are looked for on the disk together
CACHE_LAYOUT = "described"  # of what is kept: features, and the image's complexity behind them
TINY = 1e-12

Progress = Callable[[int, int], None]


class FeaturePipeline(nn.Module):
    """f(x) of images x, scaled: what a density is of where it is not one of pixels."""

    def __init__(self, map: FeatureExtractor, options: FeatureOptions) -> None:
        """Of options with nothing left open; what the scaling learns is not measured yet."""
        super().__init__()
        self.extractor, self.options = map, options
        assert options.feature_scaling is not None
        self.scaler = FeatureScaler(options.feature_scaling, map.groups, options.feature_components)
        self._cache: _CachedFeatures | None = None

    @classmethod
    def from_options(cls, asked: FeatureOptions, family: FamilyOptions, shape: Sequence[int], seed: int) -> Self | None:
        """What was asked for of images (C, H, W), None for pixels; its scaling is not measured yet."""
        map: FeatureExtractor
        match asked.kind:
            case "backbone":
                assert asked.backbone is not None
                map = Backbone.pretrained(asked.backbone, asked.backbone_stages)
            case "random":
                map = RandomConvolutions(shape, seed=seed)
            case "autoencoder":
                with torch.random.fork_rng(devices=[]):
                    torch.manual_seed(seed)
                    map = Autoencoder(shape, n_code=asked.feature_components)
            case _:
                return None
        chosen = {"features": asked.kind, "feature_scaling": asked.feature_scaling or family.feature_scaling}
        return cls(map, asked.model_copy(update=chosen))

    @classmethod
    def from_config(cls, document: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Self:
        """What `document` and the weights describe."""
        self = cls(from_config(document["map"]), FeatureOptions.from_stored(document["options"]))
        self.load_state_dict(tensors)
        return self

    def to_config(self) -> dict[str, Any]:
        """What it takes besides the weights."""
        return {"map": self.extractor.to_config(), "options": self.options.model_dump()}

    @property
    def noise(self) -> float:
        """What training adds to the features."""
        return self.options.feature_noise if self.scaler.kind == "whiten" else 0.0

    @property
    def device(self) -> torch.device:
        return next(t.device for t in (*self.parameters(), *self.buffers()))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) in [0, 1] -> (B, D), with gradients."""
        features: Tensor = self.scaler(self.extractor(x))
        return features

    @torch.inference_mode()
    def transform(self, pixels: Tensor) -> Tensor:
        """uint8 (B, C, H, W) -> (B, D) on the device."""
        features: Tensor = self.scaler(self._cached_features(pixels).to(self.device))
        return features

    @torch.inference_mode()
    def model_input(self, pixels: Tensor) -> ModelInput:
        """uint8 (B, C, H, W) -> the same features, and what they leave out."""
        row = (
            self._features_and_complexity(pixels)
            if self._cache is None
            else self._cache(pixels, self._features_and_complexity)
        )
        return self._model_input(row[:, :-1], row[:, -1:])

    def differentiable(self, x: Tensor) -> ModelInput:
        """The same of images (B, C, H, W) in [0, 1], with gradients."""
        return self._model_input(self.extractor(x), complexity(to_eight_bit(x.detach())))

    def _model_input(self, made: Tensor, packed: Tensor) -> ModelInput:
        """log ‖f_g‖ of each group of unscaled features, which scaling takes away, and the image's complexity."""
        lengths = [group.norm(dim=1, keepdim=True) for group in torch.split(made, list(self.extractor.groups), 1)]
        described = torch.cat([*(length.clamp_min(TINY).log().cpu() for length in lengths), packed], 1)
        return ModelInput(self.scaler(made.to(self.device)), described)

    @torch.inference_mode()
    def fit_scaler(self, images: ImageDataset, progress: Progress | None = None) -> None:
        """Learn from the features of training images how to scale."""
        self.scaler.fit(self.unscaled(images, progress).to(self.device))

    @torch.inference_mode()
    def transform_images(self, part: LabeledImages) -> LabeledImages:
        """The same part, of vectors."""
        rows = self.scaler(self.unscaled(part.images).to(self.device)).cpu().numpy()
        return replace(part, images=ArrayDataset(rows, part.images.name))

    def enable_cache(self) -> None:
        """From now on compute an image's features once, and look on the disk whether that was done before."""
        if self.device.type == "cpu":
            tune_malloc()
        self._cache = self._cache or _CachedFeatures(FeatureCache(f"{self.extractor.digest()[:16]}-{CACHE_LAYOUT}"))

    @contextmanager
    def caching(self, kept: bool = True) -> Iterator[None]:
        """For a while, do so or do not."""
        before = self._cache
        if kept:
            self.enable_cache()
        else:
            self.disable_cache()
        try:
            yield
        finally:
            self._cache = before

    @property
    def is_cached(self) -> bool:
        """Whether an image that was seen before is not looked at again."""
        return self._cache is not None

    def disable_cache(self) -> None:
        """Of what was kept in memory."""
        self._cache = None

    @torch.inference_mode()
    def unscaled(self, images: ImageDataset, progress: Progress | None = None) -> Tensor:
        """The map's own features of all images, (N, D) on the processor."""
        found = []
        for start in range(0, len(images), LOOKUP_BATCH_SIZE):
            end = min(start + LOOKUP_BATCH_SIZE, len(images))
            found.append(self._cached_features(images.batch(np.arange(start, end))))
            if progress is not None:
                progress(end, len(images))
        return torch.cat(found) if found else torch.zeros(0, self.extractor.n_features)

    def _cached_features(self, pixels: Tensor) -> Tensor:
        """(B, D) on the processor. What is kept has the image's complexity behind its features."""
        return (
            self._compute(pixels) if self._cache is None else self._cache(pixels, self._features_and_complexity)[:, :-1]
        )

    def _features_and_complexity(self, pixels: Tensor) -> Tensor:
        """(B, D + 1) on the processor: features, and the image's complexity behind them."""
        return torch.cat([self._compute(pixels), complexity(pixels)], 1)

    def _compute(self, pixels: Tensor) -> Tensor:
        """(B, D) on the processor."""
        at_once = PIXELS_PER_BATCH * (1 if self.device.type == "cpu" else GPU_FACTOR)
        n = max(1, at_once // (pixels.shape[2] * pixels.shape[3]))
        blocks = (to_unit(block.to(self.device)) for block in torch.split(pixels, n))
        made = [self.extractor(x.contiguous(memory_format=torch.channels_last)).float().cpu() for x in blocks]
        return torch.cat(made) if made else torch.zeros(0, self.extractor.n_features)


class ImageScorer(Scorer):
    """A model of features, asked about images."""

    def __init__(self, features: FeaturePipeline, model: Scorer) -> None:
        super().__init__(model.task, model.options)
        self.features, self.model = features, model

    def log_scores(self, x: Tensor, *, rng: Generator | None = None) -> Tensor:
        return self.model.log_scores(self.features(x), rng=rng)

    def objectives(self) -> Sequence[Objective]:
        return self.model.objectives()


class _CachedFeatures:
    """Features by their images' hashes, in memory and on the disk."""

    def __init__(self, store: FeatureCache) -> None:
        self.store, self.rows = store, dict[int, Tensor]()

    def __call__(self, pixels: Tensor, computed: Callable[[Tensor], Tensor]) -> Tensor:
        keys = to_hashes(fingerprint(image) for image in pixels.numpy()).tolist()
        place = {key: i for i, key in enumerate(keys) if key not in self.rows}
        self.rows |= {key: torch.from_numpy(row.copy()) for key, row in self.store.get(place).items()}
        if missing := [key for key in place if key not in self.rows]:
            made = computed(pixels[[place[key] for key in missing]])
            self.rows |= dict(zip(missing, made.clone(), strict=True))
            self.store.put({key: self.rows[key].numpy() for key in missing})
        return torch.stack([self.rows[key] for key in keys])


def with_backbone_defaults(images: ImageOptions, asked: FeatureOptions) -> ImageOptions:
    """The images that features are to be made of, where nothing else was asked for: as a backbone is used to them.

    Whoever asks for another size, or way to come to it, means whole images or says what to cut.
    """
    if asked.kind != "backbone":
        return images
    assert asked.backbone is not None
    wanted, own = images.model_dump(exclude_unset=True), load_preprocessor_config(asked.backbone)._asdict()
    if wanted.keys() & own.keys():
        own = {"size": own["size"]}
    return ImageOptions.model_validate({"color": "rgb"} | own | wanted)
