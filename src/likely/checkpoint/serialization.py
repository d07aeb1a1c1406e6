"""Serialization of models: model.safetensors for tensors and model.json for everything else, without executable code."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

from pydantic import ConfigDict, Field
from safetensors import SafetensorError, safe_open

from likely.checkpoint.atomic_write import write_atomically
from likely.checkpoint.model_folder import ModelFolder, TrustPolicy
from likely.exceptions import CheckpointError
from likely.options import Options

if TYPE_CHECKING:
    from torch import Tensor

FORMAT_VERSION = 8
TENSORS, DOCUMENT = "model.safetensors", "model.json"
Json: TypeAlias = dict[str, Any]


class _Stored(Options):
    model_config = ConfigDict(strict=True)


class _TaskFields(_Stored):
    shape: list[Annotated[int, Field(ge=1)]] = Field(min_length=1, max_length=3)
    class_counts: list[Annotated[int, Field(ge=0)]] = Field(min_length=1)


class _FeatureFields(_Stored):
    map: Json
    options: Json


class _DocumentFields(_Stored):
    """Fields of model.json; the objects that other modules write are validated where they are read."""

    format_version: int
    sha256: str
    name: str
    family: str
    likelihood_kind: str | None
    classes: list[str | int | float | bool] = Field(min_length=1)
    classes_dtype: str
    images: Json | None
    features: _FeatureFields | None
    feature_decoder: Json | None
    task: _TaskFields
    temperature: float = Field(gt=0, le=1e12, allow_inf_nan=False)
    calibration: str
    image_calibration: str = ""
    score_temperature: float = Field(1.0, gt=0, le=1e12, allow_inf_nan=False)
    seed: int = Field(ge=0)
    options: Json
    training: Json
    run: Json | None = None
    record: Json | None = None


def save(folder: Path, tensors: Mapping[str, Tensor], document: Mapping[str, Any]) -> str:
    """Write a model's tensors and document atomically; return the first 4 hexadecimal digits of the tensors' SHA-256."""
    folder.mkdir(parents=True, exist_ok=True)
    write_tensors(folder / TENSORS, tensors)
    digest = hashlib.sha256((folder / TENSORS).read_bytes()).hexdigest()
    whole = {"format_version": FORMAT_VERSION, "sha256": digest, **document}
    write_atomically(folder / DOCUMENT, json.dumps(whole, indent=2, ensure_ascii=False).encode() + b"\n")
    return digest[:4]


def load(folder: Path, trust: TrustPolicy | None = None) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read the tensors and the document of a model folder; raise CheckpointError."""
    from safetensors.torch import load as parse  # imports torch, which signing and the store do not need

    files = ModelFolder(folder, trust)
    document = _document(files)
    if not files.has(TENSORS):
        raise CheckpointError(f"{folder / TENSORS} is missing; copy the model folder again, whole")
    content = files.read(TENSORS)
    # A crash between writing the two files, or a bad copy, must not pass for a model.
    if hashlib.sha256(content).hexdigest() != document.get("sha256"):
        raise CheckpointError(
            f"{folder / TENSORS} is not the file that {folder / DOCUMENT} describes; copy the model folder again, whole"
        )
    try:
        return parse(content), document
    except (SafetensorError, ValueError) as error:
        raise CheckpointError(
            f"{folder / TENSORS} cannot be read ({error}); copy the model folder again, whole"
        ) from None


def read_document(folder: Path, trust: TrustPolicy | None = None, *, of_any_version: bool = False) -> dict[str, Any]:
    """Read model.json; raise CheckpointError for an unsupported format_version, unless `of_any_version`."""
    return _document(ModelFolder(folder, trust), of_any_version=of_any_version)


def _document(files: ModelFolder, *, of_any_version: bool = False) -> dict[str, Any]:
    folder = files.path
    if not files.has(DOCUMENT):
        raise CheckpointError(_no_model(folder))
    document = _parse(files.read(DOCUMENT), folder / DOCUMENT)
    if not of_any_version:
        if (version := document.get("format_version")) != FORMAT_VERSION:
            raise CheckpointError(_other_version(folder, version))
        _DocumentFields.from_stored(document, folder / DOCUMENT)
    return document


def write_tensors(path: Path, tensors: Mapping[str, Tensor], document: Mapping[str, Any] | None = None) -> None:
    """Write a safetensors file atomically, with an optional JSON document in its header."""
    from safetensors.torch import save as serialize

    metadata = {"document": json.dumps(document)} if document is not None else None
    # save_file would create a file that only its owner can read.
    write_atomically(
        path, serialize({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, metadata)
    )


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read the tensors and the document of a file by `write_tensors`; raise CheckpointError."""
    try:
        with safe_open(path, framework="pt") as file:
            document = _parse((file.metadata() or {}).get("document", "{}"), path)
            return {name: file.get_tensor(name) for name in file.keys()}, document  # noqa: SIM118 (not a dict)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} cannot be read ({error})") from None


def _parse(text: str | bytes, path: Path) -> dict[str, Any]:
    """Parse a JSON object; raise CheckpointError naming the file."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:  # among them UnicodeDecodeError
        raise CheckpointError(f"{path} is damaged ({error}); copy the model folder again, whole") from None
    if not isinstance(document, dict):
        raise CheckpointError(
            f"{path} holds {type(document).__name__} and not an object; copy the model folder again, whole"
        )
    return document


def _no_model(folder: Path) -> str:
    if not folder.exists():
        return f"there is no folder {folder}; a model is the folder that `likely train DATA --out {folder}` writes"
    return f"{folder} holds no {DOCUMENT}; `likely train DATA --out {folder}` writes one"


def _other_version(folder: Path, version: object) -> str:
    if isinstance(version, int) and version > FORMAT_VERSION:
        return (
            f"{folder} was written in model format {version}, newer than the {FORMAT_VERSION} that this version reads; "
            "upgrade with `pip install --upgrade likely`"
        )
    return (
        f"{folder / DOCUMENT} says format_version {version!r}, and this version reads {FORMAT_VERSION}; "
        "train the model again with `likely train`, or load it with the version of Likely that wrote it"
    )
