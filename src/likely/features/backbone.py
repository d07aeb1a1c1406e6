"""Backbones: networks that others trained on many photographs, read from where they lie; nothing of them is executed."""

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
from likely.exceptions import BackboneError
from likely.features.batchnorm_fusion import fuse_batchnorm
from likely.features.feature_extractors import FeatureExtractor, FeatureOptions

CONFIG = "config.json"  # what a backbone's folder is known by
PREPROCESSOR = "preprocessor_config.json"
WEIGHTS = "*.safetensors"
UNCUT = 384  # pixels a side, from which on ConvNeXt is shown photographs whole
FORGOTTEN = ("_name_or_path", "transformers_version", "id2label", "label2id", "architectures")


class Backbone(FeatureExtractor):
    """Means over space of a pretrained network's last map, and of the last maps of so many stages in all before it.

    A stage are the maps of one size. What gives tokens instead of maps has a stage at every layer.
    """

    def __init__(
        self,
        config: Mapping[str, Any],
        mean: tuple[float, ...],
        deviation: tuple[float, ...],
        side: int,
        stages: int = 1,
        source: str = "",
        sha256: str = "",
    ) -> None:
        """An untrained network of a `config`; colors have this `mean` and `deviation`, images this `side`."""
        super().__init__()
        self.config, self.side, self.stages = dict(config), side, stages
        self.source, self.sha256 = source, sha256
        self.colors = tuple(mean), tuple(deviation)
        self.network: nn.Module = _built(self.config)
        self._quick: tuple[object, nn.Module] | None = None  # no module of ours: what is saved has its weights already
        self.mean: Tensor
        self.deviation: Tensor
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("deviation", torch.tensor(deviation).view(-1, 1, 1), persistent=False)
        self.eval().requires_grad_(False)
        with torch.no_grad():
            self.groups = tuple(f.shape[1] for f in self.stage_features(torch.zeros(1, 3, side, side)))

    @classmethod
    def pretrained(cls, source: str, stages: int = 1) -> Self:
        """From a folder, or by its name on the hub, every weight read from there and none made up; a BackboneError if not."""
        folder = locate(source)
        settings = _settings(folder)
        network = _pretrained(folder)
        config = {name: value for name, value in network.config.to_dict().items() if name not in FORGOTTEN}
        # Through JSON: what is stored and what is computed with are to be the same.
        self = cls(
            json.loads(json.dumps(config)),
            *_colors(folder, settings),
            _preparation(folder, settings).size,
            stages,
            source,
            digest(sorted(folder.glob(WEIGHTS))),
        )
        self.network.load_state_dict(network.state_dict())
        return self

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat(self.stage_features(x), 1)

    def stage_features(self, x: Tensor) -> list[Tensor]:
        """(B, 3, H, W) in [0, 1] -> (B, D) of each stage, the last one last."""
        return [h.float().mean((2, 3)) if h.ndim == 4 else h.float().mean(1) for h in self.maps(x, self.stages)]

    def maps(self, x: Tensor, stages: int | None) -> list[Tensor]:
        """(B, 3, H, W) in [0, 1] -> the last maps of so many stages, or all, the last one last: (B, F, h, w), or tokens
        (B, T, F)."""
        x, several = x.expand(-1, 3, -1, -1), stages is None or stages > 1
        found = self._fastest()((x - self.mean) / self.deviation, output_hidden_states=several)
        maps = [found.last_hidden_state]
        if several:
            maps = [*_ends(found.hidden_states), *maps]
            if len(maps) > 1 and maps[-2].shape == maps[-1].shape:
                del maps[-2]  # the last map, told twice, or before its last scaling
        if stages is None:
            return maps
        if stages > len(maps):
            raise BackboneError(f"{self.source or 'the backbone'} has {len(maps)} stages, and {stages} were asked for")
        return maps[-stages:]

    def _fastest(self) -> nn.Module:
        """The network, or where no gradient is asked for one that comes to the same sooner."""
        tensors = (*self.network.parameters(), *self.network.buffers())
        if not torch.is_inference_mode_enabled() or self.network.training or any(t.is_inference() for t in tensors):
            return self.network
        of = self.mean.device, *(t._version for t in tensors)  # whatever changes them, counts
        if self._quick is None or self._quick[0] != of:
            with torch.inference_mode(False):
                x = torch.rand(1, 3, self.side, self.side, generator=torch.Generator().manual_seed(0)).to(self.mean)
                self._quick = of, fuse_batchnorm(self.network, (x - self.mean) / self.deviation)
        quick: nn.Module = self._quick[1]
        return quick

    def training_module(self, options: FeatureOptions, n_classes: int, rate: float) -> FineTuning | None:
        stages = options.finetune_stages
        return FineTuning(self, n_classes, stages, options.finetune_rate / rate) if stages else None

    def trainable_stages(self, stages: int) -> list[nn.Parameter]:
        """The parameters that only the last stages have a use for: those on which the maps before do not depend."""
        parameters = list(self.parameters())
        with torch.enable_grad():
            x = torch.zeros(1, 3, self.side, self.side)
            x = x.to(self.mean)
            for p in parameters:
                p.requires_grad_()
            last, *_ = self.maps(x, stages + 1)
            slopes = torch.autograd.grad(last.sum(), parameters, allow_unused=True)
        self.requires_grad_(False)
        return [p for p, slope in zip(parameters, slopes, strict=True) if slope is None]

    def to_config(self) -> dict[str, Any]:
        mean, deviation = self.colors
        return {
            "kind": "backbone",
            "config": self.config,
            "mean": mean,
            "deviation": deviation,
            "side": self.side,
            "stages": self.stages,
            "source": self.source,
            "sha256": self.sha256,
        }

    @property
    def name(self) -> str:
        """The folder's name with the first digits of its weights' hash."""
        return f"{Path(self.source).name}@{self.sha256[:4]}"


class FineTuning(Trainable):
    """The cross-entropy of a linear layer on a backbone's features, by which its last stages go on learning.

    What they normalize by stays as it was: a few images of a batch are no measure of photographs.
    """

    def __init__(self, backbone: Backbone, n_classes: int, stages: int, rate: float) -> None:
        super().__init__()
        self.backbone, self.rate = backbone, rate
        self.learning = backbone.trainable_stages(stages)
        self.to_logits = nn.Linear(backbone.n_features, n_classes)
        self._features: tuple[Tensor, Tensor] | None = None

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        self.backbone.eval()
        return self

    def objectives(self) -> Sequence[Objective]:
        for p in self.learning:
            p.requires_grad_()
        return (
            Objective("tuning", self.learning, self._loss, lr_ratio=self.rate),
            Objective("telling apart", tuple(self.to_logits.parameters()), self._loss_of_logits),
        )

    def _loss(self, x: Tensor, y: Tensor, rng: Generator) -> Tensor:
        features = self.backbone(x)
        self._features = features.detach(), y
        return self._entropy(features, y)

    def _loss_of_logits(self, x: Tensor, y: Tensor, rng: Generator) -> Tensor:
        """On the features of the step under way."""
        assert self._features is not None
        return self._entropy(*self._features)

    def _entropy(self, features: Tensor, y: Tensor) -> Tensor:
        known = y >= 0
        return F.cross_entropy(self.to_logits(features[known]), y[known])


def locate(source: str) -> Path:
    """The folder of a backbone: the one named, or the one that a name on the hub was fetched to.

    Nothing is fetched here: a program that waits for a network that is not there would seem to hang.
    """
    folder = Path(source).expanduser()
    if (folder / CONFIG).exists():
        return folder.resolve()
    if folder.exists():
        raise BackboneError(f"{source} is no backbone: {CONFIG} and {WEIGHTS} were expected in it")
    hub = _package("huggingface_hub", source)
    try:
        found: str = hub.snapshot_download(source, local_files_only=True)
    except (OSError, ValueError):  # no such name, or none that was fetched
        fetch = f"hf download {source} --include '*.json' '{WEIGHTS}'"
        raise BackboneError(
            f"{source} is neither a folder nor a backbone that was fetched from the hub to this machine; where there is a "
            f"network, `{fetch}` fetches it, and with `--local-dir FOLDER` to a folder that can be carried here"
        ) from None
    return Path(found)


def digest(paths: Iterable[Path]) -> str:
    """SHA-256 of the hashes of some files."""
    whole = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            whole.update(hashlib.file_digest(file, "sha256").digest())
    return whole.hexdigest()


def _ends(hidden: tuple[Tensor, ...]) -> list[Tensor]:
    """The last map of each size; of tokens, every layer."""
    ends = [h for h, after in pairwise(hidden) if h.ndim != 4 or after.shape[2:] != h.shape[2:]]
    return [*ends, hidden[-1]]


def _settings(folder: Path) -> Mapping[str, Any]:
    path = folder / PREPROCESSOR
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise BackboneError(
            f"{folder} has no {PREPROCESSOR}, which says what size and colors the network is used to; "
            "copy the backbone's folder again, whole"
        ) from None
    except (ValueError, TypeError) as error:
        raise BackboneError(f"{path} is damaged ({error}); copy the backbone's folder again, whole") from None


class PreprocessorConfig(NamedTuple):
    """How a backbone is used to be shown a photograph: the side of a square, and how the photograph is brought to it."""

    size: int
    resize: Literal["crop", "stretch"]
    center_crop_ratio: float


def load_preprocessor_config(source: str) -> PreprocessorConfig:
    """By a backbone's own settings."""
    folder = locate(source)
    return _preparation(folder, _settings(folder))


def _preparation(folder: Path, settings: Mapping[str, Any]) -> PreprocessorConfig:
    size = settings.get("size")
    shorter, whole = _edge(size), isinstance(size, Mapping) and "height" in size
    cut = _edge(settings.get("crop_size")) if settings.get("do_center_crop") else None
    if shorter is None and cut is None:
        raise _incomplete(folder)
    if cut is not None:
        return PreprocessorConfig(cut, "crop", max(1.0, (shorter or cut) / cut))
    assert shorter is not None
    share = settings.get("crop_pct")  # of ConvNeXt's: what is left of an enlarged photograph, but not of a large one
    if share and shorter < UNCUT:
        return PreprocessorConfig(shorter, "crop", max(1.0, 1 / float(share)))
    return PreprocessorConfig(shorter, "stretch" if whole or share else "crop", 1.0)


def _edge(size: object) -> int | None:
    """The height, or the shorter side."""
    found = size.get("height", size.get("shortest_edge")) if isinstance(size, Mapping) else size
    return found if isinstance(found, int) else None


def _colors(folder: Path, settings: Mapping[str, Any]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    mean, deviation = settings.get("image_mean"), settings.get("image_std")
    if not mean or not deviation:
        raise _incomplete(folder)
    return tuple(mean), tuple(deviation)


def _incomplete(folder: Path) -> BackboneError:
    return BackboneError(f"{folder / PREPROCESSOR} gives no size, image_mean or image_std; all three were expected")


def _pretrained(folder: Path) -> Any:
    transformers = _package("transformers", str(folder))
    how = {"local_files_only": True, "use_safetensors": True, "output_loading_info": True}
    try:
        with _quiet(transformers.utils.logging):
            model, found = transformers.AutoModel.from_pretrained(folder, **how)
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise BackboneError(f"{folder} cannot be read as a pretrained backbone: {_first_line(error)}") from error
    if missing := sorted(found["missing_keys"]):
        raise BackboneError(
            f"{folder} lacks {len(missing)} of its network's weights, such as {missing[0]}; copy the folder again, whole"
        )
    return model.float().eval()


def _built(config: Mapping[str, Any]) -> Any:
    """The network that a config describes, with weights that mean nothing yet."""
    transformers = _package("transformers", "the model")
    with _quiet(transformers.utils.logging), torch.random.fork_rng(devices=[]):
        return transformers.AutoModel.from_config(transformers.AutoConfig.for_model(**config)).float().eval()


def _package(name: str, for_what: str) -> Any:
    """A package, which is large and asked of those alone who bring a backbone."""
    try:
        return import_module(name)
    except ImportError:
        raise BackboneError(
            f"{for_what} takes a pretrained backbone, and reading one needs the package {name}: pip install 'likely[photos]'"
        ) from None


@contextmanager
def _quiet(logging: Any) -> Iterator[None]:
    """Without the bars and tables of transformers, whose settings are then as they were."""
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
