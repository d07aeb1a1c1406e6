"""Image files, named by what is in them: written whole or not at all, and never twice."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from likely.checkpoint import CheckpointError
from likely.checkpoint.sealing import MAGIC, Keys
from likely.surfaces.store import identity

INCOMING = "incoming"
ANEW = ".anew"  # a file that is about to take the place of another


class ImageFiles:
    """A folder of files, each by its SHA-256 in a folder of the first two digits.

    Files come in two steps, around the rows that name them: `receiving` lays them aside, and puts them in their places once
    the rows are there. What a crash leaves `waiting` is to be settled or forgotten, so that there is no file without a row.
    """

    def __init__(self, folder: Path, keys: Keys | None = None) -> None:
        """With `keys` files are sealed by the first of them, and opened by any."""
        self.folder, self.incoming, self.keys = folder, folder / INCOMING, keys
        self.incoming.mkdir(parents=True, exist_ok=True)

    def place(self, sha256: str) -> Path:
        """Where the file is, or would be."""
        return self.folder / sha256[:2] / sha256

    @contextmanager
    def receiving(self, contents: Mapping[str, bytes]) -> Iterator[None]:
        """While files wait for their rows: they are on the disk, and gone again if the rows do not come."""
        try:
            for sha256, content in contents.items():
                self._lay_aside(sha256, content)
            if contents:
                _keep(self.incoming)
            yield
        except BaseException:
            for sha256 in contents:
                (self.incoming / sha256).unlink(missing_ok=True)
            raise
        self.settle(contents)

    def _lay_aside(self, sha256: str, content: bytes) -> None:
        with (self.incoming / sha256).open("wb") as file:
            file.write(self.keys.seal(content, sha256) if self.keys else content)
            file.flush()
            os.fsync(file.fileno())

    def settle(self, sha256s: Iterable[str]) -> None:
        """Put files that were received in their places."""
        for sha256 in sha256s:
            place = self.place(sha256)
            place.parent.mkdir(exist_ok=True)
            with suppress(FileNotFoundError):  # it is there already
                (self.incoming / sha256).replace(place)

    def waiting(self) -> list[str]:
        """The files that were received and not settled."""
        for path in self.incoming.glob(f"*{ANEW}"):
            path.unlink()  # its old form is in its place still
        return sorted(path.name for path in self.incoming.iterdir())

    def forget(self, sha256: str) -> None:
        """Delete a file, wherever it is."""
        (self.incoming / sha256).unlink(missing_ok=True)
        self.place(sha256).unlink(missing_ok=True)

    def read(self, sha256: str) -> bytes:
        """Its content; a FileNotFoundError if it is not there, a CheckpointError if it cannot be opened or is another."""
        try:
            content = self.place(sha256).read_bytes()
        except FileNotFoundError:
            content = (self.incoming / sha256).read_bytes()
        if content.startswith(MAGIC):
            content = (self.keys or Keys()).open(content, sha256)
        if identity.sha256(content) != sha256:
            raise CheckpointError(f"the image {sha256} is not what it was when it came")
        return content

    def seal_anew(self) -> int:
        """Seal every file by the first key; how many."""
        assert self.keys
        names = list(self)
        for sha256 in names:
            beside = self.incoming / f"{sha256}{ANEW}"
            beside.write_bytes(self.keys.seal(self.read(sha256), sha256))
            beside.replace(self.place(sha256))
        return len(names)

    def __iter__(self) -> Iterator[str]:
        """The files that are in their places."""
        for folder in sorted(self.folder.iterdir()):
            if folder.name != INCOMING and folder.is_dir():
                yield from sorted(path.name for path in folder.iterdir())


def _keep(folder: Path) -> None:
    """Have a folder's list of files on the disk as well: a power cut would lose a new name otherwise."""
    if sys.platform == "win32":  # which opens no folders
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
