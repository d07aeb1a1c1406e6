"""Feature extractors for fidelity metrics: models of Likely, pretrained backbones, TorchScript programs.

Metrics of different extractors are not comparable, so the name of an extractor contains a hash of its weights.
"""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from likely import checkpoint
from likely.base import HasFeatures, to_unit
from likely.classifier import Predictor, load
from likely.data.image_dataset import ArrayDataset, ImageDataset
from likely.data.preprocessing import ImageFormat, read_image
from likely.evaluation.metrics import Floats
from likely.exceptions import BackboneError, ExtractorError
from likely.features.backbone import Backbone
from likely.features.pretrained import CONFIG, digest

TORCHSCRIPT = (".pt", ".pth", ".ts", ".torchscript", ".jit")
KINDS = (
    f"expected a model folder of Likely ({checkpoint.DOCUMENT}), a folder of a pretrained backbone ({CONFIG} and "
    f"*.safetensors) or a TorchScript file ({', '.join(TORCHSCRIPT)})"
)
# Errors that a network of the user may raise on images of an unexpected shape.
FAILURES = (AttributeError, LookupError, RuntimeError, TypeError, ValueError, torch.jit.Error)
Pixels = NDArray[np.uint8]


class Extractor(ABC):
    """A map from images to features; `name` identifies it, with the first digits of the hash of its weights."""

    name: str
    batch: ClassVar[int] = 256

    def __call__(self, images: Pixels) -> NDArray[np.float32]:
        """Return the features (N, F) of uint8 images (N, C, H, W) of any size, grayscale or color."""
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1] not in (1, 3) or not len(images):
            raise ExtractorError(
                f"images of shape {images.shape} and type {images.dtype}; "
                "expected at least one image, uint8 (N, 1|3, height, width)"
            )
        return np.concatenate(
            [self._checked_features(images[i : i + self.batch]) for i in range(0, len(images), self.batch)]
        )

    def features(self, images: ImageDataset) -> NDArray[np.float32]:
        """Return the features (N, F) of a dataset, decoding one batch at a time."""
        blocks = (np.arange(i, min(i + self.batch, len(images))) for i in range(0, len(images), self.batch))
        return np.concatenate([self(images.batch(block).numpy()) for block in blocks])

    @abstractmethod
    def _features(self, images: Pixels) -> Tensor:
        """Return the features (B, F) of a batch, uint8 (B, C, H, W)."""

    @torch.inference_mode()
    def _checked_features(self, images: Pixels) -> NDArray[np.float32]:
        try:
            found: object = self._features(images.copy())  # torch warns about read-only arrays
        except FAILURES as error:
            raise ExtractorError(
                f"{self.name} fails on uint8 images of shape {images.shape}: {_last_line(error)}"
            ) from error
        shape = tuple(found.shape) if isinstance(found, Tensor) else ()
        if not isinstance(found, Tensor) or len(shape) < 2 or shape != (len(images), shape[1], *(1 for _ in shape[2:])):
            actual = f"shape {shape}" if isinstance(found, Tensor) else f"a {type(found).__name__}"
            raise ExtractorError(f"{self.name} returns {actual} for {len(images)} images; expected (images, features)")
        if not found.isfinite().all():
            raise ExtractorError(f"{self.name} returns features that are NaN or infinite")
        return found.flatten(1).float().cpu().numpy()


class ModelExtractor(Extractor):
    """Features of a model of Likely, which also classifies images."""

    def __init__(self, classifier: Predictor) -> None:
        if not isinstance(classifier.model, HasFeatures):
            raise ExtractorError(
                f"a {classifier.family!r} model has no features; expected for example a 'softmax' model"
            )
        if classifier.format is None:
            raise ExtractorError("the model was trained on vectors; expected a model of images")
        self.classifier, self.model, self.format = classifier, classifier.model, classifier.format
        self.name = classifier.id or f"unsaved {classifier.family}"

    @property
    def id(self) -> str:
        """Name of the classifier."""
        return self.name

    @property
    def labels(self) -> tuple[str, ...]:
        """Classes of the classifier."""
        return self.classifier.labels

    def log_posterior(self, images: ImageDataset) -> Floats:
        """Return log p(c | x), (N, K), for images of any size, grayscale or color."""
        blocks = (np.arange(i, min(i + self.batch, len(images))) for i in range(0, len(images), self.batch))
        return np.concatenate([self._log_posterior(images.batch(block).numpy()) for block in blocks])

    def _log_posterior(self, images: Pixels) -> Floats:
        return self.classifier.log_posterior(ArrayDataset(resized(images, self.format), str))

    def _features(self, images: Pixels) -> Tensor:
        x = to_unit(torch.from_numpy(resized(images, self.format)).to(self.classifier.device))
        return self.model.features(x.contiguous(memory_format=torch.channels_last))


class _BackboneExtractor(Extractor):
    """Globally pooled features of a pretrained backbone, for whole images stretched to its input size."""

    batch = 32  # large images

    def __init__(self, folder: Path, device: str = "cpu") -> None:
        try:
            self.backbone = Backbone.pretrained(str(folder)).to(device)
        except BackboneError as error:
            raise ExtractorError(str(error)) from error
        side = self.backbone.side
        self.format = ImageFormat(channels=3, height=side, width=side, resize="stretch")
        self.name = f"{self.backbone.name} at {side} pixels"

    def _features(self, images: Pixels) -> Tensor:
        x = to_unit(torch.from_numpy(resized(images, self.format)).to(self.backbone.mean.device))
        found: Tensor = self.backbone(x)
        return found


class _TorchScriptExtractor(Extractor):
    """A TorchScript program of the user: color images uint8 (B, 3, H, W) of any size -> features (B, F).

    A program with the argument `return_features`, such as the common Inception network for FID, is called with it.
    """

    batch = 64

    def __init__(self, path: Path, device: str = "cpu") -> None:
        self.model, self.device = _program(path, device), device
        arguments = {argument.name for argument in self.model._c._get_method("forward").schema.arguments}
        self.kwargs = {"return_features": True} if "return_features" in arguments else {}
        self.name = f"{path.name}@{digest([path])[:4]}"

    def _features(self, images: Pixels) -> Tensor:
        color_images = images.repeat(3 // images.shape[1], axis=1)
        found: Tensor = self.model(torch.from_numpy(color_images).to(self.device), **self.kwargs)
        return found


def extractor(path: str | Path, *, device: str = "cpu") -> Extractor:
    """Load the extractor at a path; raise ExtractorError or CheckpointError if there is none."""
    path = Path(path)
    if checkpoint.ModelFolder(path).has(checkpoint.DOCUMENT):
        return ModelExtractor(load(path, device=device))
    if (path / CONFIG).exists():
        return _BackboneExtractor(path, device)
    if path.is_file() and path.suffix.lower() in TORCHSCRIPT:
        return _TorchScriptExtractor(path, device)
    problem = "no such file or folder" if not path.exists() else "not an extractor"
    raise ExtractorError(f"{path}: {problem}; {KINDS}")


def resized(images: Pixels, format: ImageFormat) -> Pixels:
    """Convert uint8 images (N, C, H, W) to a format, (N, C', H', W'); images of that shape stay bit for bit as they are."""
    if images.shape[1:] == format.shape:
        return images
    return np.stack([read_image(image.transpose(1, 2, 0), format) for image in images])


def _program(path: Path, device: str) -> torch.jit.ScriptModule:
    try:
        with warnings.catch_warnings():
            # torch.jit is deprecated, but TorchScript files remain common.
            warnings.simplefilter("ignore", DeprecationWarning)
            program: torch.jit.ScriptModule = torch.jit.load(path, map_location=device)  # type: ignore[no-untyped-call]
            return program.eval()
    except RuntimeError:
        raise ExtractorError(
            f"{path} is no TorchScript program; expected a file of torch.jit.save, not weights alone"
        ) from None


def _last_line(error: Exception) -> str:
    return str(error).strip().rpartition("\n")[2]
