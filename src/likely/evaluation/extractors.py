"""Extractors: what turns images into the features that fidelity is measured in, each with a name that tells which it is.

Figures of two extractors have nothing to do with each other, so an extractor's name carries a hash of its weights.
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
from likely.base import HasFeatures
from likely.classifier import Predictor
from likely.data.image_dataset import ImageDataset, InMemoryImages
from likely.data.preprocessing import ImageFormat, read_image
from likely.evaluation.metrics import Floats
from likely.exceptions import BackboneError, ExtractorError
from likely.features.backbone import CONFIG, Backbone, digest
from likely.networks.pixel_scaling import to_unit

TORCHSCRIPT = (".pt", ".pth", ".ts", ".torchscript", ".jit")
KINDS = (
    f"a model folder of Likely ({checkpoint.DOCUMENT}), a folder of a pretrained backbone ({CONFIG} and *.safetensors) "
    f"or a TorchScript file ({', '.join(TORCHSCRIPT)}) was expected"
)
# What a network that somebody else wrote may raise when it is shown images that it was not made for.
FAILURES = (AttributeError, LookupError, RuntimeError, TypeError, ValueError, torch.jit.Error)
Pixels = NDArray[np.uint8]


class Extractor(ABC):
    """Images to features; `name` says which extractor it is, with the first digits of its weights' hash."""

    name: str
    batch: ClassVar[int] = 256  # images that go through together

    def __call__(self, images: Pixels) -> NDArray[np.float32]:
        """uint8 (N, C, H, W) of any size, gray or color -> (N, F)."""
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1] not in (1, 3) or not len(images):
            raise ExtractorError(
                f"images of the shape {images.shape} and the type {images.dtype} were given; "
                "at least one image, uint8 (N, 1|3, height, width), was expected"
            )
        return np.concatenate([self._checked(images[i : i + self.batch]) for i in range(0, len(images), self.batch)])

    def features(self, images: ImageDataset) -> NDArray[np.float32]:
        """The same for a collection, of which no more than a batch is decoded at a time."""
        blocks = (np.arange(i, min(i + self.batch, len(images))) for i in range(0, len(images), self.batch))
        return np.concatenate([self(images.batch(block).numpy()) for block in blocks])

    @abstractmethod
    def _features(self, images: Pixels) -> Tensor:
        """One batch: uint8 (B, C, H, W) -> (B, F)."""

    @torch.inference_mode()
    def _checked(self, images: Pixels) -> NDArray[np.float32]:
        try:
            found: object = self._features(images.copy())  # torch warns of arrays that are not its to write on
        except FAILURES as error:
            raise ExtractorError(
                f"{self.name} fails on uint8 images of the shape {images.shape}: {_last_line(error)}"
            ) from error
        shape = tuple(found.shape) if isinstance(found, Tensor) else ()
        if not isinstance(found, Tensor) or len(shape) < 2 or shape != (len(images), shape[1], *(1 for _ in shape[2:])):
            given = f"the shape {shape}" if isinstance(found, Tensor) else f"a {type(found).__name__}"
            raise ExtractorError(f"{self.name} gives {given} for {len(images)} images; (images, features) was expected")
        if not found.isfinite().all():
            raise ExtractorError(f"{self.name} gives features that are no numbers (NaN or infinite)")
        return found.flatten(1).float().cpu().numpy()


class ModelExtractor(Extractor):
    """The features of a model of Likely; as it is a classifier as well, it is also a judge of its classes."""

    def __init__(self, classifier: Predictor) -> None:
        if not isinstance(classifier.model_, HasFeatures):
            raise ExtractorError(f"a {classifier.family!r} model has no features to measure in; a 'softmax' one has")
        if classifier.format_ is None:
            raise ExtractorError("the model was trained on vectors; a model of images was expected")
        self.classifier, self.model, self.format = classifier, classifier.model_, classifier.format_
        self.name = classifier.id or f"unsaved {classifier.family}"

    @property
    def id(self) -> str:
        """Its name, as a judge."""
        return self.name

    @property
    def labels(self) -> tuple[str, ...]:
        """The classes that it tells apart."""
        return self.classifier.labels

    def log_posterior(self, images: ImageDataset) -> Floats:
        """log p(c | x), (N, K), of images that need not have the model's own size and color."""
        blocks = (np.arange(i, min(i + self.batch, len(images))) for i in range(0, len(images), self.batch))
        return np.concatenate([self._log_posterior(images.batch(block).numpy()) for block in blocks])

    def _log_posterior(self, images: Pixels) -> Floats:
        return self.classifier.log_posterior(InMemoryImages(resized(images, self.format), str))

    def _features(self, images: Pixels) -> Tensor:
        x = to_unit(torch.from_numpy(resized(images, self.format)).to(self.classifier.device))
        return self.model.features(x.contiguous(memory_format=torch.channels_last))


class BackboneExtractor(Extractor):
    """The mean over the last map of a pretrained network, which sees each image whole, stretched to its own square."""

    batch = 32  # of images this large

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


class TorchScriptExtractor(Extractor):
    """A program that the user supplies: color images as they are, uint8 (B, 3, H, W), to features (B, F).

    It resizes as it needs. One with an option `return_features`, as the Inception network for FIDs is passed around with,
    is asked for them.
    """

    batch = 64

    def __init__(self, path: Path, device: str = "cpu") -> None:
        self.model, self.device = _program(path, device), device
        arguments = {argument.name for argument in self.model._c._get_method("forward").schema.arguments}
        self.asked = {"return_features": True} if "return_features" in arguments else {}
        self.name = f"{path.name}@{digest([path])[:4]}"

    def _features(self, images: Pixels) -> Tensor:
        colored = images.repeat(3 // images.shape[1], axis=1)
        found: Tensor = self.model(torch.from_numpy(colored).to(self.device), **self.asked)
        return found


def extractor(path: str | Path, *, device: str = "cpu") -> Extractor:
    """The extractor that a path names, by what is there; an ExtractorError or a CheckpointError if it is none."""
    path = Path(path)
    if checkpoint.ModelFolder(path).has(checkpoint.DOCUMENT):
        return ModelExtractor(Predictor.load(path, device=device))
    if (path / CONFIG).exists():
        return BackboneExtractor(path, device)
    if path.is_file() and path.suffix.lower() in TORCHSCRIPT:
        return TorchScriptExtractor(path, device)
    what = "there is no such file or folder" if not path.exists() else "this is no extractor"
    raise ExtractorError(f"{path}: {what}; {KINDS}")


def resized(images: Pixels, format: ImageFormat) -> Pixels:
    """uint8 (N, C, H, W) in the format, (N, C', H', W'); those that are in it already stay as they are, bit for bit."""
    if images.shape[1:] == format.shape:
        return images
    return np.stack([read_image(image.transpose(1, 2, 0), format) for image in images])


def _program(path: Path, device: str) -> torch.jit.ScriptModule:
    try:
        with warnings.catch_warnings():
            # torch would have people export programs in another form; this is the one that they have on disk.
            warnings.simplefilter("ignore", DeprecationWarning)
            program: torch.jit.ScriptModule = torch.jit.load(path, map_location=device)  # type: ignore[no-untyped-call]
            return program.eval()
    except RuntimeError:
        raise ExtractorError(
            f"{path} holds no TorchScript program; one that torch.jit.save wrote was expected, not weights alone"
        ) from None


def _last_line(error: Exception) -> str:
    return str(error).strip().rpartition("\n")[2]
