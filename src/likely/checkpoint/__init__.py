"""Model folders: weights in safetensors, metadata in JSON, no executable code; optionally signed and encrypted."""

from likely.checkpoint.atomic_write import write_atomically
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
    "write_atomically",
    "write_tensors",
]
