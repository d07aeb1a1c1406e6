"""The artist: images of features, learned from a backbone."""

import pytest
import torch

from likely.models.artist import Artist, ArtistOptions
from likely.nets.backbone import Backbone

SMALL = ArtistOptions(side=16, width=8, noise_dims=2, components=3, teacher_side=64)


@pytest.fixture
def pupil(backbone, monkeypatch):
    monkeypatch.setattr("likely.models.artist.STAGES", 2)
    rng = torch.Generator().manual_seed(0)
    artist = Artist(6, 4, SMALL)
    artist.learn_from(Backbone.pretrained(str(backbone)), torch.randn(20, 6, generator=rng), torch.arange(20) % 4)
    return artist


def test_everything_that_is_to_learn_gets_a_slope(pupil):
    x, i = torch.rand(5, 3, 16, 16), torch.arange(5)
    for objective in pupil.train().objectives():
        loss = objective.loss(x, i, torch.Generator().manual_seed(1))
        slopes = torch.autograd.grad(loss, list(objective.parameters), retain_graph=True)
        assert all(slope.isfinite().all() for slope in slopes)
        assert sum(slope.abs().sum() > 0 for slope in slopes) >= 0.9 * len(slopes)


def test_the_same_noise_the_same_image(pupil):
    pupil.eval()
    f, c = torch.randn(3, 6), torch.tensor([0, 1, 2])
    drawn = [pupil.draw(f, c, rng=torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)]
    assert drawn[0].shape == (3, 3, 16, 16)
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
    assert drawn[0].min() >= 0
    assert drawn[0].max() <= 1


def test_what_is_kept_is_enough_to_draw(pupil):
    again = Artist(6, 4, SMALL)
    again.load_state_dict(pupil.finished())
    f, c = torch.randn(3, 6), torch.tensor([3, 1, 2])
    assert torch.equal(again.eval().draw(f, c), pupil.eval().draw(f, c))
