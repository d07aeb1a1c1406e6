"""A model folder as it may be trusted: its files are what was signed, if that is asked for, and opened if they are sealed."""

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
    """Whose models are read: those signed by the holder of the key whose public half is in the file `signer`; without it all.

    `keys` open what is encrypted.
    """

    signer: Path | None = None
    keys: Keyring = field(default_factory=Keyring.from_environment)


class ModelFolder:
    """The files of a folder."""

    def __init__(self, path: Path, trust: TrustPolicy | None = None) -> None:
        self.path, self.trust = path, trust or TrustPolicy()

    def has(self, name: str) -> bool:
        """Whether there is such a file, sealed or not."""
        return (self.path / name).exists() or (self.path / (name + SUFFIX)).exists()

    def read(self, name: str) -> bytes:
        """A file's content; a FileNotFoundError, or a CheckpointError if it must not be read."""
        sealed = self.path / (name + SUFFIX)
        path = sealed if sealed.exists() else self.path / name
        if path is sealed and (self.path / name).exists():
            raise CheckpointError(f"{self.path} holds {name} both encrypted and not; delete one of them")
        listed = self._listed
        content = path.read_bytes()
        if listed is not None:
            signing.check(path, content, listed)
        return self.trust.keys.decrypt(content, name) if path is sealed else content

    @cached_property
    def _listed(self) -> Mapping[str, str] | None:
        return None if self.trust.signer is None else signing.verify(self.path, self.trust.signer)


def is_encrypted(path: Path) -> bool:
    """Whether a model folder is encrypted."""
    return any(path.glob(f"*{SUFFIX}"))


def encrypt(path: Path, keys: Keyring) -> int:
    """Seal all files of a folder, sealed ones anew; how many. A signature is over other bytes then, and goes."""
    contents = _contents(path, keys)
    sealed = {name: keys.encrypt(content, name) for name, content in contents.items()}
    for name, content in sealed.items():
        write_atomically(path / (name + SUFFIX), content)
    _forget(path, [*sealed, signing.MANIFEST, signing.SIGNATURE])
    return len(sealed)


def decrypt(path: Path, keys: Keyring) -> int:
    """The files of a folder as they were; how many. A signature goes as well."""
    contents = _contents(path, keys)
    for name, content in contents.items():
        write_atomically(path / name, content)
    _forget(path, [*(name + SUFFIX for name in contents), signing.MANIFEST, signing.SIGNATURE])
    return len(contents)


def _contents(path: Path, keys: Keyring) -> dict[str, bytes]:
    """All of them opened, before one of them is touched."""
    if not path.is_dir():
        raise CheckpointError(f"there is no folder {path}")
    folder = ModelFolder(path, TrustPolicy(keys=keys))
    names = {each.name.removesuffix(SUFFIX) for each in path.iterdir() if each.is_file()} - signing.OWN
    if not names:
        raise CheckpointError(f"{path} holds no files")
    return {name: folder.read(name) for name in sorted(names)}


def _forget(path: Path, names: list[str]) -> None:
    for name in names:
        (path / name).unlink(missing_ok=True)
