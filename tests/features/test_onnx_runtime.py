"""Networks on onnxruntime: agreement with PyTorch, storage, failures and concurrent exports."""

import copy
import logging
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from likely.base import to_unit
from likely.features.backbone import Backbone
from likely.features.onnx_runtime import OnnxRuntime


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A cache folder, in which networks are exported at their first image."""
    monkeypatch.setenv("LIKELY_CACHE", str(tmp_path))
    monkeypatch.setattr(OnnxRuntime, "min_images", 1)
    return tmp_path


@pytest.fixture
def x():
    return torch.randint(256, (3, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def exports(folder):
    return sorted(path for path in (folder / "onnx").iterdir() if path.suffix == ".onnx")


@pytest.mark.parametrize("stages", [1, 2])
def test_features_agree_with_pytorch(backbone, folder, x, stages, capfd, caplog):
    caplog.set_level(logging.WARNING, logger="likely.features")  # a command run before may show its messages
    f = Backbone.pretrained(str(backbone), stages)
    expected = f(to_unit(x))  # with gradients enabled, PyTorch computes them
    assert not (folder / "onnx").exists()
    with torch.inference_mode():
        first, again, one = f.of_pixels(x), f.of_pixels(x), f.of_pixels(x[:1])
    assert len(exports(folder)) == 1
    assert not list((folder / "onnx").glob("tmp*"))
    assert_close(first, expected, rtol=1e-3, atol=1e-5)
    assert_close(again, expected, rtol=1e-3, atol=1e-5)
    assert_close(one, expected[:1], rtol=1e-3, atol=1e-5)
    assert capfd.readouterr() == ("", "")


def test_stored_export_is_used_by_the_next_process_and_by_copies(backbone, folder, x):
    f, other = Backbone.pretrained(str(backbone)), Backbone.pretrained(str(backbone))
    copied = copy.deepcopy(f)
    with torch.inference_mode():
        expected = f.of_pixels(x)
        (path,) = exports(folder)
        written = path.stat().st_mtime_ns
        assert torch.equal(other.of_pixels(x), expected)
        assert torch.equal(copied.of_pixels(x), expected)
    assert [each.stat().st_mtime_ns for each in exports(folder)] == [written]


def test_changed_weights_and_other_sizes_are_exported_again(backbone, folder, x):
    f = Backbone.pretrained(str(backbone))
    with torch.inference_mode():
        before, smaller = f.of_pixels(x), f.of_pixels(x[:, :, :24])
    with torch.no_grad():
        for p in f.parameters():
            p.mul_(1.1)
        expected = f(to_unit(x))
    with torch.inference_mode():
        after = f.of_pixels(x)
    assert len(exports(folder)) == 3
    assert smaller.shape == before.shape
    assert_close(after, expected, rtol=1e-3, atol=1e-5)
    assert not torch.allclose(after, before)


def test_few_images_are_computed_without_an_export(backbone, folder, x, monkeypatch):
    monkeypatch.setattr(OnnxRuntime, "min_images", 7)
    f = Backbone.pretrained(str(backbone))
    with torch.inference_mode():
        f.of_pixels(x), f.of_pixels(x)
        assert not (folder / "onnx").exists()
        f.of_pixels(x)
    assert exports(folder)


def test_prepared_backbone_does_not_wait_for_images(backbone, folder, x, monkeypatch):
    monkeypatch.setattr(OnnxRuntime, "min_images", 7)
    f = Backbone.pretrained(str(backbone))
    f.prepare(x.shape[1:])
    (path,) = exports(folder)
    with torch.inference_mode():
        f.of_pixels(x)
    assert exports(folder) == [path]


def test_folder_that_cannot_be_written_leaves_pytorch_and_one_warning(backbone, folder, x, monkeypatch, caplog):
    (folder / "file").touch()
    monkeypatch.setenv("LIKELY_CACHE", str(folder / "file"))
    f = Backbone.pretrained(str(backbone))
    with caplog.at_level(logging.WARNING, "likely.features"), torch.inference_mode():
        found = f.of_pixels(x), f.of_pixels(x), Backbone.pretrained(str(backbone)).of_pixels(x)
    for each in found:
        assert_close(each, f(to_unit(x)))
    assert len(caplog.records) == 1


def test_missing_package_is_named_with_the_command_that_installs_it(backbone, folder, x, monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    f = Backbone.pretrained(str(backbone))
    with caplog.at_level(logging.WARNING, "likely.features"), torch.inference_mode():
        assert_close(f.of_pixels(x), f(to_unit(x)))
    (record,) = caplog.records
    assert "pip install 'likely[photos]'" in record.getMessage()


PROGRAM = """
import sys, torch
from likely.features.backbone import Backbone
from likely.features.onnx_runtime import OnnxRuntime
OnnxRuntime.min_images = 1
torch.set_num_threads(1)
f, x = Backbone.pretrained(sys.argv[1]), torch.full((2, 3, 32, 32), 255, dtype=torch.uint8)
with torch.no_grad():
    expected = f(x / 255)
with torch.inference_mode():
    assert (f.of_pixels(x) - expected).abs().max() < 1e-3 * expected.abs().max()
"""


def test_two_processes_that_export_at_once_do_not_corrupt_the_file(backbone, folder, x):
    programs = [
        subprocess.Popen([sys.executable, "-W", "ignore", "-c", PROGRAM, str(backbone)], stderr=subprocess.PIPE)
        for _ in range(2)
    ]
    for program in programs:
        _, err = program.communicate(timeout=120)
        assert program.returncode == 0, err.decode()
    assert len(exports(folder)) == 1
    assert {path.suffix for path in Path(folder, "onnx").iterdir()} <= {".onnx", ".lock"}
