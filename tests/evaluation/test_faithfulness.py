"""Deletion of pixels: the fraction at which the prediction flips, by each ranking."""

import pytest
import torch

from likely.evaluation.faithfulness import deletion_fractions

SHAPE = (1, 5, 10)


def generator(seed):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def linear():
    """Log scores of two classes that are linear in the pixels."""
    weight = torch.randn(50, generator=generator(0))
    return lambda x: torch.stack([x.flatten(1) @ weight + 0.05, torch.zeros(len(x))], 1)


def images_of_first_class(log_scores, n=20):
    x = torch.rand(400, *SHAPE, generator=generator(1))
    x = x[log_scores(x).argmax(1) == 0]
    return x[:n]


def deleted(log_scores, x, variance=None, seed=3):
    variance = torch.rand(x.shape[1:], generator=generator(2)) if variance is None else variance
    return deletion_fractions(log_scores, x, torch.zeros(x.shape[1:]), variance, rng=generator(seed))


def test_attribution_flips_a_linear_prediction_first(linear):
    found = deleted(linear, images_of_first_class(linear))
    assert list(found) == ["attribution", "gradient", "variance", "random"]
    for other in ("gradient", "variance", "random"):
        assert (found["attribution"] <= found[other]).all()
    assert found["attribution"].mean() < found["random"].mean()


def test_fraction_is_the_first_at_which_another_class_is_predicted(linear):
    x, importance = images_of_first_class(linear), torch.rand(SHAPE, generator=generator(4))
    order = importance.flatten().argsort(descending=True)
    for image, fraction in zip(x, deleted(linear, x, importance)["variance"], strict=True):
        remaining, flipped = image.flatten().clone(), []
        for pixel in order:
            remaining[pixel] = 0
            flipped.append(bool(linear(remaining[None]).argmax() != 0))
        assert fraction == pytest.approx((flipped.index(True) + 1) / 50 if any(flipped) else 1.0)


def test_fraction_is_1_if_no_deletion_flips_the_prediction():
    def certain(x):
        return torch.stack([1 + 0 * x.flatten(1).sum(1), 0 * x.flatten(1).sum(1)], 1)

    assert all(fraction.tolist() == [1.0] * 3 for fraction in deleted(certain, torch.rand(3, *SHAPE)).values())


def test_all_channels_of_a_pixel_are_deleted_together():
    def scores(x):
        return torch.stack([x[:, :, 0, 0].sum(1), x[:, :, 0, 1].sum(1) + 0.5], 1)

    x = torch.ones(1, 3, 1, 2)
    x[:, :, 0, 1] = 0
    assert deleted(scores, x)["attribution"].item() == 0.5
