"""Serialization: a predictor as a model folder of tensors and one JSON document, and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from likely import checkpoint, models
from likely.base import STORED, GenerativeModel, Task
from likely.classifier.predictor import Predictor
from likely.data.preprocessing import ImageFormat
from likely.exceptions import CheckpointError
from likely.features.feature_decoder import DecoderOptions, FeatureDecoder
from likely.features.feature_extraction import FeaturePipeline
from likely.inference.decision import DecisionRule
from likely.prediction import CalibrationMethod
from likely.training.device import select_device, to_device
from likely.training.options import TrainingOptions
from likely.training.state import add_prefix, strip_prefix

_EXEMPLARS = ("exemplars/values", "exemplars/labels")


def save(predictor: Predictor, folder: str | Path, *, extra: Mapping[str, Any] | None = None) -> Predictor:
    """Write model.safetensors and model.json, with the fields `extra` in the latter; return the predictor with its new id."""
    folder = Path(folder)
    tensors, document = _to_state(predictor)
    name = folder.resolve().name
    digest = checkpoint.save(folder, tensors, {**document, "name": name, **(extra or {})})
    return replace(predictor, id=f"{name}@{digest}")


def load(folder: str | Path, *, device: str = "cpu", trust: checkpoint.TrustPolicy | None = None) -> Predictor:
    """Read a model folder that the policy trusts; CheckpointError if it is missing, damaged or of another version."""
    tensors, document = checkpoint.load(Path(folder), trust)
    path = Path(folder) / checkpoint.DOCUMENT
    try:
        return _from_state(tensors, document, path, select_device(device))
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(
            f"{path} describes another model than {checkpoint.TENSORS} holds ({_first_lines(error)}); copy it again, or "
            "open it with the version of Likely that wrote it"
        ) from error


def _to_state(predictor: Predictor) -> tuple[dict[str, Tensor], dict[str, Any]]:
    model, features, decoder = predictor.model, predictor.features, predictor.feature_decoder
    tensors = add_prefix("model", model.state_dict()) | predictor.decision_rule.tensors()
    tensors |= {"hashes": torch.from_numpy(predictor.hashes), "log_prior": predictor.log_prior}
    tensors |= add_prefix("features", features.state_dict()) if features is not None else {}
    tensors |= add_prefix("feature_decoder", decoder.to_state()) if decoder is not None else {}
    tensors |= dict(zip(_EXEMPLARS, predictor.exemplars, strict=True)) if predictor.exemplars is not None else {}
    return tensors, {
        "family": predictor.family,
        "likelihood_kind": str(model.likelihood_type) if isinstance(model, GenerativeModel) else None,
        "classes": predictor.classes.tolist(),
        "classes_dtype": predictor.classes.dtype.str,
        "images": predictor.format.model_dump() if predictor.format else None,
        "features": features.to_config() if features is not None else None,
        "feature_decoder": decoder.options.model_dump() if decoder is not None else None,
        "task": {"shape": model.task.shape, "class_counts": model.task.class_counts},
        "temperature": predictor.decision_rule.temperature,
        "calibration": predictor.decision_rule.method,
        "image_calibration": predictor.decision_rule.image_method,
        "score_temperature": predictor.decision_rule.score_temperature,
        "seed": predictor.seed,
        "options": model.options.model_dump(),
        "training": predictor.training.model_dump(),
    }


def _from_state(
    tensors: Mapping[str, Tensor], document: Mapping[str, Any], path: Path, device: torch.device
) -> Predictor:
    family = models.family(document["family"])
    options = family.options_type.from_stored(document["options"], f"{path}: options", context={STORED: True})
    model = family(Task(tuple(document["task"]["shape"]), tuple(document["task"]["class_counts"])), options)
    model.load_state_dict(strip_prefix("model", tensors))
    decoder = _feature_decoder(tensors, document["feature_decoder"], path)
    features = _features(tensors, document["features"], path)
    predictor = Predictor(
        model=to_device(model.eval(), device),
        family=document["family"],
        format=ImageFormat.from_stored(document["images"], f"{path}: images")
        if document["images"] is not None
        else None,
        classes=np.asarray(document["classes"], dtype=document["classes_dtype"]),
        log_prior=tensors["log_prior"],
        decision_rule=_decision_rule(tensors, document),
        features=None if features is None else to_device(features.eval(), device),
        training=TrainingOptions.from_stored(document["training"], f"{path}: training"),
        seed=document["seed"],
        hashes=tensors["hashes"].numpy(),
        exemplars=(tensors[_EXEMPLARS[0]], tensors[_EXEMPLARS[1]]) if _EXEMPLARS[0] in tensors else None,
        feature_decoder=None if decoder is None else to_device(decoder.eval(), device),
        id=f"{document['name']}@{document['sha256'][:4]}",
    )
    _require_consistent(predictor, document["classes"])
    return predictor


def _decision_rule(tensors: Mapping[str, Tensor], document: Mapping[str, Any]) -> DecisionRule:
    """Restore the rule; the p-values of images may have been calibrated again, and the posterior may have a new temperature."""
    rule = DecisionRule.from_tensors(
        tensors, float(document["temperature"]), CalibrationMethod(document["calibration"])
    )
    return replace(
        rule,
        score_temperature=float(document.get("score_temperature", rule.score_temperature)),
        image_method=CalibrationMethod(document.get("image_calibration", rule.image_method)),
    )


def _first_lines(error: Exception) -> str:
    """Return the first two lines of a message; PyTorch lists each tensor that does not fit."""
    return " ".join(str(error).split("\n")[:2])


def _require_consistent(predictor: Predictor, classes: list[Any]) -> None:
    """Raise ValueError unless the fields of model.json agree with each other and with the tensors."""
    task, format = predictor.model.task, predictor.format
    lengths = {"classes": len(classes), "task.class_counts": task.n_classes, "log_prior": len(predictor.log_prior)}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"lengths differ: {lengths}")
    if predictor.classes.tolist() != classes:
        raise ValueError(f"classes_dtype {predictor.classes.dtype.str} cannot hold the classes")
    if (format is None) != (predictor.features is None and len(task.shape) == 1):
        raise ValueError("images and features do not fit to task.shape")
    if format is not None and predictor.features is None and format.shape != task.shape:
        raise ValueError(f"images are {format.shape} and task.shape is {task.shape}")


def _features(tensors: Mapping[str, Tensor], config: Mapping[str, Any] | None, path: Path) -> FeaturePipeline | None:
    if config is None:
        return None
    return FeaturePipeline.from_config(config, strip_prefix("features", tensors), f"{path}: features")


def _feature_decoder(
    tensors: Mapping[str, Tensor], config: Mapping[str, Any] | None, path: Path
) -> FeatureDecoder | None:
    if config is None:
        return None
    options = DecoderOptions.from_stored(config, f"{path}: feature_decoder", context={STORED: True})
    return FeatureDecoder.from_state(options, strip_prefix("feature_decoder", tensors))
