"""What a model sees instead of pixels: features, computed once an image and scaled as the model's family likes them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Self

import numpy as np
import torch
from torch import Generator, Tensor, nn

from likely.classifier.examining import Seen, complexity
from likely.contract import FamilyOptions, Objective, Scorer
from likely.data.collection import Images, Vectors
from likely.data.images import ImageOptions
from likely.data.parts import Part, fingerprint, hashes_of
from likely.data.store import VectorStore
from likely.nets.backbone import Backbone, preparation_of
from likely.nets.features import Autoencoder, FeatureMap, FeatureOptions, RandomConvolutions, Scaling, rebuilt
from likely.nets.scaling import to_eight_bit, to_unit
from likely.training import hardware

AT_ONCE = 8 * 224 * 224  # pixels that go through together: of more, the maps of a backbone leave a processor's cache
ON_A_GPU = 16  # times as many
LOOKED_UP = 64  # images whose features are looked for on the disk together
LAYOUT = "described"  # of what is kept: features, and the image's complexity behind them
TINY = 1e-12

Progress = Callable[[int, int], None]


class Features(nn.Module):
    """f(x) of images x, scaled: what a density is of where it is not one of pixels."""

    def __init__(self, map: FeatureMap, options: FeatureOptions) -> None:
        """Of options with nothing left open; what the scaling learns is not measured yet."""
        super().__init__()
        self.map, self.options = map, options
        assert options.feature_scaling is not None
        self.scaling = Scaling(options.feature_scaling, map.groups, options.feature_components)
        self._kept: _Kept | None = None

    @classmethod
    def chosen(cls, asked: FeatureOptions, family: FamilyOptions, shape: Sequence[int], seed: int) -> Self | None:
        """What was asked for of images (C, H, W), None for pixels; its scaling is not measured yet."""
        map: FeatureMap
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
    def rebuilt(cls, document: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Self:
        """What `document` and the weights describe."""
        self = cls(rebuilt(document["map"]), FeatureOptions.model_validate(document["options"]))
        self.load_state_dict(tensors)
        return self

    def document(self) -> dict[str, Any]:
        """What it takes besides the weights."""
        return {"map": self.map.document(), "options": self.options.model_dump()}

    @property
    def noise(self) -> float:
        """What training adds to the features."""
        return self.options.feature_noise if self.scaling.kind == "whiten" else 0.0

    @property
    def device(self) -> torch.device:
        return next(t.device for t in (*self.parameters(), *self.buffers()))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) in [0, 1] -> (B, D), with gradients."""
        features: Tensor = self.scaling(self.map(x))
        return features

    @torch.inference_mode()
    def of(self, pixels: Tensor) -> Tensor:
        """uint8 (B, C, H, W) -> (B, D) on the device."""
        features: Tensor = self.scaling(self._undescribed(pixels).to(self.device))
        return features

    @torch.inference_mode()
    def seen(self, pixels: Tensor) -> Seen:
        """uint8 (B, C, H, W) -> the same features, and what they leave out."""
        row = self._described(pixels) if self._kept is None else self._kept(pixels, self._described)
        return self._seen(row[:, :-1], row[:, -1:])

    def differentiable(self, x: Tensor) -> Seen:
        """The same of images (B, C, H, W) in [0, 1], with gradients."""
        return self._seen(self.map(x), complexity(to_eight_bit(x.detach())))

    def _seen(self, made: Tensor, packed: Tensor) -> Seen:
        """log ‖f_g‖ of each group of unscaled features, which scaling takes away, and the image's complexity."""
        lengths = [group.norm(dim=1, keepdim=True) for group in torch.split(made, list(self.map.groups), 1)]
        described = torch.cat([*(length.clamp_min(TINY).log().cpu() for length in lengths), packed], 1)
        return Seen(self.scaling(made.to(self.device)), described)

    @torch.inference_mode()
    def measure(self, images: Images, progress: Progress | None = None) -> None:
        """Learn from the features of training images how to scale."""
        self.scaling.measure(self.unscaled(images, progress).to(self.device))

    @torch.inference_mode()
    def over(self, part: Part) -> Part:
        """The same part, of vectors."""
        rows = self.scaling(self.unscaled(part.images).to(self.device)).cpu().numpy()
        return replace(part, images=Vectors(rows, part.images.name))

    def keep(self) -> None:
        """From now on compute an image's features once, and look on the disk whether that was done before."""
        if self.device.type == "cpu":
            hardware.keep_memory()
        self._kept = self._kept or _Kept(VectorStore(f"{self.map.digest()[:16]}-{LAYOUT}"))

    @contextmanager
    def keeping(self, kept: bool = True) -> Iterator[None]:
        """For a while, do so or do not."""
        before = self._kept
        if kept:
            self.keep()
        else:
            self.let_go()
        try:
            yield
        finally:
            self._kept = before

    @property
    def is_kept(self) -> bool:
        """Whether an image that was seen before is not looked at again."""
        return self._kept is not None

    def let_go(self) -> None:
        """Of what was kept in memory."""
        self._kept = None

    @torch.inference_mode()
    def unscaled(self, images: Images, progress: Progress | None = None) -> Tensor:
        """The map's own features of all images, (N, D) on the processor."""
        found = []
        for start in range(0, len(images), LOOKED_UP):
            end = min(start + LOOKED_UP, len(images))
            found.append(self._undescribed(images.batch(np.arange(start, end))))
            if progress is not None:
                progress(end, len(images))
        return torch.cat(found) if found else torch.zeros(0, self.map.n_features)

    def _undescribed(self, pixels: Tensor) -> Tensor:
        """(B, D) on the processor. What is kept has the image's complexity behind its features."""
        return self._made(pixels) if self._kept is None else self._kept(pixels, self._described)[:, :-1]

    def _described(self, pixels: Tensor) -> Tensor:
        """(B, D + 1) on the processor: features, and the image's complexity behind them."""
        return torch.cat([self._made(pixels), complexity(pixels)], 1)

    def _made(self, pixels: Tensor) -> Tensor:
        """(B, D) on the processor."""
        at_once = AT_ONCE * (1 if self.device.type == "cpu" else ON_A_GPU)
        n = max(1, at_once // (pixels.shape[2] * pixels.shape[3]))
        blocks = (to_unit(block.to(self.device)) for block in torch.split(pixels, n))
        made = [self.map(x.contiguous(memory_format=torch.channels_last)).float().cpu() for x in blocks]
        return torch.cat(made) if made else torch.zeros(0, self.map.n_features)


class Sighted(Scorer):
    """A model of features, asked about images."""

    def __init__(self, features: Features, model: Scorer) -> None:
        super().__init__(model.task, model.options)
        self.features, self.model = features, model

    def log_scores(self, x: Tensor, *, rng: Generator | None = None) -> Tensor:
        return self.model.log_scores(self.features(x), rng=rng)

    def objectives(self) -> Sequence[Objective]:
        return self.model.objectives()


class _Kept:
    """Features by their images' hashes, in memory and on the disk."""

    def __init__(self, store: VectorStore) -> None:
        self.store, self.rows = store, dict[int, Tensor]()

    def __call__(self, pixels: Tensor, computed: Callable[[Tensor], Tensor]) -> Tensor:
        keys = hashes_of(fingerprint(image) for image in pixels.numpy()).tolist()
        place = {key: i for i, key in enumerate(keys) if key not in self.rows}
        self.rows |= {key: torch.from_numpy(row.copy()) for key, row in self.store.get(place).items()}
        if missing := [key for key in place if key not in self.rows]:
            made = computed(pixels[[place[key] for key in missing]])
            self.rows |= dict(zip(missing, made.clone(), strict=True))
            self.store.put({key: self.rows[key].numpy() for key in missing})
        return torch.stack([self.rows[key] for key in keys])


def suited(images: ImageOptions, asked: FeatureOptions) -> ImageOptions:
    """The images that features are to be made of, where nothing else was asked for: as a backbone is used to them.

    Whoever asks for another size, or way to come to it, means whole images or says what to cut.
    """
    if asked.kind != "backbone":
        return images
    assert asked.backbone is not None
    wanted, own = images.model_dump(exclude_unset=True), preparation_of(asked.backbone)._asdict()
    if wanted.keys() & own.keys():
        own = {"size": own["size"]}
    return ImageOptions.model_validate({"colour": "rgb"} | own | wanted)
