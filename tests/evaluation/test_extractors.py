"""Extractors: loading by path, features of images of any size, and errors."""

from __future__ import annotations

import json
import re
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from torch import Tensor, nn

from likely import Classifier
from likely.base import HasFeatures, to_unit
from likely.data.image_dataset import ArrayDataset
from likely.data.preprocessing import ImageFormat, read_image
from likely.evaluation.extractors import (
    Extractor,
    ModelExtractor,
    extractor,
    resized,
)
from likely.exceptions import CheckpointError, ExtractorError


def noise(n: int, *shape: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (n, *shape), dtype=np.uint8)


class Means(nn.Module):
    """A program as users bring it: the mean of every channel."""

    def forward(self, x: Tensor) -> Tensor:
        return x.float().mean((2, 3))


class Asked(nn.Module):
    """One that has features to give if it is asked for them."""

    def forward(self, x: Tensor, return_features: bool = False) -> Tensor:
        if return_features:
            return x.float().mean((2, 3))
        return x.float().flatten(1)


class Maps(nn.Module):
    """One that gives no features."""

    def forward(self, x: Tensor) -> Tensor:
        return x.float()


class Nothing(nn.Module):
    """One that divides by nothing."""

    def forward(self, x: Tensor) -> Tensor:
        return x.float().flatten(1) / 0


class Picky(nn.Module):
    """One that refuses images with words of its own."""

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[2] < 100:
            raise ValueError("too small")
        return x.float()


class Fixed(nn.Module):
    """One that takes images of a single size."""

    def forward(self, x: Tensor) -> Tensor:
        return x.float().reshape(len(x), 3 * 16 * 16)


def program(module: nn.Module, path: Path) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.save(torch.jit.script(module), path)
    return path


def digits(n: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    data = load_digits()
    return (data.images[:n] * 255 / 16).round().astype(np.uint8), data.target[:n]


@pytest.fixture(scope="module")
def baseline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "softmax"
    Classifier("softmax", options={"width": 4}, training={"epochs": 1}).fit(*digits(300)).save(folder)
    return folder


def preprocess(folder: Path, **settings: Any) -> None:
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))


def test_model_extractor_returns_the_features_of_the_model(baseline: Path) -> None:
    made = extractor(baseline)
    assert isinstance(made, ModelExtractor)
    assert re.fullmatch(r"softmax@[0-9a-f]{4}", made.name)
    images = noise(5, 1, 8, 8)
    model = made.classifier.model
    assert isinstance(model, HasFeatures)
    with torch.inference_mode():
        expected = model.features(to_unit(torch.from_numpy(images)))
    found = made(images)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_model_extractor_preprocesses_images_like_files(baseline: Path) -> None:
    made, photographs = extractor(baseline), noise(3, 3, 20, 14)
    read_in = np.stack([read_image(image.transpose(1, 2, 0), made.format) for image in photographs])
    np.testing.assert_array_equal(made(photographs), made(read_in))


def test_model_extractor_classifies_images_of_any_size(baseline: Path) -> None:
    made = extractor(baseline)
    images, _ = digits(6)
    large = ArrayDataset(images.repeat(4, axis=1).repeat(4, axis=2)[:, None].repeat(3, axis=1), str)
    found = made.log_posterior(large)
    assert found.shape == (6, 10)
    np.testing.assert_allclose(np.exp(found).sum(1), 1)
    own = ArrayDataset(images[:, None], str)
    np.testing.assert_allclose(made.log_posterior(own), made.classifier.log_posterior(own))


def test_models_without_image_features_are_rejected(tmp_path: Path) -> None:
    images, labels = digits(300)
    Classifier("gaussian").fit(images, labels).save(tmp_path / "a")
    with pytest.raises(ExtractorError, match="'gaussian' model has no features"):
        extractor(tmp_path / "a")
    vectors = Classifier("softmax", options={"width": 4}, training={"epochs": 1})
    vectors.fit(images.reshape(300, -1) / 255, labels).save(tmp_path / "b")
    with pytest.raises(ExtractorError, match="trained on vectors"):
        extractor(tmp_path / "b")


def test_damaged_model_is_reported(baseline: Path, tmp_path: Path) -> None:
    (tmp_path / "model.json").write_bytes((baseline / "model.json").read_bytes())
    with pytest.raises(CheckpointError, match=r"model\.safetensors is missing"):
        extractor(tmp_path)


def test_backbone_pools_its_last_feature_map(backbone: Path) -> None:
    transformers = pytest.importorskip("transformers")
    made = extractor(backbone)
    assert re.fullmatch(r"tiny@[0-9a-f]{4} at 32 pixels", made.name)
    images = noise(4, 3, 32, 32)
    model = transformers.ResNetModel.from_pretrained(backbone, local_files_only=True).eval()
    mean, deviation = torch.tensor([0.5, 0.4, 0.3]).view(3, 1, 1), torch.tensor([0.2, 0.3, 0.4]).view(3, 1, 1)
    with torch.inference_mode():
        maps = model((to_unit(torch.from_numpy(images)) - mean) / deviation).last_hidden_state
    np.testing.assert_allclose(made(images), maps.mean((2, 3)), rtol=1e-5, atol=1e-6)


def test_backbone_stretches_gray_images_to_color(backbone: Path) -> None:
    made, gray = extractor(backbone), noise(2, 1, 16, 32)
    assert made(gray).shape == (2, 12)
    stretched = ImageFormat(channels=3, height=32, width=32, resize="stretch")
    np.testing.assert_array_equal(made(gray), made(resized(gray, stretched)))
    np.testing.assert_array_equal(made(gray), made(gray.repeat(3, axis=1)))


def test_backbone_loads_without_output(backbone: Path, capfd: pytest.CaptureFixture[str]) -> None:
    extractor(backbone)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("settings", "side"),
    [
        ({"size": {"height": 40, "width": 40}}, 40),
        ({"size": 24}, 24),
        ({"size": {"shortest_edge": 48}, "do_center_crop": True, "crop_size": {"height": 36, "width": 36}}, 36),
        ({"size": {"shortest_edge": 48}, "do_center_crop": False, "crop_size": {"height": 36, "width": 36}}, 48),
    ],
)
def test_backbone_reads_its_input_size(backbone: Path, tmp_path: Path, settings: Any, side: int) -> None:
    copied(backbone, tmp_path)
    preprocess(tmp_path, image_mean=[0.5] * 3, image_std=[0.5] * 3, **settings)
    assert extractor(tmp_path).format.shape == (3, side, side)


def test_incomplete_backbones_are_rejected(backbone: Path, tmp_path: Path) -> None:
    copied(backbone, tmp_path)
    with pytest.raises(ExtractorError, match=r"has no preprocessor_config\.json"):
        extractor(tmp_path)
    preprocess(tmp_path, size=32)
    with pytest.raises(ExtractorError, match="lacks size, image_mean or image_std"):
        extractor(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text("{")
    with pytest.raises(ExtractorError, match="is damaged"):
        extractor(tmp_path)
    preprocess(tmp_path, size=32, image_mean=[0.5] * 3, image_std=[0.5] * 3)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ExtractorError, match="cannot be read as a pretrained backbone"):
        extractor(tmp_path)
    weights.unlink()
    with pytest.raises(ExtractorError, match="cannot be read as a pretrained backbone"):
        extractor(tmp_path)


def test_missing_backbone_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "config.json").write_text("{}")
    preprocess(tmp_path, size=32, image_mean=[0.5] * 3, image_std=[0.5] * 3)
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ExtractorError, match=r"needs the package transformers .*pip install 'likely\[backbones\]'"):
        extractor(tmp_path)


def test_missing_backbone_weights_are_rejected(backbone: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    copied(backbone, tmp_path)
    preprocess(tmp_path, size=32, image_mean=[0.5] * 3, image_std=[0.5] * 3)
    tensors = load_file(tmp_path / "model.safetensors")
    lost = sorted(tensors)[0]
    save_file({k: t for k, t in tensors.items() if k != lost}, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(ExtractorError, match=f"lacks 1 weights, such as {re.escape(lost)}"):
        extractor(tmp_path)


def copied(backbone: Path, to: Path) -> None:
    for name in ("config.json", "model.safetensors"):
        (to / name).write_bytes((backbone / name).read_bytes())


@pytest.mark.parametrize("module", [Means(), Asked()])
def test_torchscript_receives_uint8_color_images(module: nn.Module, tmp_path: Path) -> None:
    made = extractor(program(module, tmp_path / "means.pt"))
    assert re.fullmatch(r"means\.pt@[0-9a-f]{4}", made.name)
    for images in (noise(2, 3, 7, 5), noise(2, 1, 9, 9)):
        expected = np.broadcast_to(images.mean((2, 3)), (2, 3))
        np.testing.assert_allclose(made(images), expected, rtol=1e-5)


def test_torchscript_without_features_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(ExtractorError, match=r"returns shape \(2, 3, 4, 4\) for 2 images"):
        extractor(program(Maps(), tmp_path / "a.ts"))(noise(2, 3, 4, 4))
    with pytest.raises(ExtractorError, match=r"b\.ts@.... fails on uint8 images of shape \(2, 3, 4, 4\)"):
        extractor(program(Fixed(), tmp_path / "b.ts"))(noise(2, 3, 4, 4))
    with pytest.raises(ExtractorError, match="too small"):
        extractor(program(Picky(), tmp_path / "d.ts"))(noise(2, 3, 4, 4))
    with pytest.raises(ExtractorError, match="NaN or infinite"):
        extractor(program(Nothing(), tmp_path / "e.ts"))(noise(2, 3, 4, 4))
    torch.save({"weights": torch.zeros(1)}, tmp_path / "c.pt")
    with pytest.raises(ExtractorError, match="no TorchScript program"):
        extractor(tmp_path / "c.pt")


def test_extractor_name_depends_on_the_weights(tmp_path: Path) -> None:
    names = set()
    for seed in range(4):
        torch.manual_seed(seed)
        layer = nn.Sequential(Means(), nn.Linear(3, 2))
        names.add(extractor(program(layer, tmp_path / "same.pt")).name)
    assert len(names) == 4


def test_path_without_extractor_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(ExtractorError, match="no such file or folder"):
        extractor(tmp_path / "nowhere")
    (tmp_path / "weights.bin").write_bytes(b"")
    for path in (tmp_path, tmp_path / "weights.bin"):
        with pytest.raises(ExtractorError, match="not an extractor"):
            extractor(path)


def test_features_do_not_depend_on_the_batch_size(tmp_path: Path) -> None:
    made, images = extractor(program(Means(), tmp_path / "means.pt")), noise(150, 1, 3, 3)
    whole = made(images)
    assert whole.shape == (150, 3)
    np.testing.assert_array_equal(made.features(ArrayDataset(images, str)), whole)
    np.testing.assert_allclose(whole[[77]], made(images[[77]]), rtol=1e-6)


@pytest.mark.parametrize("images", [noise(2, 3, 4), noise(2, 2, 4, 4), noise(0, 3, 4, 4), noise(2, 3, 4, 4) / 255])
def test_arrays_that_are_no_images_are_rejected(images: Any, tmp_path: Path) -> None:
    made: Extractor = extractor(program(Means(), tmp_path / "means.pt"))
    with pytest.raises(ExtractorError, match="at least one image, uint8"):
        made(images)
