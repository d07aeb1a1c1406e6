"""Decoding in separate processes with limited memory and time, so that a malicious image cannot affect the service.

A process that exceeds its limits or dies is replaced, and the image gets an error message.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import queue
import signal
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext, ForkServerProcess, SpawnContext, SpawnProcess
from typing import NamedTuple

from PIL import Image

from likely.data.decoding import Array, open_image
from likely.data.preprocessing import ImageFormat, read_image
from likely.exceptions import ImageError
from likely.server.http.settings import MB, Settings

UNKNOWN_MEDIA_TYPE = "application/octet-stream"
JOIN_SECONDS = 2.0  # seconds to wait for a process to exit


class DecodedImage(NamedTuple):
    """Decoded pixels in a model's format, uint8 (C, H, W), with the original's name, media type and size."""

    name: str
    pixels: Array
    media_type: str
    width: int
    height: int


class DecodeJob(NamedTuple):
    """Image to decode."""

    content: bytes
    name: str
    format: ImageFormat


@dataclass(frozen=True)
class _ProcessLimits:
    """Resource limits of a decoder process."""

    megabytes: int
    pixels: int

    def apply(self) -> None:
        """Apply the limits to this process, in addition to the memory it already uses."""
        if sys.platform == "win32":
            return
        import resource

        held = _address_space()
        for kind, most in ((resource.RLIMIT_AS, held + self.megabytes * MB), (resource.RLIMIT_CORE, 0)):
            _, hard = resource.getrlimit(kind)
            resource.setrlimit(kind, (most, most if hard == resource.RLIM_INFINITY else min(most, hard)))


class DecoderPool:
    """Pool of decoder processes."""

    def __init__(self, settings: Settings) -> None:
        self.seconds = settings.decode_timeout
        self.limits = _ProcessLimits(settings.decode_memory_mb, settings.max_pixels)
        self._context = _context()
        self._idle: queue.SimpleQueue[_Worker] = queue.SimpleQueue()
        self._threads = ThreadPoolExecutor(settings.decode_workers, "decoding")
        for _ in range(settings.decode_workers):
            self._idle.put(_Worker(self._context, self.limits))

    async def decode(self, job: DecodeJob) -> DecodedImage:
        """Decode an image in the next idle process; raise ImageError on failure."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._decode, job)

    def close(self) -> None:
        """Terminate all processes."""
        self._threads.shutdown(cancel_futures=True)
        while not self._idle.empty():
            self._idle.get().close()

    def _decode(self, job: DecodeJob) -> DecodedImage:
        worker = self._idle.get()
        if not worker.process.is_alive():  # it died before this image
            worker.close()
            worker = _Worker(self._context, self.limits)
        try:
            found = worker.ask(job, self.seconds)
        except (EOFError, OSError, TimeoutError) as error:
            worker.close()
            worker = _Worker(self._context, self.limits)
            why = f"took longer than {self.seconds:g} s" if isinstance(error, TimeoutError) else "crashed the decoder"
            raise ImageError(f"{job.name}: cannot be read; it {why}") from error
        finally:
            self._idle.put(worker)
        if isinstance(found, str):
            raise ImageError(found)
        return found


class _Worker:
    """Decoder process and the pipe to it."""

    def __init__(self, context: ForkServerContext | SpawnContext, limits: _ProcessLimits) -> None:
        self.line, theirs = context.Pipe()
        self.process: ForkServerProcess | SpawnProcess = context.Process(
            target=_work, args=(theirs, limits), daemon=True
        )
        self.process.start()
        theirs.close()

    def ask(self, job: DecodeJob, seconds: float) -> DecodedImage | str:
        """Return the decoded image or an error message; raise TimeoutError after `seconds`."""
        self.line.send(job)
        if not self.line.poll(seconds):
            raise TimeoutError
        found: DecodedImage | str = self.line.recv()
        return found

    def close(self) -> None:
        self.line.close()
        self.process.kill()
        self.process.join(JOIN_SECONDS)


def _work(line: Connection, limits: _ProcessLimits) -> None:
    """Decode images until the pipe is closed."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    limits.apply()
    while True:
        try:
            job: DecodeJob = line.recv()
        except (EOFError, KeyboardInterrupt):
            return
        try:
            found: DecodedImage | str = _decode(job, limits.pixels)
        except ImageError as error:
            found = str(error)
        except MemoryError:
            found = f"{job.name}: cannot be read; it needs more than {limits.megabytes:,} MB of memory"
        line.send(found)


def _decode(job: DecodeJob, max_pixels: int) -> DecodedImage:
    with open_image(job.content, job.name) as image:
        (width, height), media_type = image.size, Image.MIME.get(image.format or "", UNKNOWN_MEDIA_TYPE)
    if width * height > max_pixels:
        raise ImageError(f"{job.name}: has {width} x {height} pixels; at most {max_pixels:,} were expected")
    return DecodedImage(job.name, read_image(job.content, job.format, name=job.name), media_type, width, height)


def _address_space() -> int:
    """Return the address space of this process in bytes; 0 where the system does not report it."""
    try:
        with open("/proc/self/statm") as file:  # noqa: PTH123  # no path of a file system
            pages = int(file.read().split()[0])
    except OSError:
        return 0
    import resource

    return pages * resource.getpagesize()


def _context() -> ForkServerContext | SpawnContext:
    """Return a context whose processes fork from a small server instead of the service; slower where there is none."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    return context


def start_forkserver() -> None:
    """Start the fork server now, so that it loads its modules while this process loads its own."""
    if isinstance(_context(), ForkServerContext):
        from multiprocessing import forkserver

        forkserver.ensure_running()
