"""Access to a model folder's files with signature verification and decryption."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from likely.checkpoint import signing
from likely.checkpoint.atomic_write import write_atomically
from likely.checkpoint.encryption import SUFFIX, Keyring
from likely.exceptions import CheckpointError


@dataclass(frozen=True)
class TrustPolicy:
    """Requirements on models: a signature by the private key of the public key file `signer`, if set.

    `keys` decrypt encrypted models.
    """

    signer: Path | None = None
    keys: Keyring = field(default_factory=Keyring.from_environment)


class ModelFolder:
    """Files of a model folder, verified and decrypted on reading."""

    def __init__(self, path: Path, trust: TrustPolicy | None = None) -> None:
        self.path, self.trust = path, trust or TrustPolicy()

    def has(self, name: str) -> bool:
        """Return True if the file exists, encrypted or not."""
        return (self.path / name).exists() or (self.path / (name + SUFFIX)).exists()

    def read(self, name: str) -> bytes:
        """Read a file's content; raise FileNotFoundError, or CheckpointError if it fails verification or decryption."""
        encrypted = self.path / (name + SUFFIX)
        path = encrypted if encrypted.exists() else self.path / name
        if path is encrypted and (self.path / name).exists():
            raise CheckpointError(f"{self.path} holds {name} both encrypted and unencrypted; delete one of them")
        hashes = self._signed_hashes
        content = path.read_bytes()
        if hashes is not None:
            signing.check(path, content, hashes)
        return self.trust.keys.decrypt(content, name) if path is encrypted else content

    @cached_property
    def _signed_hashes(self) -> Mapping[str, str] | None:
        return None if self.trust.signer is None else signing.verify(self.path, self.trust.signer)


def is_encrypted(path: Path) -> bool:
    """Return True if a model folder is encrypted."""
    return any(path.glob(f"*{SUFFIX}"))


def encrypt(path: Path, keys: Keyring) -> int:
    """Encrypt all files of a folder, encrypted ones again, and return their number; remove the invalidated signature."""
    contents = _contents(path, keys)
    encrypted = {name: keys.encrypt(content, name) for name, content in contents.items()}
    for name, content in encrypted.items():
        write_atomically(path / (name + SUFFIX), content)
    _remove(path, [*encrypted, signing.MANIFEST, signing.SIGNATURE])
    return len(encrypted)


def decrypt(path: Path, keys: Keyring) -> int:
    """Decrypt all files of a folder and return their number; the signature is removed."""
    contents = _contents(path, keys)
    for name, content in contents.items():
        write_atomically(path / name, content)
    _remove(path, [*(name + SUFFIX for name in contents), signing.MANIFEST, signing.SIGNATURE])
    return len(contents)


def _contents(path: Path, keys: Keyring) -> dict[str, bytes]:
    """Read all files, before any is replaced."""
    if not path.is_dir():
        raise CheckpointError(f"there is no folder {path}; a model folder was expected")
    folder = ModelFolder(path, TrustPolicy(keys=keys))
    names = {each.name.removesuffix(SUFFIX) for each in path.iterdir() if each.is_file()} - signing.OWN
    if not names:
        raise CheckpointError(f"{path} holds no files; a model folder was expected")
    return {name: folder.read(name) for name in sorted(names)}


def _remove(path: Path, names: list[str]) -> None:
    for name in names:
        (path / name).unlink(missing_ok=True)
