"""Content-addressed image files, written completely or not at all."""

from __future__ import annotations

import hashlib
import os
import sys
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from likely.checkpoint.encryption import MAGIC, Keyring
from likely.exceptions import CheckpointError

INCOMING = "incoming"
REMOVED = "removed"  # suffix of a file that is about to be deleted
REPLACEMENT = "replacement"  # suffix of a file that will replace the one of the same name


class BlobStore:
    """Folder of files named by their SHA-256, in subfolders named by the first two digits.

    Files appear and disappear in two steps, around the transaction on the rows that name them: `receiving` and `removing`
    stage them and move them once the rows are committed. Files that a crash leaves `staged` are settled or dropped,
    depending on whether their row exists, so that no file is without a row.
    """

    def __init__(self, folder: Path, keys: Keyring | None = None) -> None:
        """Encrypt new files with the first of `keys`, if there are any, and decrypt with all of them."""
        self.folder, self.incoming, self.keys = folder, folder / INCOMING, keys
        self.incoming.mkdir(parents=True, exist_ok=True)

    def path(self, sha256: str) -> Path:
        """Return the path at which a file is or would be stored."""
        return self.folder / sha256[:2] / sha256

    @contextmanager
    def receiving(self, contents: Mapping[str, bytes]) -> Iterator[Callable[[], None]]:
        """Stage new files while their rows are written; delete them if the transaction fails.

        Call the yielded function directly before committing: if the commit itself fails, the outcome is unknown and the
        files stay staged.
        """
        names = {sha256: f"{sha256}.{uuid.uuid4().hex}" for sha256 in contents}
        with self._until_committed(names.values(), self.drop) as commits:
            for sha256, content in contents.items():
                _write(self.incoming / names[sha256], self.keys.encrypt(content, sha256) if self.keys else content)
            if names:
                _fsync(self.incoming)
            yield commits
        self.settle(names.values())

    @contextmanager
    def removing(self, sha256s: Iterable[str]) -> Iterator[Callable[[], None]]:
        """Stage files for deletion while their rows are deleted; put them back if the transaction fails.

        Call the yielded function directly before committing.
        """
        names = [f"{sha256}.{REMOVED}" for sha256 in sha256s]
        with self._until_committed(names, self.settle) as commits:
            for name in names:
                with suppress(FileNotFoundError):
                    self.path(_sha256_of(name)).replace(self.incoming / name)
            yield commits
        self.drop(names)

    @contextmanager
    def _until_committed(
        self, names: Iterable[str], back: Callable[[Iterable[str]], None]
    ) -> Iterator[Callable[[], None]]:
        committing = False

        def commits() -> None:
            nonlocal committing
            committing = True

        try:
            yield commits
        except BaseException:
            if not committing:
                back(names)
            raise

    def staged(self) -> dict[str, str]:
        """Return the staged files: name -> SHA-256."""
        for path in self.incoming.glob(f"*.{REPLACEMENT}"):
            path.unlink()  # the file that it was to replace still exists
        return {path.name: _sha256_of(path.name) for path in sorted(self.incoming.iterdir())}

    def settle(self, names: Iterable[str]) -> None:
        """Move staged files to their final paths."""
        for name in names:
            place = self.path(_sha256_of(name))
            place.parent.mkdir(exist_ok=True)
            with suppress(FileNotFoundError):  # already moved
                (self.incoming / name).replace(place)

    def drop(self, names: Iterable[str]) -> None:
        """Delete staged files."""
        for name in names:
            (self.incoming / name).unlink(missing_ok=True)

    def __contains__(self, sha256: str) -> bool:
        """Return True if the file exists at its final path."""
        return self.path(sha256).exists()

    def read(self, sha256: str) -> bytes:
        """Return the decrypted content; raise FileNotFoundError if it is missing and CheckpointError if it is damaged."""
        content = self.read_raw(sha256)
        if content.startswith(MAGIC):
            content = (self.keys or Keyring()).decrypt(content, sha256)
        if hashlib.sha256(content).hexdigest() != sha256:
            raise CheckpointError(f"the image {sha256} is damaged: its content does not match its SHA-256")
        return content

    def read_raw(self, sha256: str) -> bytes:
        """Return the content as stored, encrypted or not."""
        final = self.path(sha256)
        for path in (final, *self.incoming.glob(f"{sha256}.*"), final):  # it may move in the meantime
            with suppress(FileNotFoundError):
                return path.read_bytes()
        raise FileNotFoundError(final)

    def encrypt_all(self) -> int:
        """Encrypt every file again, with the first key; return the number of files."""
        assert self.keys
        names = list(self)
        for sha256 in names:
            beside = self.incoming / f"{sha256}.{REPLACEMENT}"
            _write(beside, self.keys.encrypt(self.read(sha256), sha256))
            beside.replace(self.path(sha256))
        return len(names)

    def __iter__(self) -> Iterator[str]:
        """Iterate over the SHA-256 of all files at their final paths."""
        for folder in sorted(self.folder.iterdir()):
            if folder.name != INCOMING and folder.is_dir():
                yield from sorted(path.name for path in folder.iterdir())


def _sha256_of(name: str) -> str:
    return name.partition(".")[0]


def _write(path: Path, content: bytes) -> None:
    """Write a file and flush it to the disk."""
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def fsync_path(path: Path) -> None:
    """Flush a file, or a folder with everything in it, to the disk, so that it survives a power cut."""
    for inside in path.iterdir() if path.is_dir() else ():
        fsync_path(inside)
    _fsync(path)


def _fsync(path: Path) -> None:
    if sys.platform == "win32":  # cannot open folders
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
