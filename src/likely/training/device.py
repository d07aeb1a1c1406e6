"""Device, numeric precision and threads."""

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

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
Module = TypeVar("Module", bound=nn.Module)


def select_device(name: str) -> torch.device:
    """Return the device of this name; `auto` prefers a GPU. InvalidValueError lists the available ones."""
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        return torch.device(next(name for name in ("cuda", "mps", "cpu") if available[name]))
    if not available.get(name, False):
        names = ", ".join(name for name, present in available.items() if present)
        raise InvalidValueError(f"device {name!r} is not available; this machine has {names}")
    return torch.device(name)


def to_device(model: Module, device: torch.device) -> Module:
    """Move a model to the device in channels-last format, the fastest for convolutions on CPU and GPU.

    MPS devices have no float64: models that need it stay on the CPU.
    """
    if device.type == "mps" and any(t.dtype == torch.float64 for t in model.buffers()):
        device = torch.device("cpu")
    model.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's types lack it
    return model


def select_dtype(options: TrainingOptions, device: torch.device, shape: tuple[int, ...]) -> torch.dtype:
    """Return the network precision for training; `auto` selects bfloat16 where it is faster.

    For images of up to 16 pixels a side, a convolution costs less than the conversion to bfloat16.
    """
    if options.precision != "auto":
        return torch.bfloat16 if options.precision == "bfloat16" else torch.float32
    is_large = len(shape) == 3 and min(shape[1:]) > 16
    return torch.bfloat16 if is_large and _computes_bfloat16(device) else torch.float32


def free_cores() -> int:
    """Return the number of cores that no other process uses at the moment, at least 1.

    Threads of one network wait for the slowest of them. Next to a process that occupies one of two cores, a training step of
    a `vae` takes 2.2 times as long with two threads as with one, and `likely classify` 1.1 times as long as with this
    choice. The observation costs each command 0.2 s.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    n_busy = _busy_cores(seconds=0.2)
    return max(1, cores - round(n_busy))


def tune_malloc(*, max_free: int = 512 * 2**20, max_block: int = 32 * 2**20) -> bool:
    """Keep freed memory in the process instead of returning it to the kernel; return False where the C library is not glibc.

    By default glibc returns the top of its heap after each training step and faults it in again, page by page: on two cores
    and 28 x 28 images a step then takes 12 % longer for `vae` and 8 % longer for `flow` (no difference for `vaegan` and the
    softmax baseline), and the features of a ResNet-18 take 11 % longer. The process keeps up to `max_free` bytes
    of freed memory, in blocks of up to `max_block` bytes, the largest value that glibc accepts.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if platform.libc_ver()[0] == "glibc" else None
    # Either of them alone would stop glibc from adapting the other.
    return mallopt is not None and bool(mallopt(_M_MMAP_THRESHOLD, max_block) and mallopt(_M_TRIM_THRESHOLD, max_free))


def describe_machine() -> str:
    """Describe processor, cores and GPU in one line."""
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    return f"{_processor()}, {os.cpu_count()} cores{gpu}"


def _computes_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return device.type == "cpu" and _has_flag("avx512_bf16", "amx_bf16")


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
    """Measure the number of busy cores from /proc/stat; 0 without it."""
    if not Path("/proc/stat").exists():
        return 0.0
    before = _ticks()
    time.sleep(seconds)
    return (_ticks() - before) / (seconds * os.sysconf("SC_CLK_TCK"))


def _ticks() -> int:
    """Return user, nice and system time of the cores available to this process, in clock ticks."""
    own_cores = {f"cpu{core}" for core in os.sched_getaffinity(0)}
    lines = [line.split() for line in Path("/proc/stat").read_text().splitlines()]
    return sum(int(ticks) for line in lines if line and line[0] in own_cores for ticks in line[1:4])
