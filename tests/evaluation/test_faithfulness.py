"""Deleting pixels: when an answer flips, and who finds the pixels that it rests on."""

import pytest
import torch

from likely.evaluation.faithfulness import attribution_rankings, deletion_curve

SHAPE = (1, 5, 10)


def generator(seed):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def linear():
    """Two classes; every pixel speaks for the first with a weight of its own, or against it."""
    weight = torch.randn(50, generator=generator(0))
    return lambda x: torch.stack([x.flatten(1) @ weight + 0.05, torch.zeros(len(x))], 1)


def for_the_first(log_scores, n=20):
    x = torch.rand(400, *SHAPE, generator=generator(1))
    x = x[log_scores(x).argmax(1) == 0]
    return x[:n]


def test_of_what_adds_up_no_order_flips_the_answer_sooner_than_its_evidence(linear):
    x, black = for_the_first(linear), torch.zeros(SHAPE)
    ranked = attribution_rankings(linear, x, black, torch.rand(SHAPE, generator=generator(2)), rng=generator(3))
    by_attribution = deletion_curve(linear, x, ranked["attribution"], black)
    for other in ("gradient", "variance", "random"):
        assert (by_attribution <= deletion_curve(linear, x, ranked[other], black)).all()
    assert by_attribution.mean() < deletion_curve(linear, x, ranked["random"], black).mean()


def test_the_share_is_the_first_at_which_another_class_leads(linear):
    x, black = for_the_first(linear), torch.zeros(SHAPE)
    importance = torch.rand(len(x), 50, generator=generator(4))
    order = importance.argsort(1, descending=True)
    for image, pixels, share in zip(x, order, deletion_curve(linear, x, importance, black), strict=True):
        gone, looks = image.flatten().clone(), []
        for pixel in pixels:
            gone[pixel] = 0
            looks.append(bool(linear(gone[None]).argmax() != 0))
        expected = next((i + 1 for i, flipped in enumerate(looks) if flipped), None)
        assert share == pytest.approx(1.0 if expected is None else expected / 50)


def test_an_answer_that_never_flips_has_lost_everything():
    def certain(x):
        return torch.tensor([[1.0, 0.0]]).expand(len(x), 2)

    assert deletion_curve(certain, torch.rand(3, *SHAPE), torch.rand(3, 50), torch.zeros(SHAPE)).tolist() == [1.0] * 3


def test_the_pixels_of_a_color_image_go_with_all_their_channels():
    def scores(x):
        return torch.stack([x[:, :, 0, 0].sum(1), x[:, :, 0, 1].sum(1) + 0.5], 1)

    x = torch.ones(1, 3, 1, 2)
    x[:, :, 0, 1] = 0
    ranked = attribution_rankings(scores, x, torch.zeros(3, 1, 2), torch.ones(3, 1, 2), rng=generator(0))
    assert ranked["attribution"].tolist() == [[3.0, 0.0]]
    assert deletion_curve(scores, x, ranked["attribution"], torch.zeros(3, 1, 2)).item() == 0.5
