"""What this machine computes with: device, precision, threads."""

from __future__ import annotations

import ctypes
import os
import platform
import time
from pathlib import Path
from typing import TypeVar

import torch
from torch import nn

from likely.exceptions import InvalidValueError
from likely.training.options import TrainingOptions

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
KEPT = 512 * 2**20  # bytes at the top of the heap
LARGEST = 32 * 2**20  # bytes of a block on the heap; glibc takes no more
N = TypeVar("N", bound=nn.Module)
SMALL = 16  # pixels a side: under it a convolution costs less than turning its numbers into bfloat16


def select_device(wanted: str) -> torch.device:
    """The named device; `auto` takes a GPU if there is one. A ValueError says what is there."""
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if wanted == "auto":
        return torch.device(next(name for name in ("cuda", "mps", "cpu") if there[name]))
    if not there.get(wanted, False):
        names = ", ".join(name for name, present in there.items() if present)
        raise InvalidValueError(f"device {wanted!r} is not on this machine; it has {names}")
    return torch.device(wanted)


def to_device(model: N, on: torch.device) -> N:
    """The model on the device, its images' channels last, which is how convolutions there and on processors run fastest.

    Apple's devices have no float64: a model that needs it stays on the processor.
    """
    if on.type == "mps" and any(t.dtype == torch.float64 for t in model.buffers()):
        on = torch.device("cpu")
    model.to(on).to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's types lack it
    return model


def select_dtype(options: TrainingOptions, on: torch.device, shape: tuple[int, ...]) -> torch.dtype:
    """The precision of the networks while training: bfloat16 where `auto` expects it to be faster."""
    if options.precision != "auto":
        return torch.bfloat16 if options.precision == "bfloat16" else torch.float32
    large = len(shape) == 3 and min(shape[1:]) > SMALL
    return torch.bfloat16 if large and _computes_bfloat16(on) else torch.float32


def free_cores() -> int:
    """Return the number of cores that no other process uses at the moment, at least 1.

    Threads of one network wait for the slowest of them. Next to a process that occupies one of two cores, a training step of
    a `vae` takes 2.2 times as long with two threads as with one, and `likely classify` 1.1 times as long as with this
    choice. The observation costs each command 0.2 s.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    busy = _busy_cores(seconds=0.2)
    return max(1, cores - round(busy))


def tune_malloc() -> bool:
    """Keep freed memory in the process instead of returning it to the kernel; return False where the C library is not glibc.

    By default glibc returns the top of its heap after each training step and faults it in again, page by page: on two cores
    and 28 x 28 images a step then takes 12 % longer for `vae` and 8 % longer for `flow` (no difference for `vaegan` and the
    softmax baseline), and the features of a ResNet-18 take 11 % longer. The process keeps up to 512 MiB of freed memory.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if platform.libc_ver()[0] == "glibc" else None
    # Either of them alone would stop glibc from adapting the other.
    return mallopt is not None and bool(mallopt(M_MMAP_THRESHOLD, LARGEST) and mallopt(M_TRIM_THRESHOLD, KEPT))


def describe_machine() -> str:
    """The machine in a line, for a report: processor, cores, GPU."""
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    return f"{_processor()}, {os.cpu_count()} cores{gpu}"


def _computes_bfloat16(on: torch.device) -> bool:
    if on.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return on.type == "cpu" and _has_flag("avx512_bf16", "amx_bf16")


def _has_flag(*names: str) -> bool:
    cpuinfo = Path("/proc/cpuinfo")
    return cpuinfo.exists() and any(name in cpuinfo.read_text() for name in names)


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _busy_cores(seconds: float) -> float:
    """How many cores were at work over a moment, by the kernel's own count; 0 where there is none to ask."""
    if not Path("/proc/stat").exists():
        return 0.0
    before = _ticks()
    time.sleep(seconds)
    return (_ticks() - before) / (seconds * os.sysconf("SC_CLK_TCK"))


def _ticks() -> int:
    """User, nice and system time of the cores that this process may use."""
    ours = {f"cpu{core}" for core in os.sched_getaffinity(0)}
    lines = [line.split() for line in Path("/proc/stat").read_text().splitlines()]
    return sum(int(ticks) for line in lines if line and line[0] in ours for ticks in line[1:4])
