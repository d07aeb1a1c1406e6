"""A fitted classifier as tensors and one JSON document, and back: what a model folder holds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from likely import models
from likely.checkpoint import CheckpointError
from likely.classifier.featuring import Features
from likely.contract import STORED, GenerativeModel, Task
from likely.data.images import ImageFormat
from likely.inference.judgement import Judge
from likely.models.artist import Artist, ArtistOptions
from likely.nets.features import FeatureOptions
from likely.training import hardware
from likely.training.options import TrainingOptions
from likely.training.state import prefixed, under

if TYPE_CHECKING:
    from likely.classifier.classifier import BayesClassifier

C = TypeVar("C", bound="BayesClassifier")
Tensors = dict[str, Tensor]
REMEMBERED = ("remembered/values", "remembered/labels")


def taken_apart(classifier: BayesClassifier) -> tuple[Tensors, dict[str, Any]]:
    """Everything that the classifier's answers depend on."""
    model = classifier.model_
    tensors = prefixed("model", model.state_dict()) | classifier.judge_.tensors()
    tensors |= {"hashes": torch.from_numpy(classifier.hashes_), "log_prior": classifier.log_prior_}
    features = classifier.features_
    tensors |= prefixed("features", features.state_dict()) if features is not None else {}
    artist = classifier.artist
    tensors |= prefixed("artist", artist.finished()) if artist is not None else {}
    if classifier.remembered_ is not None:
        tensors |= dict(zip(REMEMBERED, classifier.remembered_, strict=True))
    return tensors, {
        "family": classifier.family,
        "evidence": str(model.evidence) if isinstance(model, GenerativeModel) else None,
        "classes": classifier.classes_.tolist(),
        "classes_dtype": classifier.classes_.dtype.str,
        "images": classifier.format_.model_dump() if classifier.format_ else None,
        "features": features.document() if features is not None else None,
        "artist": artist.options.model_dump() if artist is not None else None,
        "task": {"shape": model.task.shape, "class_counts": model.task.class_counts},
        "temperature": classifier.judge_.temperature,
        "seed": classifier.seed,
        "options": model.options.model_dump(),
        "training": classifier.training_.model_dump(),
    }


def put_together(kind: type[C], tensors: Mapping[str, Tensor], document: Mapping[str, Any], device: str) -> C:
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
        model.load_state_dict(under("model", tensors))
        if document.get("artist") is not None:
            self.artist_ = _artist(tensors, document, device)
    except RuntimeError as error:  # other names or shapes than this version's
        raise CheckpointError(
            f"model {document['name']} holds other weights than a {document['family']} of this version has; open it with the "
            "version of Likely that wrote it, or train it anew with `likely train`"
        ) from error
    self.model_ = hardware.placed(model.eval(), hardware.device(device))
    self.judge_ = Judge.from_tensors(tensors, document["temperature"])
    self.remembered_ = (tensors[REMEMBERED[0]], tensors[REMEMBERED[1]]) if REMEMBERED[0] in tensors else None
    self.hashes_, self.log_prior_ = tensors["hashes"].numpy(), tensors["log_prior"]
    self.id_ = f"{document['name']}@{document['sha256'][:4]}"
    return self


def _features(tensors: Mapping[str, Tensor], document: Mapping[str, Any], device: str) -> Features | None:
    said = document.get("features")
    if said is None:
        return None
    return hardware.placed(Features.rebuilt(said, under("features", tensors)).eval(), hardware.device(device))


def _artist(tensors: Mapping[str, Tensor], document: Mapping[str, Any], device: str) -> Artist:
    options = ArtistOptions.model_validate(document["artist"], context={STORED: True})
    return hardware.placed(Artist.restored(options, under("artist", tensors)).eval(), hardware.device(device))
