"""Decoding in processes of their own: what an image may do to one of them, it does not do to the service.

A process has little memory and little time for an image. One that takes more, or dies, is replaced, and the image is answered
by a sentence.
"""

from __future__ import annotations

import asyncio
import queue
import signal
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext, ForkServerProcess, SpawnContext, SpawnProcess
from typing import NamedTuple

import numpy as np
from PIL import Image

from likely.data.decoding import Array, open_image
from likely.data.preprocessing import ImageFormat, read_image
from likely.exceptions import ImageError
from likely.server.http.forking import context
from likely.server.http.settings import MB, Settings

UNTOLD = "application/octet-stream"
CLOSING = 2.0  # seconds that a process may take to leave by itself


class DecodedImage(NamedTuple):
    """A decoded image: pixels in a model's format, uint8 (C, H, W), and what it was before."""

    pixels: Array
    media_type: str
    width: int
    height: int


class DecodeJob(NamedTuple):
    """What is to be decoded."""

    content: bytes
    name: str
    format: ImageFormat


@dataclass(frozen=True)
class ProcessLimits:
    """What a process may take of the machine."""

    megabytes: int
    pixels: int

    def apply(self) -> None:
        """To this process, where the system knows such limits; what it holds already is not counted."""
        if sys.platform == "win32":
            return
        import resource

        held = _held_bytes()
        for kind, most in ((resource.RLIMIT_AS, held + self.megabytes * MB), (resource.RLIMIT_CORE, 0)):
            _, hard = resource.getrlimit(kind)
            resource.setrlimit(kind, (most, most if hard == resource.RLIM_INFINITY else min(most, hard)))


class DecoderPool:
    """Processes that decode; `decode` waits for one that is free."""

    def __init__(self, settings: Settings) -> None:
        self.seconds = settings.decode_timeout
        self.limits = ProcessLimits(settings.decode_memory_mb, settings.max_pixels)
        self._context = context()
        self._idle: queue.SimpleQueue[_Worker] = queue.SimpleQueue()
        self._threads = ThreadPoolExecutor(settings.decode_workers, "decoding")
        for _ in range(settings.decode_workers):
            self._idle.put(_Worker(self._context, self.limits))

    async def decode(self, order: DecodeJob) -> DecodedImage:
        """An ImageError says why not."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._decode, order)

    def close(self) -> None:
        """End all processes."""
        self._threads.shutdown(cancel_futures=True)
        while not self._idle.empty():
            self._idle.get().end()

    def _decode(self, order: DecodeJob) -> DecodedImage:
        worker = self._idle.get()
        if not worker.process.is_alive():  # whatever ended it, it was not this image
            worker.end()
            worker = _Worker(self._context, self.limits)
        try:
            found = worker.ask(order, self.seconds)
        except (EOFError, OSError, TimeoutError) as error:
            worker.end()
            worker = _Worker(self._context, self.limits)
            why = f"took longer than {self.seconds:g} s" if isinstance(error, TimeoutError) else "broke what decodes it"
            raise ImageError(f"{order.name}: cannot be read; it {why}") from error
        finally:
            self._idle.put(worker)
        if isinstance(found, str):
            raise ImageError(found)
        return found


class _Worker:
    """One process and the line to it."""

    def __init__(self, context: ForkServerContext | SpawnContext, limits: ProcessLimits) -> None:
        self.line, theirs = context.Pipe()
        self.process: ForkServerProcess | SpawnProcess = context.Process(
            target=_work, args=(theirs, limits), daemon=True
        )
        self.process.start()
        theirs.close()

    def ask(self, order: DecodeJob, seconds: float) -> DecodedImage | str:
        """The picture, or the sentence that says why there is none."""
        self.line.send(order)
        if not self.line.poll(seconds):
            raise TimeoutError
        answer: DecodedImage | str = self.line.recv()
        return answer

    def end(self) -> None:
        self.line.close()
        self.process.kill()
        self.process.join(CLOSING)


def _work(line: Connection, limits: ProcessLimits) -> None:
    """Until the line is closed: when the service is told to stop, those who wait are answered first."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    limits.apply()
    while True:
        try:
            order: DecodeJob = line.recv()
        except (EOFError, KeyboardInterrupt):
            return
        try:
            answer: DecodedImage | str = _decoded(order, limits.pixels)
        except ImageError as error:
            answer = str(error)
        except MemoryError:
            answer = f"{order.name}: cannot be read; it takes more than {limits.megabytes:,} MB of memory"
        line.send(answer)


def _decoded(order: DecodeJob, most: int) -> DecodedImage:
    with open_image(order.content, order.name) as image:
        (width, height), media_type = image.size, Image.MIME.get(image.format or "", UNTOLD)
    if width * height > most:
        raise ImageError(f"{order.name}: has {width} x {height} pixels; {most:,} at most were expected")
    return DecodedImage(read_image(order.content, order.format, name=order.name), media_type, width, height)


def _held_bytes() -> int:
    """Address space that this process has taken; 0 where the system does not tell."""
    try:
        with open("/proc/self/statm") as file:  # noqa: PTH123  # no path of a file system
            pages = int(file.read().split()[0])
    except OSError:
        return 0
    import resource

    return pages * resource.getpagesize()


def stack(images: Sequence[DecodedImage]) -> Array:
    """(N, H, W, C) of pictures of one format."""
    return np.stack([picture.pixels.transpose(1, 2, 0) for picture in images])
