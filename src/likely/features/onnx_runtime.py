"""Networks on onnxruntime: exported once, stored in the user's cache folder, and run on CPUs.

On one core, EfficientNet-Lite0 at 224 x 224 pixels computes 90 images/s, with PyTorch 31 images/s.
"""

from __future__ import annotations

import hashlib
import logging
import math
import warnings
from collections.abc import Callable, Hashable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar

import numpy as np
import torch
from filelock import FileLock
from numpy.typing import NDArray
from torch import Tensor, nn

from likely.features.cache import cache_folder

_EXPORTERS = ("torch.onnx", "onnxscript", "onnx_ir")  # loggers
_logger = logging.getLogger("likely.features")


class OnnxRuntime:
    """Just-in-time compilation of a network f(x) of 8-bit images x, without gradients.

    A stored export is used at once. Otherwise PyTorch computes the first images, because an export takes seconds. If an export
    or its storage fails, PyTorch computes all images, after one warning.
    """

    min_images: ClassVar = 64  # that a network has seen before it is exported
    tolerance: ClassVar = 1e-3  # of the export, relative to the largest output
    lock_timeout: ClassVar = 120.0  # seconds to wait for another process that exports the same network

    def __init__(self) -> None:
        self._version: Hashable = None
        self._n_images = 0
        self._waits = True
        self._failed = False
        self._path: Path | None = None
        self._export: _Export | None = None

    def __reduce__(self) -> tuple[type[OnnxRuntime], tuple[()]]:
        return OnnxRuntime, ()  # sessions cannot be copied

    def __call__(
        self, x: Tensor, version: Hashable, name: Callable[[], str], network: Callable[[], nn.Module]
    ) -> Tensor | None:
        """Return f(x) for uint8 images x (B, C, H, W), or None where PyTorch has to compute it.

        `version` changes whenever the weights do. `name` identifies f, and `network` returns it; both are called rarely.
        """
        version = version, x.shape[1:]
        if version != self._version:
            self._version, self._n_images, self._failed, self._path, self._export = version, 0, False, None, None
        self._n_images += len(x)
        if self._export is None and not self._failed:
            self._open(x, name, network)
        return None if self._export is None else self._export(x)

    def wait_no_longer(self) -> None:
        """Export at the next image, and after every change of the weights."""
        self._waits = False

    def _open(self, x: Tensor, name: Callable[[], str], network: Callable[[], nn.Module]) -> None:
        """Open the stored export of f; without one, export f once it has seen enough images."""
        is_due = self._n_images >= self.min_images or not self._waits
        if not is_due and find_spec("onnxruntime") is None:
            return
        try:
            self._path = self._path or _export_path(name(), x)
            if self._path.exists():
                self._export = _Export(self._path, len(x))
            elif is_due:
                self._export = self._exported(network(), x, self._path)
        except Exception as error:  # exporters raise any exception for a network that they do not support
            self._failed = True
            _warn(error)

    def _exported(self, network: nn.Module, x: Tensor, path: Path) -> _Export:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_suffix(".lock"), timeout=self.lock_timeout):
            if not path.exists():
                _logger.info("Preparing the backbone for this machine, once; this takes some seconds.")
                with TemporaryDirectory(dir=path.parent) as folder:
                    made = Path(folder, path.name)
                    _write(network, x, made)
                    self._require_agreement(network, x[:2], _Export(made, 2))
                    made.replace(path)
        return _Export(path, len(x))

    def _require_agreement(self, network: nn.Module, x: Tensor, export: _Export) -> None:
        expected, found = network(x), export(x)
        if (found - expected).abs().max() > self.tolerance * expected.abs().max():
            raise RuntimeError("the exported network differs from the original")


class _Export:
    """An export opened by onnxruntime, which uses as many threads as PyTorch.

    Threads compute blocks of images independently, and share the work on an image only if there are fewer images than threads.
    Where other threads decode images at the same time, this takes half as long as blocks one after another.
    """

    max_block: ClassVar = 8  # images; the CPU's cache does not hold the feature maps of more

    def __init__(self, path: Path, n_images: int) -> None:
        """Open an export for batches of `n_images`; it fails here, if at all."""
        self._model = path.read_bytes()
        self._sessions: dict[int, Any] = {}  # by threads per block
        self._open(n_images)

    def __call__(self, x: Tensor) -> Tensor:
        run, n_workers = self._open(len(x))
        blocks = torch.split(x, min(self.max_block, math.ceil(len(x) / n_workers)))
        with ThreadPoolExecutor(n_workers) as pool:
            found = list(pool.map(lambda block: run(None, {"x": block.contiguous().numpy()})[0], blocks))
        return torch.from_numpy(np.concatenate(found))

    def _open(self, n_images: int) -> tuple[Callable[..., list[NDArray[np.float32]]], int]:
        """Return the function that computes a block, and how many threads should call it."""
        n_workers = min(torch.get_num_threads(), n_images)
        n_threads = torch.get_num_threads() // n_workers
        if n_threads not in self._sessions:
            onnxruntime = import_module("onnxruntime")
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = n_threads
            options.log_severity_level = 3  # errors
            options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # other threads decode images
            self._sessions[n_threads] = onnxruntime.InferenceSession(self._model, options, ["CPUExecutionProvider"])
        return self._sessions[n_threads].run, n_workers


def _export_path(name: str, x: Tensor) -> Path:
    """Return where the export of a function for images of the size of x is stored."""
    version = import_module("onnxruntime").__version__
    key = hashlib.sha256(repr((name, x.dtype, tuple(x.shape[1:]), version)).encode()).hexdigest()
    return cache_folder() / "onnx" / f"{key[:32]}.onnx"


def _write(network: nn.Module, x: Tensor, path: Path) -> None:
    import_module("onnxscript")  # fails first, if it is missing
    with torch.inference_mode(False), torch.no_grad(), _silenced():
        examples = torch.zeros(2, *x.shape[1:], dtype=torch.uint8)  # torch.export takes a batch of one for a constant
        program = torch.onnx.export(
            network,
            (examples,),
            dynamo=True,
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            input_names=["x"],
            verbose=False,
        )
        assert program is not None
        program.save(path, external_data=False)


@contextmanager
def _silenced() -> Iterator[None]:
    """Silence the warnings of the exporters within a `with` block."""
    loggers = [logging.getLogger(name) for name in _EXPORTERS]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _warn(error: Exception) -> None:
    if isinstance(error, ImportError):
        why = f"the package {error.name} is missing: pip install 'likely[photos]'"
    elif isinstance(error, OSError):
        why = f"{error.filename or cache_folder()} cannot be written ({error.strerror or error}); LIKELY_CACHE names a folder"
    else:
        why = f"onnxruntime or the export failed ({str(error).strip().partition(chr(10))[0] or type(error).__name__})"
    _warn_once(f"The backbone runs on PyTorch, about three times slower than on onnxruntime: {why}")


@cache
def _warn_once(message: str) -> None:
    _logger.warning(message)
