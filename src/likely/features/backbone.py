"""Backbones: features of an image from several depths of a pretrained network, and fine-tuning of its last stages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Self

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from likely.base import Objective, Trainable
from likely.exceptions import BackboneError
from likely.features.batchnorm_fusion import fuse_batchnorm
from likely.features.efficientnet_lite import EfficientNetLite
from likely.features.feature_extractors import FeatureExtractor, FeatureOptions
from likely.features.onnx_runtime import OnnxRuntime
from likely.features.pretrained import build_network, load_pretrained


class Backbone(FeatureExtractor):
    """Spatial means of the last feature maps of a pretrained network's last stages.

    A stage consists of the layers with maps of one size; in networks that output tokens each layer is a stage, and in
    EfficientNet-Lite each of Table 1 of Tan & Le 2019, of which several may have one size.
    """

    def __init__(
        self,
        config: Mapping[str, Any],
        mean: tuple[float, ...],
        std: tuple[float, ...],
        side: int,
        stages: int = 1,
        source: str = "",
        sha256: str = "",
        groups: Sequence[int] = (),
    ) -> None:
        """Build an untrained network from its `config`, for images of `side` pixels normalized by mean and std.

        Without its `groups` of features, they are counted, which takes as long as the features of an image.
        """
        super().__init__()
        self.config, self.side, self.stages = dict(config), side, stages
        self.source, self.sha256 = source, sha256
        self.colors = tuple(mean), tuple(std)
        self.network = build_network(self.config)
        self._fused: tuple[object, nn.Module] | None = None  # in a tuple, so that it is not registered as a submodule
        self._runtime = OnnxRuntime()
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1), persistent=False)
        self.eval().requires_grad_(False)
        self.groups = tuple(groups) or self._count_groups()

    @classmethod
    def pretrained(cls, source: str, stages: int = 1) -> Self:
        """Load `lite0`, `lite2`, a folder or a cached model of the hub; raise BackboneError if a weight is missing."""
        found = load_pretrained(source)
        self = cls(found.config, found.mean, found.std, found.side, stages, source, found.sha256)
        self.network.load_state_dict(found.network.state_dict())
        return self

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat(self.stage_features(x), 1)

    def of_pixels(self, pixels: Tensor) -> Tensor:
        pixels, version = pixels.expand(-1, 3, -1, -1), self._inference_version
        if version is not None and pixels.device.type == "cpu" and len(pixels):
            features = self._runtime(pixels, version, self.digest, self._exportable)
            if features is not None:
                return features
        return super().of_pixels(pixels)

    def prepare(self, shape: Sequence[int]) -> None:
        """Export the network for onnxruntime now, unless it runs on a GPU."""
        self._runtime.wait_no_longer()
        with torch.inference_mode():
            self.of_pixels(torch.zeros(1, *shape, dtype=torch.uint8, device=self.mean.device))

    def stage_features(self, x: Tensor) -> list[Tensor]:
        """Return the features (B, D) of each stage, the last stage last, of images (B, 3, H, W) in [0, 1]."""
        return [_pooled(h) for h in self.maps(x, self.stages)]

    def maps(self, x: Tensor, stages: int | None) -> list[Tensor]:
        """Return the last maps (B, F, h, w) or tokens (B, T, F) of the last `stages` stages, or of all, the last stage last."""
        x = (x.expand(-1, 3, -1, -1) - self.mean) / self.std
        maps = _stage_maps(self._inference_network(), x, stages)
        if stages is not None and stages > len(maps):
            raise BackboneError(f"{self.source or 'the backbone'} has {len(maps)} stages; {stages} were requested")
        return maps

    @torch.no_grad()
    def _count_groups(self) -> tuple[int, ...]:
        return tuple(f.shape[1] for f in self.stage_features(torch.zeros(1, 3, self.side, self.side)))

    def _inference_network(self) -> nn.Module:
        """Return the network, in inference mode with its batch normalization fused."""
        version = self._inference_version
        if version is None:
            return self.network
        key = self.mean.device, version
        if self._fused is None or self._fused[0] != key:
            with torch.inference_mode(False):
                x = torch.rand(1, 3, self.side, self.side, generator=torch.Generator().manual_seed(0)).to(self.mean)
                self._fused = key, fuse_batchnorm(self.network, (x - self.mean) / self.std)
        fused: nn.Module = self._fused[1]
        return fused

    @property
    def _inference_version(self) -> tuple[int, ...] | None:
        """Key that changes with the weights, for copies of the network; None where it is trained or has gradients."""
        tensors = (*self.network.parameters(), *self.network.buffers())
        if not torch.is_inference_mode_enabled() or self.network.training or any(t.is_inference() for t in tensors):
            return None
        return tuple(t._version for t in tensors)

    def _exportable(self) -> nn.Module:
        return _StageFeatures(self._inference_network(), self.mean, self.std, self.stages)

    def training_module(self, options: FeatureOptions, n_classes: int, rate: float) -> _FineTuning | None:
        stages = options.finetune_stages
        return _FineTuning(self, n_classes, stages, options.finetune_rate / rate) if stages else None

    def trainable_stages(self, stages: int) -> list[nn.Parameter]:
        """Return the parameters of the last stages: those on which the maps before them do not depend."""
        parameters = list(self.parameters())
        with torch.enable_grad():
            x = torch.zeros(1, 3, self.side, self.side)
            x = x.to(self.mean)
            for p in parameters:
                p.requires_grad_()
            last, *_ = self.maps(x, stages + 1)
            gradients = torch.autograd.grad(last.sum(), parameters, allow_unused=True)
        self.requires_grad_(False)
        return [p for p, gradient in zip(parameters, gradients, strict=True) if gradient is None]

    def to_config(self) -> dict[str, Any]:
        mean, std = self.colors
        return {
            "kind": "backbone",
            "config": self.config,
            "mean": mean,
            "std": std,
            "side": self.side,
            "stages": self.stages,
            "source": self.source,
            "sha256": self.sha256,
            "groups": self.groups,
        }

    @property
    def name(self) -> str:
        """Folder name with the first four hex digits of the weights' hash."""
        return f"{Path(self.source).name}@{self.sha256[:4]}"


class _StageFeatures(nn.Module):
    """Features of all stages of a network, for export: uint8 (B, 3, H, W) -> (B, D)."""

    def __init__(self, network: nn.Module, mean: Tensor, std: Tensor, stages: int) -> None:
        super().__init__()
        self.network, self.stages = network, stages
        self.scale: Tensor
        self.offset: Tensor
        self.register_buffer("scale", 1 / (255 * std))
        self.register_buffer("offset", -mean / std)

    def forward(self, x: Tensor) -> Tensor:
        x = x.float() * self.scale + self.offset
        return torch.cat([_pooled(h) for h in _stage_maps(self.network, x, self.stages)], 1)


class _FineTuning(Trainable):
    """Fine-tuning of a backbone's last stages by the cross-entropy of a linear layer on its features.

    Normalization statistics stay fixed: small batches estimate them poorly.
    """

    def __init__(self, backbone: Backbone, n_classes: int, stages: int, rate: float) -> None:
        super().__init__()
        self.backbone, self.rate = backbone, rate
        self.trainable = backbone.trainable_stages(stages)
        self.to_logits = nn.Linear(backbone.n_features, n_classes)
        self._features: tuple[Tensor, Tensor] | None = None

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        self.backbone.eval()
        return self

    def objectives(self) -> Sequence[Objective]:
        for p in self.trainable:
            p.requires_grad_()
        return (
            Objective("backbone", self.trainable, self._loss, lr_ratio=self.rate),
            Objective("classifier", tuple(self.to_logits.parameters()), self._loss_of_logits),
        )

    def _loss(self, x: Tensor, y: Tensor, rng: Generator) -> Tensor:
        features = self.backbone(x)
        self._features = features.detach(), y
        return self._cross_entropy(features, y)

    def _loss_of_logits(self, x: Tensor, y: Tensor, rng: Generator) -> Tensor:
        """Cross-entropy on the features of the current step."""
        assert self._features is not None
        return self._cross_entropy(*self._features)

    def _cross_entropy(self, features: Tensor, y: Tensor) -> Tensor:
        labeled = y >= 0
        return F.cross_entropy(self.to_logits(features[labeled]), y[labeled])


def _stage_maps(network: nn.Module, x: Tensor, stages: int | None) -> list[Tensor]:
    """Return the last maps or tokens of the last `stages` stages, at most as many as there are, or of all."""
    all_stages = stages is None or stages > 1
    output = network(x, output_hidden_states=all_stages)
    maps = [output.last_hidden_state]
    if all_stages:
        hidden = output.hidden_states
        maps = [*(hidden if isinstance(network, EfficientNetLite) else _last_of_each_size(hidden)), *maps]
        if len(maps) > 1 and maps[-2].shape == maps[-1].shape:
            del maps[-2]  # the last map again, or before its final normalization
    return maps if stages is None else maps[-stages:]


def _pooled(h: Tensor) -> Tensor:
    """Return the mean (B, F) over positions of maps (B, F, h, w) or tokens (B, T, F)."""
    return h.float().mean((2, 3)) if h.ndim == 4 else h.float().mean(1)


def _last_of_each_size(hidden: tuple[Tensor, ...]) -> list[Tensor]:
    """Return the last map of each size; of tokens, every layer."""
    ends = [h for h, after in pairwise(hidden) if h.ndim != 4 or after.shape[2:] != h.shape[2:]]
    return [*ends, hidden[-1]]
