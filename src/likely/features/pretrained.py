"""Sources of pretrained networks: embedded ones by name, and folders in the format of transformers.

No code of a source is executed: weights are read from safetensors, or by `torch.load(weights_only=True)` if embedded.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple, get_args

import torch
from safetensors import SafetensorError
from torch import nn

from likely.data.preprocessing import ImageOptions, Resample, Resize
from likely.exceptions import BackboneError
from likely.features import efficientnet_lite
from likely.features.efficientnet_lite import VARIANTS, EfficientNetLite
from likely.features.feature_extractors import FeatureOptions

CONFIG = "config.json"  # marks the folder of a backbone
PREPROCESSOR = "preprocessor_config.json"
WEIGHTS = "*.safetensors"
CONVNEXT_FULL_SIZE = 384  # pixels a side from which ConvNeXt uses no center crop
UNSTORED_CONFIG_KEYS = ("_name_or_path", "transformers_version", "id2label", "label2id", "architectures")
_DEFAULT_RESAMPLE: Resample = "bilinear"  # of most image processors of transformers


class Preprocessing(NamedTuple):
    """Preprocessing that a network was trained with: the side in pixels, and how images are brought to it."""

    size: int
    resize: Resize
    center_crop_ratio: float
    resample: Resample


class PretrainedNetwork(NamedTuple):
    """A network with its weights; `config` builds it without them. Images in [0, 1] are normalized by mean and std."""

    network: nn.Module
    config: dict[str, Any]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    side: int
    sha256: str


def load_pretrained(source: str) -> PretrainedNetwork:
    """Load an embedded network, a folder, or a cached model of the hub; raise BackboneError if a weight is missing."""
    return _load_embedded(source) if source in VARIANTS else _load_folder(_locate(source))


def build_network(config: Mapping[str, Any]) -> nn.Module:
    """Build the network of a configuration with random weights, in evaluation mode."""
    with torch.random.fork_rng(devices=[]):
        if config.get("model_type") == efficientnet_lite.MODEL_TYPE:
            return EfficientNetLite(config["width"], config["depth"]).eval()
        transformers = _import_package("transformers", "the model")
        with _silenced(transformers.utils.logging):
            network: nn.Module = transformers.AutoModel.from_config(transformers.AutoConfig.for_model(**config))
        return network.float().eval()


def with_backbone_defaults(images: ImageOptions, requested: FeatureOptions) -> ImageOptions:
    """Return the image options with the backbone's preprocessing as defaults.

    An explicit size or resize mode replaces the backbone's cropping; its size and resampling filter remain defaults.
    """
    if requested.kind != "backbone":
        return images
    assert requested.backbone is not None
    defaults = _preprocessing(requested.backbone)._asdict()
    explicit = images.model_dump(exclude_unset=True)
    if explicit.keys() & {"size", "resize", "center_crop_ratio"}:
        defaults = {name: defaults[name] for name in ("size", "resample")}
    return ImageOptions.model_validate({"color": "rgb"} | defaults | explicit)


def digest(paths: Iterable[Path]) -> str:
    """Return the SHA-256 hash of the hashes of files."""
    hashes = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            hashes.update(hashlib.file_digest(file, "sha256").digest())
    return hashes.hexdigest()


def _load_embedded(name: str) -> PretrainedNetwork:
    variant = VARIANTS[name]
    weights = variant.weights(name)
    config = {"model_type": efficientnet_lite.MODEL_TYPE, "width": variant.width, "depth": variant.depth}
    network = EfficientNetLite(variant.width, variant.depth)
    network.load_weights(weights)
    mean, std = (efficientnet_lite.PIXEL_MEAN,) * 3, (efficientnet_lite.PIXEL_STD,) * 3
    return PretrainedNetwork(network, config, mean, std, variant.side, digest([weights]))


def _load_folder(folder: Path) -> PretrainedNetwork:
    settings = _read_preprocessor_config(folder)
    network = _load_network(folder)
    config = {name: value for name, value in network.config.to_dict().items() if name not in UNSTORED_CONFIG_KEYS}
    config = json.loads(json.dumps(config))  # so that a stored configuration builds the identical network
    side = _parse_preprocessor_config(folder, settings).size
    return PretrainedNetwork(network, config, *_colors(folder, settings), side, digest(sorted(folder.glob(WEIGHTS))))


def _preprocessing(source: str) -> Preprocessing:
    if source in VARIANTS:
        return Preprocessing(VARIANTS[source].side, "crop", 1.0, "bicubic")
    folder = _locate(source)
    return _parse_preprocessor_config(folder, _read_preprocessor_config(folder))


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


def _parse_preprocessor_config(folder: Path, settings: Mapping[str, Any]) -> Preprocessing:
    size = settings.get("size")
    shorter, has_both_sides = _side(size), isinstance(size, Mapping) and "height" in size
    crop_size = _side(settings.get("crop_size")) if settings.get("do_center_crop") else None
    resample = _resample(folder, settings)
    if shorter is None and crop_size is None:
        raise _incomplete(folder)
    if crop_size is not None:
        return Preprocessing(crop_size, "crop", max(1.0, (shorter or crop_size) / crop_size), resample)
    assert shorter is not None
    crop_fraction = settings.get("crop_pct")  # ConvNeXt: the fraction kept by the center crop, for small sizes only
    if crop_fraction and shorter < CONVNEXT_FULL_SIZE:
        return Preprocessing(shorter, "crop", max(1.0, 1 / float(crop_fraction)), resample)
    return Preprocessing(shorter, "stretch" if has_both_sides or crop_fraction else "crop", 1.0, resample)


def _side(size: object) -> int | None:
    """Return the height or the shorter side."""
    side = size.get("height", size.get("shortest_edge")) if isinstance(size, Mapping) else size
    return side if isinstance(side, int) else None


def _resample(folder: Path, settings: Mapping[str, Any]) -> Resample:
    code = settings.get("resample")
    if code is None:
        return _DEFAULT_RESAMPLE
    if code not in range(len(get_args(Resample))):
        raise BackboneError(f"{folder / PREPROCESSOR}: resample {code!r} is not a filter of Pillow, 0 to 5")
    found: Resample = get_args(Resample)[code]
    return found


def _colors(folder: Path, settings: Mapping[str, Any]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    mean, std = settings.get("image_mean"), settings.get("image_std")
    if not mean or not std:
        raise _incomplete(folder)
    return tuple(mean), tuple(std)


def _incomplete(folder: Path) -> BackboneError:
    return BackboneError(f"{folder / PREPROCESSOR} lacks size, image_mean or image_std")


def _load_network(folder: Path) -> Any:
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


def _import_package(name: str, subject: str) -> Any:
    """Import an optional package; raise BackboneError with the install command if it is missing."""
    try:
        return import_module(name)
    except ImportError:
        raise BackboneError(
            f"{subject} needs the package {name} to read a pretrained backbone: pip install 'likely[backbones]'"
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
