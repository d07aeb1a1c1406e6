"""Known unknown images: p-values among them, and the level of image p-values that use them."""

import pytest
import torch
from scipy.stats import binom
from small_conformal import LOG_PRIOR, K, model_outputs

from likely.base import ModelOutputs
from likely.inference.calibration_data import CalibrationData
from likely.inference.conformal import ImageCalibrator
from likely.inference.decision import DecisionRule
from likely.inference.known_unknowns import KnownUnknowns


def embedded(seed, n, location=0.0):
    """Model outputs of n images with normal embeddings about a location, and labels."""
    outputs, y = model_outputs(seed, n)
    latent = torch.randn(n, 2, generator=torch.Generator().manual_seed(seed + 1)) + location
    return ModelOutputs(outputs.log_scores, None, outputs.statistics, latent=latent), y


def rule(seed, n, unknown):
    data = (CalibrationData.from_outputs(*embedded(seed + i, n), 1.0, unknown) for i in range(2))
    fitted = DecisionRule.fit(*data, LOG_PRIOR, 1.0)
    return DecisionRule(**{**vars(fitted), "known_unknowns": unknown})


def test_p_values_of_unknown_images_among_themselves_are_uniform():
    found = KnownUnknowns.fit(torch.randn(400, 2, generator=torch.Generator().manual_seed(0)))
    p = found.log_p_values(embedded(5, 2000)[0]).exp()
    assert p.min() > 1 / 402
    assert p.max() <= 1
    for level in (0.1, 0.5):
        assert (p <= level).double().mean() == pytest.approx(level, abs=0.1)
    far = found.log_p_values(embedded(5, 20, location=100.0)[0]).exp()
    torch.testing.assert_close(far, torch.full_like(far, 1 / 401))


def test_without_unknown_images_or_an_embedding_every_p_value_is_1():
    outputs, _ = model_outputs(0, 4)
    assert (KnownUnknowns.none().log_p_values(outputs) == 0).all()
    assert (KnownUnknowns.none().log_p_values(embedded(0, 4)[0]) == 0).all()


@pytest.mark.parametrize("m", [1, 5, 100])
@pytest.mark.parametrize("location", [0.0, 4.0])
def test_false_alarms_are_at_most_alpha_whatever_the_unknown_images_are(m, location):
    """One test image for each of 400 draws of calibration images, with unknown images that may be like known ones."""
    alpha, repeats, n_rejected = 0.2, 400, 0
    for seed in range(0, 10 * repeats, 10):
        unknown = KnownUnknowns.fit(embedded(seed + 5, m, location)[0].latent)
        images, _ = embedded(seed, 40)
        scores = images.log_scores.amax(1) + unknown.log_p_values(images)
        n_rejected += int(ImageCalibrator.fit(scores[1:]).p_values(scores[:1], alpha) <= alpha)
    assert n_rejected <= binom(repeats, alpha).isf(1e-5)


def test_images_like_the_unknown_ones_are_rejected_more_often():
    unknown = KnownUnknowns.fit(embedded(1, 50, 4.0)[0].latent)
    images, _ = embedded(3, 300, 4.0)  # known by everything but their embedding
    before, after = (rule(10, 200, u)(images, LOG_PRIOR, 0.1).is_unknown for u in (KnownUnknowns.none(), unknown))
    assert after.double().mean() > before.double().mean() + 0.5
    assert rule(10, 200, unknown)(images, torch.zeros(K), 0.1).image_score.isfinite().all()
