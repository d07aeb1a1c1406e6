"""Models on disk: numbers in safetensors, words in JSON, nothing that is ever executed; signed and sealed if asked."""

from likely.checkpoint.model_folder import ModelFolder, TrustPolicy, decrypt, encrypt, is_encrypted
from likely.checkpoint.serialization import (
    DOCUMENT,
    FORMAT_VERSION,
    TENSORS,
    load,
    read_document,
    read_tensors,
    save,
    write_tensors,
    write_text,
)
from likely.exceptions import CheckpointError

__all__ = [
    "DOCUMENT",
    "FORMAT_VERSION",
    "TENSORS",
    "CheckpointError",
    "ModelFolder",
    "TrustPolicy",
    "decrypt",
    "encrypt",
    "is_encrypted",
    "load",
    "read_document",
    "read_tensors",
    "save",
    "write_tensors",
    "write_text",
]
