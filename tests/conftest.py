"""Settings and fixtures of all tests."""

import os

os.environ.setdefault("SCIPY_ARRAY_API", "1")  # read when scipy is first imported; lets scikit-learn's array checks run

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import settings

from likely.training import device

torch.set_num_threads(1)  # small tensors gain nothing from a second thread
settings.register_profile("likely", deadline=None, max_examples=50)  # no deadline, because the machine may be busy
settings.load_profile("likely")


@pytest.fixture(autouse=True, scope="session")
def one_core() -> Iterator[None]:
    """Report all cores as busy, so that no test measures or takes the cores of another."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(device, "_busy_cores", lambda seconds: float(os.cpu_count() or 1))
        yield


@pytest.fixture(autouse=True, scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Use a temporary cache folder."""
    os.environ["LIKELY_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a tiny, untrained backbone of two stages.

    Eight channels: with four, the gradient of a 1 × 1 convolution of stride 2 in torch 2.13 writes out of bounds on CPUs
    without AVX-512.
    """
    transformers = pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("backbones") / "tiny"
    config = transformers.ResNetConfig(embedding_size=8, hidden_sizes=[8, 12], depths=[1, 1], layer_type="basic")
    transformers.utils.logging.disable_progress_bar()
    torch.manual_seed(0)
    transformers.ResNetModel(config).save_pretrained(folder)
    transformers.utils.logging.enable_progress_bar()
    settings = {"size": {"shortest_edge": 32}, "image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.3, 0.4]}
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    return folder
