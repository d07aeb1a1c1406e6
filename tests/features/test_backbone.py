"""Backbones: features, round trips, preprocessing and rejected sources."""

import json
import shutil

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from torch.testing import assert_close

from likely.data.preprocessing import ImageFormat, ImageOptions, read_image
from likely.exceptions import BackboneError
from likely.features.backbone import Backbone
from likely.features.feature_extraction import FeaturePipeline
from likely.features.feature_extractors import FeatureOptions
from likely.features.pretrained import with_backbone_defaults


@pytest.fixture
def x():
    return torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def test_features_are_means_of_the_last_maps_of_each_size(backbone, x):
    transformers = pytest.importorskip("transformers")
    network = transformers.ResNetModel.from_pretrained(backbone, local_files_only=True).eval()
    mean, deviation = (torch.tensor(v).view(3, 1, 1) for v in ([0.5, 0.4, 0.3], [0.2, 0.3, 0.4]))
    with torch.inference_mode():
        hidden = network((x - mean) / deviation, output_hidden_states=True).hidden_states
        expected = torch.cat([h.mean((2, 3)) for h in hidden[-2:]], 1)
        assert_close(Backbone.pretrained(str(backbone), 2)(x), expected)
        assert_close(Backbone.pretrained(str(backbone))(x), expected[:, 8:])


def test_gray_images_are_expanded_to_three_channels(backbone, x):
    f = Backbone.pretrained(str(backbone))
    assert_close(f(x[:, :1]), f(x[:, :1].expand(-1, 3, -1, -1)))


def test_single_image_and_batch_agree(backbone, x):
    f = Backbone.pretrained(str(backbone), 2)
    assert_close(f(x[1:2]), f(x)[1:2], rtol=1e-4, atol=1e-5)


def test_features_have_gradients_for_pixels(backbone, x):
    f, x = Backbone.pretrained(str(backbone)), x.requires_grad_()
    (slope,) = torch.autograd.grad(f(x).sum(), x)
    assert slope.abs().sum() > 0


def test_backbone_is_rebuilt_from_config_and_weights(backbone, x, tmp_path):
    shutil.copytree(backbone, tmp_path / "gone")
    f = Backbone.pretrained(str(tmp_path / "gone"), 2)
    shutil.rmtree(tmp_path / "gone")
    pipeline = FeaturePipeline(f, FeatureOptions(feature_scaling="none"))
    again = FeaturePipeline.from_config(
        json.loads(json.dumps(pipeline.to_config())), pipeline.state_dict(), "model.json"
    ).extractor
    assert torch.equal(f(x), again(x))
    assert f.digest() == again.digest()
    assert again.name == f.name


def test_backbone_parameters_require_no_gradient(backbone):
    assert not any(p.requires_grad for p in Backbone.pretrained(str(backbone)).parameters())


def test_too_many_stages_are_rejected(backbone):
    with pytest.raises(BackboneError, match="has 2 stages; 9 were requested"):
        Backbone.pretrained(str(backbone), 9)


def test_unusable_sources_are_rejected(tmp_path):
    with pytest.raises(BackboneError, match=r"expected config.json and \*.safetensors"):
        Backbone.pretrained(str(tmp_path))
    with pytest.raises(BackboneError, match="hf download nobody/nothing"):
        Backbone.pretrained("nobody/nothing")


SQUARE = {"height": 32, "width": 32}


@pytest.mark.parametrize(
    ("processor", "settings", "expected"),
    [
        (
            "MobileNetV2",
            {"size": {"shortest_edge": 40}, "do_center_crop": True, "crop_size": SQUARE},
            (32, "crop", 1.25),
        ),
        (
            "MobileNetV2",
            {"size": {"shortest_edge": 32}, "do_center_crop": True, "crop_size": SQUARE},
            (32, "crop", 1.0),
        ),
        ("ConvNext", {"size": {"shortest_edge": 28}, "crop_pct": 0.875}, (28, "crop", 1 / 0.875)),
        ("ConvNext", {"size": {"shortest_edge": 384}, "crop_pct": 0.875}, (384, "stretch", 1.0)),
        ("ViT", {"size": SQUARE}, (32, "stretch", 1.0)),
    ],
)
def test_preprocessing_agrees_with_transformers(tmp_path, processor, settings, expected):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(settings))
    found = with_backbone_defaults(ImageOptions(), FeatureOptions(backbone=str(tmp_path)))
    side, *resizing = expected
    assert found.size == (side, side)
    assert [found.resize, found.center_crop_ratio] == pytest.approx(resizing)
    theirs = getattr(transformers, f"{processor}ImageProcessorPil")(**settings, do_normalize=False)
    across, down = np.meshgrid(np.linspace(0, 255, 90), np.linspace(0, 255, 60))
    photograph = np.stack([across, down, (across + down) / 2], 2).astype(np.uint8)
    ours = read_image(
        photograph,
        ImageFormat(
            channels=3,
            height=side,
            width=side,
            resize=found.resize,
            center_crop_ratio=found.center_crop_ratio,
            resample=found.resample,
        ),
    )
    assert np.abs(np.asarray(theirs(photograph)["pixel_values"][0]) * 255 - ours).max() < 6


@pytest.mark.parametrize(
    ("code", "name"), [(0, "nearest"), (1, "lanczos"), (2, "bilinear"), (3, "bicubic"), (4, "box"), (5, "hamming")]
)
def test_resampling_filter_is_the_backbones_own_unless_another_is_named(backbone, tmp_path, code, name):
    assert Image.Resampling(code).name.lower() == name
    settings = json.loads((backbone / "preprocessor_config.json").read_text()) | {"resample": code}
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(settings))
    requested = FeatureOptions(backbone=str(tmp_path))
    assert with_backbone_defaults(ImageOptions(), requested).resample == name
    assert with_backbone_defaults(ImageOptions(size=16), requested).resample == name
    explicit = with_backbone_defaults(ImageOptions(resample="box"), requested)
    assert (explicit.resample, explicit.resize, explicit.size) == ("box", "crop", (32, 32))


def test_unknown_resampling_filter_is_rejected(backbone, tmp_path):
    settings = json.loads((backbone / "preprocessor_config.json").read_text()) | {"resample": 9}
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(settings))
    with pytest.raises(BackboneError, match="resample 9"):
        with_backbone_defaults(ImageOptions(), FeatureOptions(backbone=str(tmp_path)))


def test_incomplete_preprocessor_config_is_rejected(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "preprocessor_config.json").write_text("{}")
    with pytest.raises(BackboneError, match="lacks size"):
        with_backbone_defaults(ImageOptions(), FeatureOptions(backbone=str(tmp_path)))


@pytest.mark.parametrize("stages", [1])
def test_fine_tuning_changes_the_last_stages_only(backbone, x, stages):
    f = Backbone.pretrained(str(backbone))
    before = f.maps(x, 2)
    tuning = f.training_module(FeatureOptions(backbone="b", finetune_stages=stages, finetune_rate=0.1), 3, 1.0).train()
    y = torch.tensor([0, 1, 2])
    for objective in tuning.objectives():
        loss = objective.loss(x, y, torch.Generator())
        slopes = torch.autograd.grad(loss, list(objective.parameters))
        assert any(slope.abs().sum() > 0 for slope in slopes)
        with torch.no_grad():
            for p, slope in zip(objective.parameters, slopes, strict=True):
                p -= 0.1 * slope
    after = f.maps(x, 2)
    assert torch.equal(before[0], after[0])
    assert not torch.equal(before[1], after[1])
