"""Sealed files: AES-256-GCM (NIST SP 800-38D), so that nobody without the key reads them, and nobody changes them unseen.

A sealed file is MAGIC, the key's id (8 bytes), a nonce (12), and the ciphertext with its tag (16). The file's name and all that
stands before the ciphertext are authenticated with it.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from likely.checkpoint.errors import security
from likely.checkpoint.signing import write_secret
from likely.exceptions import CheckpointError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

SUFFIX = ".enc"
# Variables of key files, or of keys in base64, with the system's path separator between; the first one seals.
ENVIRONMENT, OF_IMAGES = "LIKELY_MODEL_KEY", "LIKELY_IMAGE_KEY"
MAGIC = b"likely-sealed-1\n"
N_KEY, N_ID, N_NONCE, N_TAG = 32, 8, 12, 16


class Keyring:
    """Secret keys: the first seals, any of them opens, so that an old one can be kept while files are sealed anew."""

    def __init__(self, secrets: Iterable[bytes] = ()) -> None:
        self._by_id = {_id_of(secret): secret for secret in secrets}

    @classmethod
    def from_files(cls, paths: Iterable[Path]) -> Keyring:
        """From files of 32 bytes in base64 each; a CheckpointError names the one that is none."""
        return cls(_read(path) for path in paths)

    @classmethod
    def from_environment(cls, variable: str = ENVIRONMENT) -> Keyring:
        """From the files that a variable names, or the keys that it holds; none without it."""
        words = [word for word in os.environ.get(variable, "").split(os.pathsep) if word]
        if not all(
            _secret(word.encode()) or Path(word).is_file() for word in words
        ):  # it might be half a key: do not tell
            raise CheckpointError(f"what {variable} holds is neither a file nor a key of {N_KEY} bytes in base64")
        return cls(_secret(word.encode()) or _read(Path(word)) for word in words)

    def __bool__(self) -> bool:
        return bool(self._by_id)

    def encrypt(self, content: bytes, name: str) -> bytes:
        """A file's content, sealed under its name."""
        id, secret = next(iter(self._by_id.items()))
        head = MAGIC + id + os.urandom(N_NONCE)
        return head + _cipher(secret).encrypt(head[-N_NONCE:], content, head + name.encode())

    def decrypt(self, sealed: bytes, name: str) -> bytes:
        """What was sealed under that name; a CheckpointError if the key is another or a byte was changed."""
        n = len(MAGIC) + N_ID + N_NONCE
        head, id = sealed[:n], sealed[len(MAGIC) : len(MAGIC) + N_ID]
        if len(sealed) < n + N_TAG or not sealed.startswith(MAGIC):
            raise CheckpointError(f"{name} is no sealed file, or was cut short; nothing of it was read")
        if not self:
            raise CheckpointError(f"{name} is encrypted; {ENVIRONMENT}=FILE names the key that opens it")
        if id not in self._by_id:
            raise CheckpointError(f"{name} was encrypted with another key than those at hand; nothing of it was read")
        from cryptography.exceptions import InvalidTag

        try:
            return _cipher(self._by_id[id]).decrypt(head[-N_NONCE:], sealed[n:], head + name.encode())
        except InvalidTag:
            raise CheckpointError(f"{name} was changed since it was encrypted; nothing of it was read") from None


def new_key(path: Path) -> None:
    """A new key in a file that nobody else can read."""
    write_secret(path, base64.b64encode(os.urandom(N_KEY)) + b"\n")


def _secret(text: bytes) -> bytes | None:
    """The key that a text is; None if it is none."""
    try:
        secret = base64.b64decode(text.strip(), validate=True)
    except binascii.Error:
        return None
    return secret if len(secret) == N_KEY else None


def _read(path: Path) -> bytes:
    secret = _secret(path.read_bytes())
    if secret is None:
        raise CheckpointError(
            f"{path} holds no key; {N_KEY} bytes in base64 were expected, as `likely encrypt --new-key` makes"
        )
    return secret


def _id_of(secret: bytes) -> bytes:
    return hashlib.sha256(b"likely key id" + secret).digest()[:N_ID]


def _cipher(secret: bytes) -> AESGCM:
    try:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    except ImportError:
        raise CheckpointError(security()) from None
    return AESGCM(secret)
