"""Registry of the models that are served, each with the versions that are loaded."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from likely.base import HasEmbedding
from likely.checkpoint import TrustPolicy
from likely.classifier import Predictor, load
from likely.data.preprocessing import ImageFormat
from likely.evaluation.training_record import ReferencePValues, TrainingRecord, load_record
from likely.exceptions import InvalidValueError, UnknownModelError, did_you_mean
from likely.inference.projection import PCAProjection

MAX_VERSIONS = 2  # loaded versions of a model: the current one and the one before


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """Loaded version of a model."""

    folder: Path
    predictor: Predictor
    format: ImageFormat
    trust: TrustPolicy | None = None

    @property
    def id(self) -> str:
        """Name and version, such as "fashion@3f2a"."""
        assert self.predictor.id is not None
        return self.predictor.id

    @cached_property
    def projection(self) -> PCAProjection | None:
        """2-D projection of the embedding, if the model has one."""
        model = self.predictor.model
        return PCAProjection.fit(model.class_embeddings().cpu()) if isinstance(model, HasEmbedding) else None

    @cached_property
    def record(self) -> TrainingRecord | None:
        """Training record, or None if the model was saved from Python."""
        try:
            return load_record(self.folder, self.trust)
        except ValueError:  # saved from Python, or by another version
            return None

    @property
    def reference_p_values(self) -> ReferencePValues | None:
        """Distribution of p-values on validation images, if it was recorded."""
        return None if self.record is None else self.record.reference_p_values

    @property
    def n_training(self) -> Mapping[str, int]:
        """Number of training images of each class, if it was recorded."""
        counts = [] if self.record is None else self.record.counts.get("train", [])
        return dict(zip(self.predictor.labels, counts, strict=False))

    @cached_property
    def class_embeddings(self) -> Tensor:
        """Projected class embeddings, shape (K, 2)."""
        assert self.projection is not None
        assert isinstance(self.predictor.model, HasEmbedding)
        with torch.inference_mode():
            return self.projection(self.predictor.model.class_embeddings().cpu())

    @property
    def name(self) -> str:
        return self.id.rpartition("@")[0]

    @property
    def version(self) -> str:
        return self.id.rpartition("@")[2]


class ModelRegistry:
    """Models by name; requests that hold a version can finish with it while another is loaded."""

    def __init__(self, folders: Sequence[Path], device: str = "cpu", trust: TrustPolicy | None = None) -> None:
        self.device, self.trust = device, trust
        self._models: dict[str, tuple[LoadedModel, ...]] = {}  # the newest version last
        self._changing = threading.Lock()
        self.sources: dict[str, Path] = {}  # folders of the models that it started with
        for folder in folders:
            new = self.read(folder)
            self.sources[new.name] = new.folder
            self.publish(new)

    def read(self, folder: Path) -> LoadedModel:
        """Load a model folder without serving it yet."""
        classifier = load(folder, device=self.device, trust=self.trust)
        if classifier.format is None:
            raise InvalidValueError(f"{folder} was trained on vectors; a model of images was expected")
        if classifier.features is not None:
            classifier.features.extractor.prepare(classifier.format.shape)
        return LoadedModel(folder.resolve(), classifier, classifier.format, self.trust)

    def publish(self, new: LoadedModel) -> None:
        """Serve a version; the previous one remains available by its version."""
        with self._changing:
            others = tuple(each for each in self._models.get(new.name, ()) if each.version != new.version)
            self._models = {**self._models, new.name: (*others, new)[-MAX_VERSIONS:]}

    def __getitem__(self, id: str | None) -> LoadedModel:
        """Return a model by "name" (its newest version) or "name@version"; the first model for None.

        Raises UnknownModelError.
        """
        if id is None:
            return next(iter(self._models.values()))[-1]
        name, _, version = id.partition("@")
        if name not in self._models:
            raise UnknownModelError(f"there is no model {name!r}{did_you_mean(name, list(self._models))}")
        versions = self._models[name]
        found = [each for each in versions if not version or each.version == version]
        if not found:
            there = ", ".join(each.version for each in versions)
            raise UnknownModelError(f"there is no version {version!r} of {name!r}; loaded: {there}")
        return found[-1]

    @property
    def takes_signed_only(self) -> bool:
        """True if models must be signed."""
        return self.trust is not None and self.trust.signer is not None

    @property
    def models(self) -> list[LoadedModel]:
        """All versions, the newest of each model last."""
        return [each for versions in self._models.values() for each in versions]
