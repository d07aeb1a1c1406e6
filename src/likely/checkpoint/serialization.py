"""A model on disk: model.safetensors for the numbers, model.json for the words. Nothing in either is ever executed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open

from likely.checkpoint.atomic_write import write_atomically
from likely.checkpoint.model_folder import ModelFolder, TrustPolicy
from likely.exceptions import CheckpointError

if TYPE_CHECKING:
    from torch import Tensor

FORMAT_VERSION = 5
TENSORS, DOCUMENT = "model.safetensors", "model.json"


def save(folder: Path, tensors: Mapping[str, Tensor], document: Mapping[str, Any]) -> str:
    """Write a model's tensors and document; returns the first hexadecimal digits of the tensors' hash.

    Each file is complete at any moment: it is written beside its place and moved there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_tensors(folder / TENSORS, tensors)
    digest = hashlib.sha256((folder / TENSORS).read_bytes()).hexdigest()
    whole = {"format_version": FORMAT_VERSION, "sha256": digest, **document}
    write_text(folder / DOCUMENT, json.dumps(whole, indent=2, ensure_ascii=False) + "\n")
    return digest[:4]


def load(folder: Path, trust: TrustPolicy | None = None) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and the document of a model folder; a CheckpointError says what is wrong with it and what to do."""
    from safetensors.torch import load as parsed  # brings torch, which a signature or a store can do without

    files = ModelFolder(folder, trust)
    document = _document(files)
    if not files.has(TENSORS):
        raise CheckpointError(f"{folder / TENSORS} is missing; copy the model folder again, whole")
    content = files.read(TENSORS)
    # The two files belong together: a crash between their writing, or a bad copy, must not answer for the model.
    if hashlib.sha256(content).hexdigest() != document.get("sha256"):
        raise CheckpointError(
            f"{folder / TENSORS} is not the file that {folder / DOCUMENT} describes; copy the model folder again, whole"
        )
    try:
        return parsed(content), document
    except (SafetensorError, ValueError) as error:
        raise CheckpointError(
            f"{folder / TENSORS} cannot be read ({error}); copy the model folder again, whole"
        ) from None


def read_document(folder: Path, trust: TrustPolicy | None = None, *, of_any_version: bool = False) -> dict[str, Any]:
    """model.json alone, its format_version checked unless it may be `of_any_version`."""
    return _document(ModelFolder(folder, trust), of_any_version=of_any_version)


def _document(files: ModelFolder, *, of_any_version: bool = False) -> dict[str, Any]:
    folder = files.path
    if not files.has(DOCUMENT):
        raise CheckpointError(_no_model(folder))
    try:
        document = json.loads(files.read(DOCUMENT))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{folder / DOCUMENT} is damaged ({error}); copy the model folder again, whole") from None
    version = document.get("format_version") if isinstance(document, dict) else None
    if version != FORMAT_VERSION and not of_any_version:
        raise CheckpointError(_other_version(folder, version))
    return dict(document)


def write_tensors(path: Path, tensors: Mapping[str, Tensor], document: Mapping[str, Any] | None = None) -> None:
    """One safetensors file, with a JSON document in its header if there is one, moved into place when complete."""
    from safetensors.torch import save as serialized

    metadata = {"document": json.dumps(document)} if document is not None else None
    # As bytes through open(): save_file would leave a file that no one else may read.
    write_atomically(
        path, serialized({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, metadata)
    )


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """What `write_tensors` wrote: the tensors and the document."""
    try:
        with safe_open(path, framework="pt") as file:
            document = json.loads((file.metadata() or {}).get("document", "{}"))
            return {name: file.get_tensor(name) for name in file.keys()}, document  # noqa: SIM118 (not a dict)
    except (SafetensorError, OSError, json.JSONDecodeError) as error:
        raise CheckpointError(f"{path} cannot be read ({error})") from None


def write_text(path: Path, text: str) -> None:
    """A text file that is complete at any moment."""
    write_atomically(path, text.encode())


def _no_model(folder: Path) -> str:
    if not folder.exists():
        return f"there is no folder {folder}; a model is the folder that `likely train DATA --out {folder}` writes"
    return f"{folder} holds no {DOCUMENT}, so it is no model; `likely train DATA --out {folder}` writes one"


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
