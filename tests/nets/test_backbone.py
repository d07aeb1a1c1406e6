"""Backbones: the means of a pretrained network's maps, the same after a round trip, and sentences for what is none."""

import json
import shutil

import pytest
import torch
from torch.testing import assert_close

from likely.nets.backbone import Backbone, BackboneError, Tuning, located, side_of
from likely.nets.features import rebuilt


@pytest.fixture
def x():
    return torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def test_features_are_the_means_of_the_last_maps_of_each_size(backbone, x):
    transformers = pytest.importorskip("transformers")
    network = transformers.ResNetModel.from_pretrained(backbone, local_files_only=True).eval()
    mean, deviation = (torch.tensor(v).view(3, 1, 1) for v in ([0.5, 0.4, 0.3], [0.2, 0.3, 0.4]))
    with torch.inference_mode():
        hidden = network((x - mean) / deviation, output_hidden_states=True).hidden_states
        expected = torch.cat([h.mean((2, 3)) for h in hidden[-2:]], 1)
        assert_close(Backbone.pretrained(str(backbone), 2)(x), expected)
        assert_close(Backbone.pretrained(str(backbone))(x), expected[:, 4:])


def test_grey_images_are_seen_in_colour(backbone, x):
    f = Backbone.pretrained(str(backbone))
    assert_close(f(x[:, :1]), f(x[:, :1].expand(-1, 3, -1, -1)))


def test_a_single_image_is_seen_as_in_a_batch(backbone, x):
    f = Backbone.pretrained(str(backbone), 2)
    assert_close(f(x[1:2]), f(x)[1:2], rtol=1e-4, atol=1e-5)


def test_pixels_have_a_slope(backbone, x):
    f, x = Backbone.pretrained(str(backbone)), x.requires_grad_()
    (slope,) = torch.autograd.grad(f(x).sum(), x)
    assert slope.abs().sum() > 0


def test_it_is_rebuilt_from_its_document_and_weights_alone(backbone, x, tmp_path):
    shutil.copytree(backbone, tmp_path / "gone")
    f = Backbone.pretrained(str(tmp_path / "gone"), 2)
    shutil.rmtree(tmp_path / "gone")
    again = rebuilt(json.loads(json.dumps(f.document())))
    again.load_state_dict(f.state_dict())
    assert torch.equal(f(x), again(x))
    assert f.digest() == again.digest()
    assert again.name == f.name


def test_nothing_of_it_learns(backbone):
    assert not any(p.requires_grad for p in Backbone.pretrained(str(backbone)).parameters())


def test_more_stages_than_there_are(backbone):
    with pytest.raises(BackboneError, match="has 2 stages, and 9 were asked for"):
        Backbone.pretrained(str(backbone), 9)


def test_what_is_no_backbone_is_told_at_once(tmp_path):
    with pytest.raises(BackboneError, match=r"config.json and \*.safetensors were expected"):
        located(str(tmp_path))
    with pytest.raises(BackboneError, match="hf download nobody/nothing"):
        located("nobody/nothing")


def test_how_large_its_images_are(backbone):
    assert side_of(str(backbone)) == 32


@pytest.mark.parametrize("stages", [1])
def test_only_the_last_stages_learn(backbone, x, stages):
    f = Backbone.pretrained(str(backbone))
    before = f.maps(x, 2)
    tuning = Tuning(f, 3, stages, 0.1).train()
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
