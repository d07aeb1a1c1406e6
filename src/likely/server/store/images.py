"""Image files, named by what is in them: written whole or not at all, and never twice."""

from __future__ import annotations

import os
import sys
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from likely.checkpoint.encryption import MAGIC, Keyring
from likely.exceptions import CheckpointError
from likely.server.store import ids

INCOMING = "incoming"
GONE, ANEW = "gone", "anew"  # endings of files that are about to go, and of those that are to take the place of another


class BlobStore:
    """A folder of files, each by its SHA-256 in a folder of the first two digits.

    Files come and go in two steps, around the rows that name them: `receiving` and `parting` lay them aside, and put them in
    their places, or away, once the rows are there, or gone. What a crash leaves `waiting` is settled or dropped by whether
    there is a row, so that there is no file without one.
    """

    def __init__(self, folder: Path, keys: Keyring | None = None) -> None:
        """With `keys` files are sealed by the first of them, and opened by any."""
        self.folder, self.incoming, self.keys = folder, folder / INCOMING, keys
        self.incoming.mkdir(parents=True, exist_ok=True)

    def place(self, sha256: str) -> Path:
        """Where the file is, or would be."""
        return self.folder / sha256[:2] / sha256

    @contextmanager
    def receiving(self, contents: Mapping[str, bytes]) -> Iterator[Callable[[], None]]:
        """While files wait for their rows: they are on the disk, and gone again if the rows do not come.

        What is yielded is to be called right before the rows are committed: if that fails, nobody knows whether they are
        there, and the files stay waiting.
        """
        names = {sha256: f"{sha256}.{uuid.uuid4().hex}" for sha256 in contents}
        with self._until_committed(names.values(), self.drop) as commits:
            for sha256, content in contents.items():
                _write(self.incoming / names[sha256], self.keys.encrypt(content, sha256) if self.keys else content)
            if names:
                _keep(self.incoming)
            yield commits
        self.settle(names.values())

    @contextmanager
    def parting(self, sha256s: Iterable[str]) -> Iterator[Callable[[], None]]:
        """While files wait for their rows to go: they are away afterwards, and in their places again if the rows stay.

        What is yielded is to be called right before the rows' going is committed.
        """
        names = [f"{sha256}.{GONE}" for sha256 in sha256s]
        with self._until_committed(names, self.settle) as commits:
            for name in names:
                with suppress(FileNotFoundError):
                    self.place(_sha256_of(name)).replace(self.incoming / name)
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

    def waiting(self) -> dict[str, str]:
        """The files that were laid aside, by their names there: what they are the SHA-256 of."""
        for path in self.incoming.glob(f"*.{ANEW}"):
            path.unlink()  # its old form is in its place still
        return {path.name: _sha256_of(path.name) for path in sorted(self.incoming.iterdir())}

    def settle(self, names: Iterable[str]) -> None:
        """Put files that were laid aside in their places."""
        for name in names:
            place = self.place(_sha256_of(name))
            place.parent.mkdir(exist_ok=True)
            with suppress(FileNotFoundError):  # it is there already
                (self.incoming / name).replace(place)

    def drop(self, names: Iterable[str]) -> None:
        """Delete files that were laid aside."""
        for name in names:
            (self.incoming / name).unlink(missing_ok=True)

    def __contains__(self, sha256: str) -> bool:
        """Whether the file is in its place."""
        return self.place(sha256).exists()

    def read(self, sha256: str) -> bytes:
        """Its content; a FileNotFoundError if it is not there, a CheckpointError if it cannot be opened or is another."""
        content = self.as_it_lies(sha256)
        if content.startswith(MAGIC):
            content = (self.keys or Keyring()).decrypt(content, sha256)
        if ids.sha256(content) != sha256:
            raise CheckpointError(f"the image {sha256} is not what it was when it came")
        return content

    def as_it_lies(self, sha256: str) -> bytes:
        """Its content, sealed or not."""
        for path in (
            self.place(sha256),
            *self.incoming.glob(f"{sha256}.*"),
            self.place(sha256),
        ):  # it may move meanwhile
            with suppress(FileNotFoundError):
                return path.read_bytes()
        raise FileNotFoundError(self.place(sha256))

    def seal_anew(self) -> int:
        """Seal every file by the first key; how many."""
        assert self.keys
        names = list(self)
        for sha256 in names:
            beside = self.incoming / f"{sha256}.{ANEW}"
            _write(beside, self.keys.encrypt(self.read(sha256), sha256))
            beside.replace(self.place(sha256))
        return len(names)

    def __iter__(self) -> Iterator[str]:
        """The files that are in their places."""
        for folder in sorted(self.folder.iterdir()):
            if folder.name != INCOMING and folder.is_dir():
                yield from sorted(path.name for path in folder.iterdir())


def _sha256_of(name: str) -> str:
    return name.partition(".")[0]


def _write(path: Path, content: bytes) -> None:
    """So that it is on the disk."""
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def fsync_path(path: Path) -> None:
    """Have a file, or a folder's names and all that is in it, on the disk: a power cut would lose what is new otherwise."""
    for inside in path.iterdir() if path.is_dir() else ():
        fsync_path(inside)
    _keep(path)


def _keep(path: Path) -> None:
    if sys.platform == "win32":  # which opens no folders
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
