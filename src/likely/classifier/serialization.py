"""A fitted classifier as tensors and one JSON document, and back: what a model folder holds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from likely import models
from likely.base import STORED, GenerativeModel, Task
from likely.data.preprocessing import ImageFormat
from likely.exceptions import CheckpointError
from likely.features.feature_decoder import DecoderOptions, FeatureDecoder
from likely.features.feature_extraction import FeaturePipeline
from likely.features.feature_extractors import FeatureOptions
from likely.inference.decision import ConformalClassifier
from likely.training.device import select_device, to_device
from likely.training.options import TrainingOptions
from likely.training.state import add_prefix, strip_prefix

if TYPE_CHECKING:
    from likely.classifier.predictor import Predictor

C = TypeVar("C", bound="Predictor")
Tensors = dict[str, Tensor]
EXEMPLARS = ("remembered/values", "remembered/labels")


def to_state(classifier: Predictor) -> tuple[Tensors, dict[str, Any]]:
    """Everything that the classifier's answers depend on."""
    model = classifier.model_
    tensors = add_prefix("model", model.state_dict()) | classifier.conformal_.tensors()
    tensors |= {"hashes": torch.from_numpy(classifier.hashes_), "log_prior": classifier.log_prior_}
    features = classifier.features_
    tensors |= add_prefix("features", features.state_dict()) if features is not None else {}
    artist = classifier.feature_decoder
    tensors |= add_prefix("artist", artist.to_state()) if artist is not None else {}
    if classifier.exemplars_ is not None:
        tensors |= dict(zip(EXEMPLARS, classifier.exemplars_, strict=True))
    return tensors, {
        "family": classifier.family,
        "likelihood_kind": str(model.likelihood_type) if isinstance(model, GenerativeModel) else None,
        "classes": classifier.classes_.tolist(),
        "classes_dtype": classifier.classes_.dtype.str,
        "images": classifier.format_.model_dump() if classifier.format_ else None,
        "features": features.to_config() if features is not None else None,
        "artist": artist.options.model_dump() if artist is not None else None,
        "task": {"shape": model.task.shape, "class_counts": model.task.class_counts},
        "temperature": classifier.conformal_.temperature,
        "seed": classifier.seed,
        "options": model.options.model_dump(),
        "training": classifier.training_.model_dump(),
    }


def from_state(kind: type[C], tensors: Mapping[str, Tensor], document: Mapping[str, Any], device: str) -> C:
    """The classifier that was taken apart; a CheckpointError if this version's family has other weights."""
    family = models.family(document["family"])
    options = family.options_type.model_validate(document["options"], context={STORED: True})
    training = TrainingOptions.model_validate(document["training"])
    format = ImageFormat.model_validate(document["images"]) if document["images"] else None
    asked: dict[str, Any] = {"options": options, "training": training, "images": format and format.options}
    if document.get("features") is not None:
        asked["features"] = FeatureOptions.model_validate(document["features"]["options"])
    self = kind(document["family"], **asked, random_state=document["seed"])
    self.training_, self.format_ = training, format
    self.classes_ = np.asarray(document["classes"], dtype=document["classes_dtype"])
    self.features_ = _features(tensors, document, device)
    if self.format_ is None:
        self.n_features_in_ = document["task"]["shape"][0]
    model = family(Task(tuple(document["task"]["shape"]), tuple(document["task"]["class_counts"])), options)
    try:
        model.load_state_dict(strip_prefix("model", tensors))
        if document.get("artist") is not None:
            self.feature_decoder_ = _feature_decoder(tensors, document, device)
    except RuntimeError as error:  # other names or shapes than this version's
        raise CheckpointError(
            f"model {document['name']} holds other weights than a {document['family']} of this version has; open it with the "
            "version of Likely that wrote it, or train it anew with `likely train`"
        ) from error
    self.model_ = to_device(model.eval(), select_device(device))
    self.conformal_ = ConformalClassifier.from_tensors(tensors, document["temperature"])
    self.exemplars_ = (tensors[EXEMPLARS[0]], tensors[EXEMPLARS[1]]) if EXEMPLARS[0] in tensors else None
    self.hashes_, self.log_prior_ = tensors["hashes"].numpy(), tensors["log_prior"]
    self.id_ = f"{document['name']}@{document['sha256'][:4]}"
    return self


def _features(tensors: Mapping[str, Tensor], document: Mapping[str, Any], device: str) -> FeaturePipeline | None:
    said = document.get("features")
    if said is None:
        return None
    return to_device(FeaturePipeline.from_config(said, strip_prefix("features", tensors)).eval(), select_device(device))


def _feature_decoder(tensors: Mapping[str, Tensor], document: Mapping[str, Any], device: str) -> FeatureDecoder:
    options = DecoderOptions.model_validate(document["artist"], context={STORED: True})
    return to_device(FeatureDecoder.from_state(options, strip_prefix("artist", tensors)).eval(), select_device(device))
