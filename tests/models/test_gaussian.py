"""Gaussian: offsets, few images, memory limits, missing pixels and shrinkage."""

import numpy as np
import pytest
import torch
from scipy.stats import betabinom
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.naive_bayes import GaussianNB
from torch.distributions import MultivariateNormal
from torch.testing import assert_close

from likely import Classifier
from likely.base import Task
from likely.classifier.trainer import ModelSpec, Trainer
from likely.data.arrays import labeled_dataset
from likely.data.preprocessing import ImageOptions
from likely.data.splits import make_splits
from likely.exceptions import InvalidValueError
from likely.models.gaussian import Gaussian, GaussianOptions

COVARIANCES = ["tied", "per_class", "diagonal"]


def fitted(x, y, batch_size=16, **options):
    model = Gaussian(Task(tuple(x.shape[1:]), tuple(torch.bincount(y).tolist())), GaussianOptions(**options))
    for start in range(0, len(x), batch_size):
        model.update_statistics(x[start : start + batch_size], y[start : start + batch_size])
    model.finalize_statistics()
    return model.eval()


def two_classes(offset, n=400, apart=2.0, n_dims=1):
    """Unit normals whose means are `apart`, in float64: x (n, D), y (n,)."""
    rng = torch.Generator().manual_seed(0)
    y = torch.arange(n) % 2
    x = torch.randn(n, n_dims, generator=rng, dtype=torch.float64)
    return offset + x + apart * y[:, None] / n_dims**0.5, y


@pytest.mark.parametrize("covariance", COVARIANCES)
@pytest.mark.parametrize("offset", [1e8, -1e10])
def test_scores_are_invariant_to_an_offset(covariance, offset):
    x, y = two_classes(0.0, n_dims=3)
    near, far = (fitted(x + shift, y, covariance=covariance) for shift in (0.0, offset))
    assert_close(far.log_scores(x + offset), near.log_scores(x), rtol=1e-3, atol=1e-3)
    assert_close(far.log_likelihood(x + offset), near.log_likelihood(x), rtol=1e-3, atol=1e-3)
    c = torch.zeros(500, dtype=torch.long)
    samples = far.sample(c, rng=torch.Generator().manual_seed(1)) - offset
    assert_close(samples, near.sample(c, rng=torch.Generator().manual_seed(1)), rtol=0, atol=1e-3)


@pytest.mark.parametrize("model", ["gaussian", "vae", "softmax"])
def test_vectors_far_from_zero_are_classified_as_well_as_by_naive_bayes(model):
    x, y = (t.numpy() for t in two_classes(1e8, n=600, apart=3.0, n_dims=2))
    rest, last = slice(400), slice(400, None)
    expected = GaussianNB().fit(x[rest] - 1e8, y[rest]).score(x[last] - 1e8, y[last])
    classifier = Classifier(model, training={"epochs": 10}).fit(x[rest], y[rest])
    assert classifier.score(x[last], y[last]) >= expected - 0.03
    assert all(parameter.dtype == torch.float32 for parameter in classifier.predictor_.model.parameters())


@pytest.mark.parametrize("covariance", COVARIANCES)
def test_statistics_do_not_depend_on_the_batch_size(covariance):
    x, y = two_classes(1e4, n=60, n_dims=4)
    y[::3] = 1  # of other sizes, and batches of one class alone among them
    whole = fitted(x, y, batch_size=60, covariance=covariance)
    for batch_size in (1, 7):
        assert_close(fitted(x, y, batch_size, covariance=covariance).state_dict(), whole.state_dict())


def test_tied_covariance_is_unbiased_with_few_images_per_class():
    rng, K = torch.Generator().manual_seed(0), 2000
    y = torch.arange(2 * K) % K
    x = torch.randn(2 * K, 2, generator=rng, dtype=torch.float64) + 10 * torch.randn(K, 2, generator=rng)[y]
    whitening = fitted(x, y, shrinkage=0.0).whitening[0]
    variances = torch.linalg.inv(whitening.T @ whitening).diagonal()
    # The pooled variance of 2000 degrees of freedom: standard error (2 / 2000)^1/2, four of them.
    assert_close(variances, torch.ones(2, dtype=torch.float64), rtol=0, atol=4 * (2 / K) ** 0.5)
    assert_close(
        torch.linalg.inv(whitening.T @ whitening),
        torch.from_numpy(LinearDiscriminantAnalysis(store_covariance=True).fit(x, y).covariance_) * 2,
        rtol=1e-4,
        atol=1e-5,
    )


@pytest.mark.parametrize("covariance", COVARIANCES)
def test_likelihood_is_finite_with_one_image_per_class(covariance):
    x, y = torch.randn(3, 4, generator=torch.Generator().manual_seed(0)), torch.arange(3)
    assert fitted(x, y, covariance=covariance).log_likelihood(x).isfinite().all()


@pytest.mark.parametrize(
    ("task", "covariance", "gigabytes"),
    [
        (Task((3000,), (5,) * 100), "per_class", "7.2 GB"),
        (Task((3, 64, 64), (5, 5)), "tied", "1.2 GB"),
        (Task((3, 64, 64), (5, 5)), "per_class", "2.4 GB"),
    ],
)
def test_too_large_covariances_are_rejected(task, covariance, gigabytes):
    with pytest.raises(InvalidValueError, match=gigabytes):
        Gaussian(task, GaussianOptions(covariance=covariance))


def test_a_second_fit_starts_from_empty_statistics():
    (x, y), (other, _) = two_classes(0.0, n=20), two_classes(5.0, n=20)
    model = fitted(x, y)
    model.update_statistics(other, y)
    model.finalize_statistics()
    assert_close(model.state_dict(), fitted(other, y, batch_size=20).state_dict())


def test_diagonal_covariance_of_large_images_is_allowed():
    assert Gaussian(Task((3, 64, 64), (5, 5)), GaussianOptions(covariance="diagonal")).whitening.shape == (2, 12288)


def test_diagonal_covariance_agrees_with_naive_bayes():
    x, y = two_classes(1e6, n=20_000, n_dims=2)
    model, reference = fitted(x, y, 256, covariance="diagonal", shrinkage=0.0), GaussianNB().fit(x - 1e6, y)
    np.testing.assert_allclose(model.whitening.square().reciprocal(), reference.var_, rtol=1e-3)
    np.testing.assert_allclose(model.mean - 1e6, reference.theta_, atol=1e-9)


@pytest.fixture(params=COVARIANCES)
def small_images(request):
    """A model of 2x3 images with two channels, fitted on 90 of them, and images with random masks."""
    rng = torch.Generator().manual_seed(0)
    y = torch.arange(90) % 3
    mixing = torch.randn(12, 12, generator=rng) / 4
    x = (torch.randn(90, 12, generator=rng) @ mixing * 0.2 + 0.3 + 0.1 * y[:, None]).reshape(90, 2, 2, 3).clamp(0, 1)
    model = fitted(x, y, covariance=request.param)
    return model, x[:7], torch.rand(7, 2, 3, generator=rng) < 0.6


def test_observed_likelihood_of_vectors_agrees_with_marginals():
    x, y = two_classes(0.0, n_dims=4)
    model = fitted(
        x @ torch.randn(4, 4, generator=torch.Generator().manual_seed(1)).double(), y, covariance="per_class"
    )
    observed = torch.tensor([True, False, True, False])
    precision = model.whitening.mT @ model.whitening
    marginals = [
        MultivariateNormal(mean[observed], P.inverse()[observed][:, observed])
        for mean, P in zip(model.mean, precision, strict=True)
    ]
    expected = torch.stack([marginal.log_prob(x[:9][:, observed]) for marginal in marginals], 1)
    found = model.observed_log_likelihood(x[:9], observed.expand(9, 4))
    assert_close(found.double(), expected, atol=1e-5, rtol=1e-5)


def test_observed_likelihood_of_whole_images_is_the_likelihood(small_images):
    model, x, observed = small_images
    assert_close(
        model.observed_log_likelihood(x, torch.ones_like(observed)), model.log_likelihood(x), atol=1e-4, rtol=1e-4
    )


def test_observed_likelihood_of_nothing_is_zero(small_images):
    model, x, observed = small_images
    assert model.observed_log_likelihood(x, torch.zeros_like(observed)).eq(0).all()


def test_values_of_hidden_pixels_have_no_effect(small_images):
    model, x, observed = small_images
    other = torch.where(observed[:, None], x, 1 - x)
    assert_close(model.observed_log_likelihood(other, observed), model.observed_log_likelihood(x, observed))
    c = torch.tensor([0, 1, 2, 2, 1, 0, 1])
    assert_close(model.impute(other, observed, c), model.impute(x, observed, c))


def test_imputed_pixels_maximize_the_likelihood(small_images):
    """Observed pixels are unchanged, and no other values of the hidden pixels are more likely."""
    model, x, observed = small_images
    c = torch.tensor([0, 1, 2, 2, 1, 0, 1])
    whole = model.impute(x, observed, c)
    shown = observed[:, None].expand_as(x)
    assert_close(whole[shown], x[shown])
    inside = ((whole > 0) & (whole < 1)).flatten(1).all(1)  # elsewhere pixels were clamped
    best = model.log_likelihood(whole).gather(1, c[:, None])
    for seed in range(5):
        nudge = 0.05 * torch.randn(x.shape, generator=torch.Generator().manual_seed(seed))
        other = model.log_likelihood(torch.where(shown, whole, whole + nudge)).gather(1, c[:, None])
        assert (other <= best + 1e-3)[inside].all()
    assert inside.any()


def test_shrinkage_of_features_is_selected_on_held_out_images():
    """Few images in many dimensions, with heavy tails that an estimate for normal ones does not allow for."""
    rng = np.random.default_rng(0)
    means, y = rng.standard_normal((6, 60)), np.arange(300) % 6
    X = 0.5 * means[y] + rng.standard_normal((300, 60)) @ rng.standard_normal((60, 60)) / np.sqrt(
        rng.gamma(1, size=(300, 1))
    )
    splits = make_splits(labeled_dataset(X, y, list("012345"), ImageOptions()), 0)

    def trainer(**options):
        return Trainer(ModelSpec("gaussian", options), splits, list("012345"), None)

    free = trainer()
    for _ in free.steps():
        pass
    train, held_out = free.plan.selection_split(splits, 0)

    def accuracy(shrinkage):
        model = fitted(*(torch.from_numpy(a) for a in (train.images.to_array(), train.labels)), shrinkage=shrinkage)
        scores = model.log_scores(torch.from_numpy(held_out.images.to_array()))
        return (scores.argmax(1).numpy() == held_out.labels).mean()

    found = [accuracy(shrinkage) for shrinkage in Gaussian.constants.shrinkage_candidates]
    chosen = Gaussian.constants.shrinkage_candidates.index(free.predictor.model.shrinkage)
    within = max(found) - (max(found) * (1 - max(found)) / len(held_out)) ** 0.5 - 1 / len(held_out)
    assert found[chosen] >= within
    assert max(found[chosen + 1 :], default=0) <= within + 2 / len(held_out)


def test_shrinkage_without_images_to_hold_out_is_estimated():
    X, y = np.random.default_rng(0).standard_normal((6, 5)), np.arange(6) % 3
    assert Classifier("gaussian").fit(X, y).predictor_.model.shrinkage is None


@pytest.mark.parametrize("covariance", COVARIANCES)
def test_distance_is_that_to_the_nearest_class(covariance):
    x, y = two_classes(1e3, n=300, apart=3.0, n_dims=3)
    model = fitted(x, y, covariance=covariance, shrinkage=0.0)
    at_means = model.outputs(model.mean).distances[:, 0]
    assert_close(at_means, torch.zeros(2), atol=1e-4, rtol=0)
    assert (model.outputs(x + 50).distances[:, 0] > model.outputs(x).distances[:, 0].max()).all()


def test_models_of_pixels_leave_the_distance_to_the_statistics():
    x = torch.rand(20, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    assert fitted(x, torch.arange(20) % 2).outputs(x).distances is None


def test_images_far_from_every_class_have_the_smallest_p_value():
    x, y = (t.numpy() for t in two_classes(0.0, n=600, apart=6.0, n_dims=4))
    classifier = Classifier("gaussian").fit(x[:400], y[:400])
    far = classifier.classify(x[400:] + 40 * np.eye(4)[np.arange(200) % 4])
    assert {each.status.value for each in far} == {"unknown"}
    assert {each.calibration for each in far} == {"cross-conformal"}
    known = [each.p_value <= 0.05 for each in classifier.classify(x[400:])]
    assert sum(known) <= betabinom(200, 20, 381).isf(1e-4)


def test_scores_of_features_do_not_favor_classes_of_many_images():
    """Two classes have the same distribution: their mean scores agree, which those of the plain likelihood do not."""
    rng = torch.Generator().manual_seed(0)
    y = torch.tensor([0] * 400 + [1] * 8)
    new = torch.randn(500, 50, generator=rng, dtype=torch.float64)
    differences = []
    for _ in range(20):
        model = fitted(torch.randn(len(y), 50, generator=rng, dtype=torch.float64), y, shrinkage=0.0)
        pairs = [model.log_scores(new).mean(0), model.log_likelihood(new).mean(0)]
        differences.append([float(pair[0] - pair[1]) for pair in pairs])
    mean, error = np.mean(differences, 0), np.std(differences, 0, ddof=1) / 20**0.5
    assert abs(mean[0]) < 3 * error[0]
    assert mean[1] > 10 * error[1]


def test_outputs_agree_with_the_scores_of_unequal_classes():
    x, y = two_classes(0.0, n_dims=3)
    used = (y == 0) | (torch.arange(len(y)) < 40)
    model = fitted(x[used], y[used])
    found = model.outputs(x).log_scores
    assert_close(found - found.amax(1, keepdim=True), (s := model.log_scores(x)) - s.amax(1, keepdim=True))


def test_relative_distance_is_that_to_the_nearest_class_less_that_to_all_classes():
    """With the covariance Σ + Σ_c π_c (mean_c − μ)(mean_c − μ)ᵀ written out."""
    rng = torch.Generator().manual_seed(0)
    y = torch.arange(90) % 3 * (torch.arange(90) < 60)
    x = (
        torch.randn(90, 5, generator=rng, dtype=torch.float64)
        + torch.randn(3, 5, generator=rng, dtype=torch.float64)[y]
    )
    model = fitted(x, y)
    new = torch.randn(7, 5, generator=rng, dtype=torch.float64)
    fractions = torch.bincount(y) / len(y)
    mean = fractions.double() @ model.mean
    offsets = fractions.double().sqrt()[:, None] * (model.mean - mean)
    within = torch.linalg.inv(model.whitening[0].mT @ model.whitening[0])
    to_all = ((new - mean) @ torch.linalg.inv(within + offsets.mT @ offsets) * (new - mean)).sum(1)
    distance, relative = model.outputs(new).distances.unbind(1)
    assert_close(relative, distance - to_all.float(), rtol=1e-4, atol=1e-4)
