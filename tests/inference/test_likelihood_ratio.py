"""Likelihood ratio: invariant to what lowers every likelihood alike, low for images equally near to all classes."""

import torch

from likely.inference.likelihood_ratio import DEFAULT_OPTIONS, LikelihoodRatioScore, combine_max, log_ratio

K = 3


def random_scores(n, seed=0):
    """Scores (n, K) of images that are about 10 nats nearer to their own classes (n,)."""
    rng = torch.Generator().manual_seed(seed)
    y = torch.arange(n) % K
    scores = torch.randn(n, K, generator=rng)
    scores[torch.arange(n), y] += 10 + torch.randn(n, generator=rng)
    return scores, y


def learned(n=300):
    scores, y = random_scores(n)
    return LikelihoodRatioScore.fit(log_ratio(scores, K).gather(1, y[:, None])[:, 0], y, K)


def test_the_log_ratio_ignores_terms_common_to_all_classes():
    scores, _ = random_scores(20, seed=1)
    torch.testing.assert_close(log_ratio(scores + 1000 * torch.rand(20, 1), K), log_ratio(scores, K), rtol=0, atol=1e-3)
    torch.testing.assert_close(log_ratio(scores, K).sum(1), torch.zeros(20), rtol=0, atol=1e-4)


def test_an_image_equally_near_to_every_class_is_nonconforming():
    contrast, (scores, y) = learned(), random_scores(100, seed=2)
    own = contrast(scores).gather(1, y[:, None])
    between = contrast(torch.randn(100, K, generator=torch.Generator().manual_seed(3)))
    assert (between.amin(1).median() > own.quantile(0.99)).all()
    torch.testing.assert_close(
        own[:, 0], contrast.score_true_class(log_ratio(scores, K).gather(1, y[:, None])[:, 0], y)
    )


def test_a_higher_ratio_never_increases_nonconformity():
    contrast, (scores, y) = learned(), random_scores(100, seed=2)
    clearer = scores + 5 * torch.nn.functional.one_hot(y, K)
    before, after = (contrast(each).gather(1, y[:, None]) for each in (scores, clearer))
    assert (after < before).all()


def test_scores_are_in_deviations_of_each_class():
    """A class whose images differ twice as much is twice as lenient."""
    own = torch.cat([torch.linspace(8, 12, 300), torch.linspace(6, 14, 300)])
    y = torch.arange(2).repeat_interleave(300)
    found = LikelihoodRatioScore.fit(own, y, 2).score_true_class(torch.tensor([8.0, 6.0]), torch.tensor([0, 1]))
    torch.testing.assert_close(found, torch.tensor([2.0, 2.0]), rtol=0.05, atol=0)


def test_an_image_is_nonconforming_by_its_distance_or_by_its_ratio():
    distance, low_contrast = torch.tensor([[9.0, 0.0, 0.0]]), torch.tensor([[0.0, 4.0, -3.0]])
    torch.testing.assert_close(
        combine_max(distance, low_contrast),
        torch.tensor([[9.0 - DEFAULT_OPTIONS.distance_tolerance, 4.0, -DEFAULT_OPTIONS.distance_tolerance]]),
    )


def test_a_new_class_does_not_join_the_background():
    contrast, (scores, _) = learned(), random_scores(40, seed=4)
    last = torch.cat([torch.zeros(12, K), torch.full((12, 1), 8.0)], 1) + torch.randn(12, 1)
    larger, new_scores = contrast.with_new_class(last)
    assert new_scores.shape == (12,)
    more = torch.cat([scores, 100 * torch.ones(40, 1)], 1)
    torch.testing.assert_close(larger(more)[:, :K], contrast(scores))


def test_tensors_round_trip():
    contrast, (scores, _) = learned(), random_scores(9, seed=5)
    again = LikelihoodRatioScore.from_tensors(contrast.tensors())
    assert again.n_background == K
    torch.testing.assert_close(again(scores), contrast(scores), rtol=0, atol=0)
