"""Authenticated encryption of files with AES-256-GCM (NIST SP 800-38D).

An encrypted file consists of MAGIC, the key id (8 bytes), a nonce (12 bytes), and the ciphertext with its tag (16 bytes). The
file's name and all bytes before the ciphertext are authenticated as well.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from likely.checkpoint.signing import MISSING_PACKAGE, write_secret
from likely.exceptions import CheckpointError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

SUFFIX = ".enc"
# Variables with key files or keys in base64, separated by the system's path separator; the first key encrypts.
KEY_VARIABLE, IMAGE_KEY_VARIABLE = "LIKELY_MODEL_KEY", "LIKELY_IMAGE_KEY"
MAGIC = b"likely-encrypted-1\n"
_N_KEY, _N_ID, _N_NONCE, _N_TAG = 32, 8, 12, 16


class Keyring:
    """Secret keys: the first encrypts, any of them decrypts, so that keys can be rotated."""

    def __init__(self, secrets: Iterable[bytes] = ()) -> None:
        self._by_id = {_id_of(secret): secret for secret in secrets}

    @classmethod
    def from_files(cls, paths: Iterable[Path]) -> Keyring:
        """Read keys of 32 bytes in base64 from files; raise CheckpointError for an invalid one."""
        return cls(_read(path) for path in paths)

    @classmethod
    def from_environment(cls, variable: str = KEY_VARIABLE) -> Keyring:
        """Read keys from an environment variable with key files or keys in base64; no keys if it is unset."""
        words = [word for word in os.environ.get(variable, "").split(os.pathsep) if word]
        if not all(
            _secret(word.encode()) or Path(word).is_file() for word in words
        ):  # a mistyped key must not be printed
            raise CheckpointError(f"{variable} is not valid; a key file or {_N_KEY} bytes in base64 were expected")
        return cls(_secret(word.encode()) or _read(Path(word)) for word in words)

    def __bool__(self) -> bool:
        return bool(self._by_id)

    def encrypt(self, content: bytes, name: str) -> bytes:
        """Encrypt a file's content, bound to its name."""
        id, secret = next(iter(self._by_id.items()))
        head = MAGIC + id + os.urandom(_N_NONCE)
        return head + _cipher(secret).encrypt(head[-_N_NONCE:], content, head + name.encode())

    def decrypt(self, encrypted: bytes, name: str) -> bytes:
        """Decrypt a file's content; raise CheckpointError if the key is missing or the file or its name was changed."""
        n = len(MAGIC) + _N_ID + _N_NONCE
        head, id = encrypted[:n], encrypted[len(MAGIC) : len(MAGIC) + _N_ID]
        if len(encrypted) < n + _N_TAG or not encrypted.startswith(MAGIC):
            raise CheckpointError(f"{name} is not an encrypted file or is truncated; nothing was read")
        if not self:
            raise CheckpointError(f"{name} is encrypted; {KEY_VARIABLE} with its key was expected")
        if id not in self._by_id:
            raise CheckpointError(f"{name} was encrypted with another key; nothing was read")
        from cryptography.exceptions import InvalidTag

        try:
            return _cipher(self._by_id[id]).decrypt(head[-_N_NONCE:], encrypted[n:], head + name.encode())
        except InvalidTag:
            raise CheckpointError(f"{name} was changed since its encryption; nothing was read") from None


def new_key(path: Path) -> None:
    """Write a new key to a file that only its owner can read."""
    write_secret(path, base64.b64encode(os.urandom(_N_KEY)) + b"\n")


def _secret(text: bytes) -> bytes | None:
    """Decode a key in base64; return None for an invalid one."""
    try:
        secret = base64.b64decode(text.strip(), validate=True)
    except binascii.Error:
        return None
    return secret if len(secret) == _N_KEY else None


def _read(path: Path) -> bytes:
    secret = _secret(path.read_bytes())
    if secret is None:
        raise CheckpointError(
            f"{path} holds no key; {_N_KEY} bytes in base64 were expected, as `likely encrypt --new-key` writes"
        )
    return secret


def _id_of(secret: bytes) -> bytes:
    return hashlib.sha256(b"likely key id" + secret).digest()[:_N_ID]


def _cipher(secret: bytes) -> AESGCM:
    try:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    except ImportError:
        raise CheckpointError(MISSING_PACKAGE) from None
    return AESGCM(secret)
