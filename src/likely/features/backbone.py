"""Pretrained backbones in the format of transformers; weights are read from safetensors and no code is executed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self

import torch
from safetensors import SafetensorError
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from likely.base import Objective, Trainable
from likely.data.preprocessing import ImageOptions
from likely.exceptions import BackboneError
from likely.features.batchnorm_fusion import fuse_batchnorm
from likely.features.feature_extractors import FeatureExtractor, FeatureOptions

CONFIG = "config.json"  # marks the folder of a backbone
PREPROCESSOR = "preprocessor_config.json"
WEIGHTS = "*.safetensors"
CONVNEXT_FULL_SIZE = 384  # pixels a side from which ConvNeXt uses no center crop
UNSTORED_CONFIG_KEYS = ("_name_or_path", "transformers_version", "id2label", "label2id", "architectures")


class Backbone(FeatureExtractor):
    """Spatial means of the last feature maps of a pretrained network's last stages.

    A stage consists of the layers with maps of one size; in networks that output tokens each layer is a stage.
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
    ) -> None:
        """Build an untrained network from its transformers `config`, for images of `side` pixels normalized by mean and std."""
        super().__init__()
        self.config, self.side, self.stages = dict(config), side, stages
        self.source, self.sha256 = source, sha256
        self.colors = tuple(mean), tuple(std)
        self.network: nn.Module = _from_config(self.config)
        self._fused: tuple[object, nn.Module] | None = None  # in a tuple, so that it is not registered as a submodule
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1), persistent=False)
        self.eval().requires_grad_(False)
        with torch.no_grad():
            self.groups = tuple(f.shape[1] for f in self.stage_features(torch.zeros(1, 3, side, side)))

    @classmethod
    def pretrained(cls, source: str, stages: int = 1) -> Self:
        """Load all weights from a folder or from a cached model of the hub; raise BackboneError if any is missing."""
        folder = _locate(source)
        settings = _read_preprocessor_config(folder)
        network = _load_pretrained(folder)
        config = {name: value for name, value in network.config.to_dict().items() if name not in UNSTORED_CONFIG_KEYS}
        # Through JSON, so that a stored configuration builds the identical network.
        self = cls(
            json.loads(json.dumps(config)),
            *_colors(folder, settings),
            _parse_preprocessor_config(folder, settings).size,
            stages,
            source,
            digest(sorted(folder.glob(WEIGHTS))),
        )
        self.network.load_state_dict(network.state_dict())
        return self

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat(self.stage_features(x), 1)

    def stage_features(self, x: Tensor) -> list[Tensor]:
        """Return the features (B, D) of each stage, the last stage last, of images (B, 3, H, W) in [0, 1]."""
        return [h.float().mean((2, 3)) if h.ndim == 4 else h.float().mean(1) for h in self.maps(x, self.stages)]

    def maps(self, x: Tensor, stages: int | None) -> list[Tensor]:
        """Return the last maps (B, F, h, w) or tokens (B, T, F) of the last `stages` stages, or of all, the last stage last."""
        x, all_stages = x.expand(-1, 3, -1, -1), stages is None or stages > 1
        output = self._inference_network()((x - self.mean) / self.std, output_hidden_states=all_stages)
        maps = [output.last_hidden_state]
        if all_stages:
            maps = [*_last_of_each_size(output.hidden_states), *maps]
            if len(maps) > 1 and maps[-2].shape == maps[-1].shape:
                del maps[-2]  # the last map again, or before its final normalization
        if stages is None:
            return maps
        if stages > len(maps):
            raise BackboneError(f"{self.source or 'the backbone'} has {len(maps)} stages; {stages} were requested")
        return maps[-stages:]

    def _inference_network(self) -> nn.Module:
        """Return the network, in inference mode with its batch normalization fused."""
        tensors = (*self.network.parameters(), *self.network.buffers())
        if not torch.is_inference_mode_enabled() or self.network.training or any(t.is_inference() for t in tensors):
            return self.network
        key = self.mean.device, *(t._version for t in tensors)  # any change of the weights invalidates the fused copy
        if self._fused is None or self._fused[0] != key:
            with torch.inference_mode(False):
                x = torch.rand(1, 3, self.side, self.side, generator=torch.Generator().manual_seed(0)).to(self.mean)
                self._fused = key, fuse_batchnorm(self.network, (x - self.mean) / self.std)
        fused: nn.Module = self._fused[1]
        return fused

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
        }

    @property
    def name(self) -> str:
        """Folder name with the first four hex digits of the weights' hash."""
        return f"{Path(self.source).name}@{self.sha256[:4]}"


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


def _locate(source: str) -> Path:
    """Return the folder of a backbone: the named one, or the local cache of a model of the hub.

    Never downloads: without a network the program would seem to hang.
    """
    folder = Path(source).expanduser()
    if (folder / CONFIG).exists():
        return folder.resolve()
    if folder.exists():
        raise BackboneError(f"{source} is not a backbone: expected {CONFIG} and {WEIGHTS} in it")
    hub = _import_package("huggingface_hub", source)
    try:
        cached: str = hub.snapshot_download(source, local_files_only=True)
    except (OSError, ValueError):  # unknown, or not in the cache
        fetch = f"hf download {source} --include '*.json' '{WEIGHTS}'"
        raise BackboneError(
            f"{source} is neither a folder nor a hub model in the local cache; download it with `{fetch}`, or on a machine "
            "with network access with `--local-dir FOLDER`, and copy the folder"
        ) from None
    return Path(cached)


def with_backbone_defaults(images: ImageOptions, requested: FeatureOptions) -> ImageOptions:
    """Return the image options with the backbone's preprocessing as defaults.

    An explicit size or resize mode replaces the backbone's cropping; only its size remains a default.
    """
    if requested.kind != "backbone":
        return images
    assert requested.backbone is not None
    folder = _locate(requested.backbone)
    defaults = _parse_preprocessor_config(folder, _read_preprocessor_config(folder))._asdict()
    explicit = images.model_dump(exclude_unset=True)
    if explicit.keys() & defaults.keys():
        defaults = {"size": defaults["size"]}
    return ImageOptions.model_validate({"color": "rgb"} | defaults | explicit)


def digest(paths: Iterable[Path]) -> str:
    """Return the SHA-256 hash of the hashes of files."""
    hashes = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            hashes.update(hashlib.file_digest(file, "sha256").digest())
    return hashes.hexdigest()


def _last_of_each_size(hidden: tuple[Tensor, ...]) -> list[Tensor]:
    """Return the last map of each size; of tokens, every layer."""
    ends = [h for h, after in pairwise(hidden) if h.ndim != 4 or after.shape[2:] != h.shape[2:]]
    return [*ends, hidden[-1]]


def _read_preprocessor_config(folder: Path) -> Mapping[str, Any]:
    path = folder / PREPROCESSOR
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise BackboneError(
            f"{folder} has no {PREPROCESSOR}, which holds the image size and normalization; copy the complete folder again"
        ) from None
    except (ValueError, TypeError) as error:
        raise BackboneError(f"{path} is damaged ({error}); copy the complete folder again") from None


class _PreprocessorConfig(NamedTuple):
    """Preprocessing that a backbone was trained with: the side in pixels, and how images are brought to it."""

    size: int
    resize: Literal["crop", "stretch"]
    center_crop_ratio: float


def _parse_preprocessor_config(folder: Path, settings: Mapping[str, Any]) -> _PreprocessorConfig:
    size = settings.get("size")
    shorter, has_both_sides = _side(size), isinstance(size, Mapping) and "height" in size
    crop_size = _side(settings.get("crop_size")) if settings.get("do_center_crop") else None
    if shorter is None and crop_size is None:
        raise _incomplete(folder)
    if crop_size is not None:
        return _PreprocessorConfig(crop_size, "crop", max(1.0, (shorter or crop_size) / crop_size))
    assert shorter is not None
    crop_fraction = settings.get("crop_pct")  # ConvNeXt: the fraction kept by the center crop, for small sizes only
    if crop_fraction and shorter < CONVNEXT_FULL_SIZE:
        return _PreprocessorConfig(shorter, "crop", max(1.0, 1 / float(crop_fraction)))
    return _PreprocessorConfig(shorter, "stretch" if has_both_sides or crop_fraction else "crop", 1.0)


def _side(size: object) -> int | None:
    """Return the height or the shorter side."""
    side = size.get("height", size.get("shortest_edge")) if isinstance(size, Mapping) else size
    return side if isinstance(side, int) else None


def _colors(folder: Path, settings: Mapping[str, Any]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    mean, std = settings.get("image_mean"), settings.get("image_std")
    if not mean or not std:
        raise _incomplete(folder)
    return tuple(mean), tuple(std)


def _incomplete(folder: Path) -> BackboneError:
    return BackboneError(f"{folder / PREPROCESSOR} lacks size, image_mean or image_std")


def _load_pretrained(folder: Path) -> Any:
    transformers = _import_package("transformers", str(folder))
    arguments = {"local_files_only": True, "use_safetensors": True, "output_loading_info": True}
    try:
        with _silenced(transformers.utils.logging):
            model, loading_info = transformers.AutoModel.from_pretrained(folder, **arguments)
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise BackboneError(f"{folder} cannot be read as a pretrained backbone: {_first_line(error)}") from error
    if missing := sorted(loading_info["missing_keys"]):
        raise BackboneError(
            f"{folder} lacks {len(missing)} weights, such as {missing[0]}; copy the complete folder again"
        )
    return model.float().eval()


def _from_config(config: Mapping[str, Any]) -> Any:
    """Build the network of a transformers config with random weights."""
    transformers = _import_package("transformers", "the model")
    with _silenced(transformers.utils.logging), torch.random.fork_rng(devices=[]):
        return transformers.AutoModel.from_config(transformers.AutoConfig.for_model(**config)).float().eval()


def _import_package(name: str, subject: str) -> Any:
    """Import an optional package; raise BackboneError with the install command if it is missing."""
    try:
        return import_module(name)
    except ImportError:
        raise BackboneError(
            f"{subject} needs the package {name} to read a pretrained backbone: pip install 'likely[photos]'"
        ) from None


@contextmanager
def _silenced(logging: Any) -> Iterator[None]:
    """Silence the progress bars and tables of transformers within a `with` block."""
    level, has_bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if has_bars:
            logging.enable_progress_bar()


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]
