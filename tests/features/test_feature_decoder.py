"""Feature decoder: gradients, sampling, state and new classes."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from likely.data.image_dataset import ArrayDataset
from likely.features.backbone import Backbone
from likely.features.feature_decoder import DecoderOptions, DecoderTrainingData, FeatureDecoder

SMALL = DecoderOptions(
    side=16,
    width=8,
    depth=2,
    noise_dims=2,
    components=3,
    thumbnail_side=4,
    thumbnail_components=5,
    discriminator_side=64,
)


@pytest.fixture
def decoder(backbone):
    torch.manual_seed(0)  # weights so small may begin where one of them has no slope
    rng = torch.Generator().manual_seed(0)
    decoder, x = FeatureDecoder(6, SMALL), torch.rand(20, 3, 16, 16, generator=rng)
    features, labels = torch.randn(20, 6, generator=rng), torch.arange(20) % 4
    sketches = torch.nn.functional.avg_pool2d(x, 4)
    data = DecoderTrainingData(sketches, features, labels, 4, lambda c, rng: torch.randn(len(c), 6, generator=rng))
    decoder.init_from_data(Backbone.pretrained(str(backbone)), x, data)
    return decoder


def test_trained_parameters_get_gradients(decoder):
    x, i = torch.rand(5, 3, 16, 16), torch.arange(5)
    for objective in decoder.train().objectives():
        loss = objective.loss(x, i, torch.Generator().manual_seed(1))
        slopes = torch.autograd.grad(loss, list(objective.parameters), retain_graph=True)
        assert all(slope.isfinite().all() for slope in slopes)
        assert sum(slope.abs().sum() > 0 for slope in slopes) >= 0.9 * len(slopes)


def test_samples_are_determined_by_the_generator(decoder):
    decoder.eval()
    f, c = torch.randn(3, 6), torch.tensor([0, 1, 2])
    images = [decoder.sample_images(f, c, rng=torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)]
    assert images[0].shape == (3, 3, 16, 16)
    assert torch.equal(images[0], images[1])
    assert not torch.equal(images[0], images[2])
    assert images[0].min() >= 0
    assert images[0].max() <= 1


def test_state_is_sufficient_for_sampling(decoder):
    again = FeatureDecoder.from_state(SMALL, decoder.to_state())
    f, c = torch.randn(3, 6), torch.tensor([3, 1, 2])
    assert torch.equal(again.eval().sample_images(f, c), decoder.eval().sample_images(f, c))


def test_incomplete_state_is_rejected(decoder):
    with pytest.raises(RuntimeError, match=r"thumbnails\.codes"):
        FeatureDecoder.from_state(
            SMALL, {name: t for name, t in decoder.to_state().items() if name != "thumbnails.codes"}
        )


def test_new_class_does_not_change_the_others(decoder):
    decoder.eval()
    white = ArrayDataset(np.full((3, 3, 16, 16), 255, np.uint8), "white")
    larger = decoder.with_new_class(white, 4)
    f, c = torch.randn(5, 6), torch.tensor([0, 1, 2, 3, 4])
    assert torch.equal(larger.sample_images(f[:4], c[:4]), decoder.sample_images(f[:4], c[:4]))
    images = larger.sample_images(f, c)
    assert images[4].mean() == images.mean((1, 2, 3)).max()


def test_truncation_reduces_the_variation_of_thumbnails(decoder):
    decoder.eval()
    f, c = torch.zeros(2, 6), torch.tensor([1, 1])
    rng = torch.Generator().manual_seed(0)
    apart = [(d := decoder.sample_images(f, c, rng=rng, truncation=t))[0].sub(d[1]).abs().mean() for t in (0.0, 1.0)]
    assert apart[0] < apart[1]


@pytest.mark.parametrize(
    ("side", "thumbnail_side", "sizes"), [(16, 4, [4, 8, 16]), (25, 8, [7, 13, 25]), (16, 16, [16])]
)
def test_upsampler_doubles_thumbnails_up_to_the_image_side(side, thumbnail_side, sizes):
    upsampler = FeatureDecoder(6, SMALL.model_copy(update={"side": side, "thumbnail_side": thumbnail_side})).upsampler
    assert upsampler.sizes == sizes
    with torch.no_grad():
        images = upsampler(torch.rand(3, 3, *2 * sizes[:1]), torch.randn(3, 2, *2 * sizes[:1]), torch.randn(3, 16))
    assert images.shape == (3, 3, side, side)


@torch.no_grad()
def test_upsampler_depends_on_thumbnail_noise_and_condition():
    torch.manual_seed(0)
    upsampler = FeatureDecoder(6, SMALL).upsampler
    inputs = [torch.rand(1, 3, 4, 4), torch.randn(1, 2, 4, 4), torch.randn(1, 16)]
    before = upsampler(*inputs)
    for i in range(3):
        assert not torch.allclose(upsampler(*(x + (i == j) for j, x in enumerate(inputs))), before)


@torch.no_grad()
def test_upsampler_starts_near_bicubic_interpolation():
    torch.manual_seed(0)
    s = torch.rand(4, 3, 4, 4)
    images = FeatureDecoder(6, SMALL).upsampler(s, torch.zeros(4, 2, 4, 4), torch.zeros(4, 16))
    assert (images - F.interpolate(s, size=(16, 16), mode="bicubic")).abs().mean() < 0.5


def test_maps_too_small_for_a_discriminator_are_ignored(backbone):
    decoder = FeatureDecoder(6, SMALL.model_copy(update={"discriminator_side": 32}))
    data = DecoderTrainingData(
        torch.rand(20, 3, 4, 4), torch.randn(20, 6), torch.arange(20) % 4, 4, lambda c, rng: None
    )
    network = Backbone.pretrained(str(backbone))
    maps = network.maps(torch.zeros(1, 3, 32, 32), None)
    decoder.init_from_data(network, torch.rand(20, 3, 16, 16), data)
    usable = [h for h in maps if h.ndim == 4 and min(h.shape[2:]) >= 4]
    assert len(decoder.discriminators.inner) == max(1, len(usable)) + 1
