"""Devices, precision and threads."""

import os

import pytest
import torch
from tiny_trainings import vae

from likely.base import Task
from likely.models.gaussian import Gaussian, GaussianOptions
from likely.training import device
from likely.training.device import _busy_cores as busy_cores  # before tests are kept from asking it
from likely.training.options import TrainingOptions

CPU = torch.device("cpu")


def test_select_device_accepts_the_cpu():
    assert device.select_device("cpu") == CPU


def test_auto_selects_an_available_device():
    chosen = device.select_device("auto").type
    assert chosen == ("cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu")


@pytest.mark.parametrize("name", ["tpu", "gpu", "cuda:99", ""])
def test_unknown_devices_are_rejected(name):
    with pytest.raises(ValueError, match=rf"device '{name}' is not available; this machine has cpu"):
        device.select_device(name)


@pytest.mark.skipif(torch.cuda.is_available(), reason="has a GPU")
def test_missing_gpu_is_rejected():
    with pytest.raises(ValueError, match="'cuda' is not available; this machine has cpu"):
        device.select_device("cuda")


@pytest.mark.parametrize(("precision", "expected"), [("float32", torch.float32), ("bfloat16", torch.bfloat16)])
def test_explicit_precision_is_used(precision, expected):
    for shape in ((1, 8, 8), (3, 64, 64), (10,)):
        assert device.select_dtype(TrainingOptions(precision=precision), CPU, shape) == expected


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 16, 200), (1000,)])
def test_auto_precision_of_small_images_and_vectors_is_float32(shape):
    assert device.select_dtype(TrainingOptions(), CPU, shape) == torch.float32


def test_auto_precision_of_large_images_depends_on_the_processor():
    assert device.select_dtype(TrainingOptions(), CPU, (3, 64, 64)) in {torch.float32, torch.bfloat16}
    assert device.select_dtype(TrainingOptions(), torch.device("meta"), (3, 64, 64)) == torch.float32


def test_to_device_uses_channels_last():
    model = device.to_device(vae(), CPU)
    weights = [p for p in model.parameters() if p.ndim == 4]
    assert weights
    assert all(weight.is_contiguous(memory_format=torch.channels_last) for weight in weights)


def test_float64_models_stay_off_mps():
    model = Gaussian(Task((4,), (3, 3)), GaussianOptions())
    assert {buffer.device.type for buffer in device.to_device(model, torch.device("mps")).buffers()} == {"cpu"}


def test_free_cores_is_at_least_one(monkeypatch):
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    assert busy_cores(0.05) >= 0
    for busy in (0.0, 0.6, 99.0):
        monkeypatch.setattr(device, "_busy_cores", lambda seconds, busy=busy: busy)
        assert device.free_cores() == max(1, cores - round(busy))


def test_describe_machine_is_one_line():
    line = device.describe_machine()
    assert f"{os.cpu_count()} cores" in line
    assert "\n" not in line


def test_tune_malloc_requires_glibc(monkeypatch):
    assert device.tune_malloc() == (device.platform.libc_ver()[0] == "glibc")
    monkeypatch.setattr(device.platform, "libc_ver", lambda: ("", ""))
    monkeypatch.setattr(device.ctypes, "CDLL", None)
    assert not device.tune_malloc()
