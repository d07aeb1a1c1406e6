"""The feature decoder: images of features, learned from a backbone."""

import pytest
import torch

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


def test_everything_that_is_to_learn_gets_a_slope(decoder):
    x, i = torch.rand(5, 3, 16, 16), torch.arange(5)
    for objective in decoder.train().objectives():
        loss = objective.loss(x, i, torch.Generator().manual_seed(1))
        slopes = torch.autograd.grad(loss, list(objective.parameters), retain_graph=True)
        assert all(slope.isfinite().all() for slope in slopes)
        assert sum(slope.abs().sum() > 0 for slope in slopes) >= 0.9 * len(slopes)


def test_the_same_noise_the_same_image(decoder):
    decoder.eval()
    f, c = torch.randn(3, 6), torch.tensor([0, 1, 2])
    images = [decoder.sample_images(f, c, rng=torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)]
    assert images[0].shape == (3, 3, 16, 16)
    assert torch.equal(images[0], images[1])
    assert not torch.equal(images[0], images[2])
    assert images[0].min() >= 0
    assert images[0].max() <= 1


def test_what_is_kept_is_enough_to_draw(decoder):
    again = FeatureDecoder.from_state(SMALL, decoder.to_state())
    f, c = torch.randn(3, 6), torch.tensor([3, 1, 2])
    assert torch.equal(again.eval().sample_images(f, c), decoder.eval().sample_images(f, c))


def test_what_another_kept_is_refused(decoder):
    with pytest.raises(RuntimeError, match=r"thumbnails\.codes"):
        FeatureDecoder.from_state(
            SMALL, {name: t for name, t in decoder.to_state().items() if name != "thumbnails.codes"}
        )


def test_a_class_more_is_images_and_the_others_as_before(decoder):
    decoder.eval()
    larger = decoder.with_new_class(torch.ones(3, 3, 4, 4), 4)
    f, c = torch.randn(5, 6), torch.tensor([0, 1, 2, 3, 4])
    assert torch.equal(larger.sample_images(f[:4], c[:4]), decoder.sample_images(f[:4], c[:4]))
    images = larger.sample_images(f, c)
    assert images[4].mean() == images.mean((1, 2, 3)).max()


def test_without_variety_a_class_has_one_sketch(decoder):
    decoder.eval()
    f, c = torch.zeros(2, 6), torch.tensor([1, 1])
    rng = torch.Generator().manual_seed(0)
    apart = [(d := decoder.sample_images(f, c, rng=rng, truncation=t))[0].sub(d[1]).abs().mean() for t in (0.0, 1.0)]
    assert apart[0] < apart[1]
