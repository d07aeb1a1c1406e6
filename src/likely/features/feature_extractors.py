"""Feature maps: an image to a vector in which classes lie apart, so that a small density for each class will do."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from pydantic import Field, model_validator
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from likely.base import FeatureScaling, Objective, Trainable
from likely.exceptions import InvalidValueError
from likely.networks.blocks import make_decoder, make_encoder
from likely.options import Options

Kind = Literal["pixels", "random", "autoencoder", "backbone"]


class FeatureOptions(Options):
    """What a model sees of an image: its pixels, or features of it."""

    features: Kind | None = Field(
        None,
        description="What the model is a density of: the pixels, random convolutions, the code of an autoencoder that is "
        "trained first, or a pretrained backbone's features; pixels, unless a backbone is given.",
    )
    backbone: str | None = Field(
        None,
        description="A pretrained network: a folder as transformers saves it, or a name on the Hugging Face hub that was "
        "fetched before.",
    )
    backbone_stages: int = Field(
        1, ge=1, description="How many of the backbone's last stages give features, side by side."
    )
    feature_scaling: FeatureScaling | None = Field(
        None,
        description="l2: each stage's features to length 1; whiten: to their principal components of variance 1, with "
        "noise; the family chooses when left out.",
    )
    feature_components: int = Field(
        128, ge=1, description="Principal components that whitening keeps, or the numbers of an autoencoder's code."
    )
    feature_noise: float = Field(
        0.1,
        ge=0,
        description="Standard deviation of the noise that training adds to whitened features: without it a density may grow "
        "without end.",
    )

    feature_epochs: int = Field(
        10,
        ge=1,
        description="Passes over the training images in which features are learned, where they are, before the model.",
    )
    finetune_stages: int = Field(
        0, ge=0, description="How many of the backbone's last stages go on learning, to tell the classes at hand apart."
    )
    finetune_rate: float = Field(1e-4, gt=0, description="The largest learning rate of these stages.")

    @model_validator(mode="after")
    def _agree(self) -> FeatureOptions:
        if self.backbone is not None and self.features not in (None, "backbone"):
            raise InvalidValueError(f"features {self.features!r} have no use for a backbone; leave out one of the two")
        if self.finetune_stages and self.backbone is None:
            raise InvalidValueError("finetune_stages are a backbone's; name one")
        if self.features == "backbone" and self.backbone is None:
            raise InvalidValueError("features 'backbone' need one: a folder with config.json and model.safetensors")
        return self

    @property
    def kind(self) -> Kind:
        """Which features, with what was left open filled in."""
        return self.features or ("pixels" if self.backbone is None else "backbone")

    @property
    def learns(self) -> bool:
        """Whether the features themselves are learned from the training images."""
        return self.kind == "autoencoder" or self.finetune_stages > 0


class FeatureExtractor(nn.Module, ABC):
    """f(x): images to vectors, made of one or more groups of numbers that are scaled apart."""

    groups: tuple[int, ...]  # how many numbers each group has

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) in [0, 1] -> (B, D)."""

    @abstractmethod
    def to_config(self) -> dict[str, Any]:
        """What it takes besides the weights to build the same map again."""

    @property
    def n_features(self) -> int:
        return sum(self.groups)

    def training_module(self, options: FeatureOptions, n_classes: int, rate: float) -> Trainable | None:
        """What trains this map, in place and at most at a learning `rate`, before anything is made of its features; None if
        there is nothing to learn."""
        return None

    def digest(self) -> str:
        """A hash of everything that the features depend on."""
        whole = hashlib.sha256(repr(sorted(self.to_config().items())).encode())
        for name, tensor in sorted(self.state_dict().items()):
            whole.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
        return whole.hexdigest()


class RandomConvolutions(FeatureExtractor):
    """Means over quarters of an image of max(0, ±w ∗ x), w random patches of mean 0 (Coates & Ng 2011; Saxe 2011).

    Nothing is learned and nothing fetched; the seed is the map.
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
    """The code of an autoencoder: what it takes to make an image again, E ‖x − d(e(x))‖² (Hinton & Salakhutdinov 2006)."""

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
    def __init__(self, map: Autoencoder) -> None:
        super().__init__()
        self.map = map

    def objectives(self) -> Sequence[Objective]:
        return (Objective("reconstruction", tuple(self.map.parameters()), self._loss),)

    def _loss(self, x: Tensor, y: Tensor, rng: Generator) -> Tensor:
        loss: Tensor = (self.map.head(self.map(x)).sigmoid() - x).square().mean()
        return loss


class FeatureScaler(nn.Module):
    """What is done to features before a density sees them; `measure` once, with many images' features, if it learns.

    `l2`: each group to length 1 (Mueller & Hein 2025, Mahalanobis++): what a softmax network says by the length of its
    features is how sure it is, not of what. `whiten`: z = (V' (f − mean)) / sqrt(λ), the first components of a principal
    component analysis; the same for all classes, so that Bayes' rule does not see it.
    """

    def __init__(self, kind: FeatureScaling, groups: Sequence[int], n_components: int) -> None:
        super().__init__()
        self.kind, self.groups = kind, tuple(groups)
        D = sum(groups)
        kept = min(n_components, D) if kind == "whiten" else 0
        self.location: Tensor
        self.axes: Tensor
        self.register_buffer("location", torch.zeros(D if kept else 0))
        self.register_buffer("axes", torch.zeros(D if kept else 0, kept))
        self.n_features = kept or D

    def forward(self, f: Tensor) -> Tensor:
        """(B, D) -> (B, n_features)."""
        if self.kind == "whiten":
            return (f - self.location) @ self.axes
        if self.kind == "none":
            return f
        return torch.cat([F.normalize(group, dim=1) for group in torch.split(f, list(self.groups), 1)], 1)

    def inverse(self, z: Tensor) -> Tensor:
        """The least that comes to the same when it is whitened: (B, n_features) -> (B, D)."""
        assert self.kind == "whiten"
        lengths = self.axes.square().sum(0)  # 1 / λ; 0 of a component that no image has
        return self.location + (z / lengths.clamp_min(torch.finfo(z.dtype).tiny)) @ self.axes.mT

    @torch.no_grad()
    def fit(self, f: Tensor) -> None:
        """Learn mean and axes from features (N, D); fewer images than components leave the rest at zero."""
        if self.kind != "whiten":
            return
        f = f.double()
        mean = f.mean(0)
        _, s, axes = torch.linalg.svd(f - mean, full_matrices=False)
        size = s / max(1, len(f) - 1) ** 0.5
        n = min(self.axes.shape[1], int((size > 1e-6 * size[:1]).sum()))
        self.location.copy_(mean)
        self.axes.zero_()
        self.axes[:, :n] = axes[:n].mT / size[:n]


def from_config(document: Mapping[str, Any]) -> FeatureExtractor:
    """The map that `document` describes, its weights yet to be loaded."""
    said = dict(document)
    match said.pop("kind"):
        case "random":
            return RandomConvolutions(**said)
        case "autoencoder":
            return Autoencoder(**said)
        case "backbone":
            from likely.features.backbone import Backbone

            return Backbone(**said)
    raise InvalidValueError(f"features of the kind {document['kind']!r} are of another version of Likely")
