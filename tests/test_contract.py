"""Contract test of every family, on images and on vectors."""

import pytest
import torch

from likely.base import (
    Domain,
    FitsInClosedForm,
    GenerativeModel,
    HasEmbedding,
    HasFeatures,
    ImportanceWeighted,
    Latent,
    LatentClassMixture,
    LikelihoodKind,
    Scorer,
    SupportsMissingPixels,
    SupportsNewClasses,
    Task,
)
from likely.evaluation.metrics import bits_per_dim
from likely.inference.posterior import log_posterior
from likely.models import FAMILIES, family
from likely.models.autoregressive import Autoregressive
from likely.models.gan import GAN
from likely.networks.tokenizer import LevelTokenizer

K = 3
SMALL = {
    "vae": {"latent_dims": 4, "width": 4},
    "vaegan": {"latent_dims": 4, "width": 4},
    "gan": {"latent_dims": 4, "width": 4},
    "flow": {"n_couplings": 1, "width": 4},
    "softmax": {"width": 4},
    "autoregressive": {
        "channels": 8,
        "heads": 2,
        "tokenizer": {"width": 4, "grid": 3, "code_levels": 4, "masked_fraction": 0.5},
    },
    "gaussian": {},
}
VARIANTS = [
    ("gaussian", {"covariance": "per_class"}),
    ("gaussian", {"covariance": "diagonal"}),
    ("vae", {"class_weight": 0}),
    ("vaegan", {"loss": "hinge", "diff_augment": "color,shift,cutout"}),
    ("gan", {"preset": "classifier"}),
    (
        "gan",
        {
            "preset": "classifier",
            "architecture": "dense",
            "generator_architecture": "dense",
            "norm": "fixed_weight_norm",
        },
    ),
    ("gan", {"loss": "hinge", "norm": "spectral", "feature_matching": 1.0}),
    ("gan", {"loss": "wgan-gp", "head": "auxiliary", "norm": "weight", "noise": 0.1}),
    ("flow", {"class_weight": 0}),
    ("autoregressive", {"tokens": "pixels", "levels": 4}),
    ("autoregressive", {"tokens": "pixels", "palette": 8, "average": "logsumexp"}),
    ("autoregressive", {"network": "lstm", "order": "raster", "class_fraction": 0.3}),
    ("autoregressive", {"tokens": "pixels", "network": "lstm", "levels": 256}),
    ("autoregressive", {"conditioning": "late"}),
    ("autoregressive", {"conditioning": "full", "class_weight": 0}),
]
CASES = [(name, {}) for name in FAMILIES] + VARIANTS
SHAPES = {"gray": (1, 9, 6), "color": (3, 8, 8), "vectors": (5,)}
LABELS = torch.tensor([0, 1, 2, 1, -1, 0, 2, 1])


def images(shape, n=8, seed=0):
    """Class-dependent images of 8 bits, or vectors."""
    rng = torch.Generator().manual_seed(seed)
    if len(shape) == 1:
        return 3 + 10 * torch.randn(n, *shape, generator=rng)
    return torch.randint(0, 256, (n, *shape), generator=rng) / 255


def cases_with(capability, shapes=SHAPES):
    """Parametrize a test with every family, variant and shape that has a capability."""
    cases = [
        pytest.param(case, SHAPES[shape], id="-".join([case[0], *map(str, case[1].values()), shape]))
        for case in CASES
        if issubclass(family(case[0]), capability)
        for shape in shapes
    ]
    return pytest.mark.parametrize(("case", "shape"), cases)


@pytest.fixture
def model(case, shape):
    """A model of the family that has seen its training images once, in evaluation mode."""
    return built(case, shape)


def built(case, shape):
    name, options = case
    kind = family(name)
    torch.manual_seed(0)
    made = kind(Task(shape, (4, 2, 6)), kind.options_type(**SMALL[name] | options))
    if isinstance(made, FitsInClosedForm):
        made.update_statistics(images(shape), LABELS)
        made.finalize_statistics()
    return made.eval()


@cases_with(Scorer)
def test_log_scores_have_shape_images_by_classes(model, shape):
    x = images(shape)
    assert model.log_scores(x).shape == (8, K)
    assert model.log_scores(x).dtype == torch.float32


@cases_with(GenerativeModel)
def test_log_likelihood_has_shape_images_by_classes(model, shape):
    L = model.log_likelihood(images(shape))
    assert L.shape == (8, K)
    assert L.isfinite().all()


@cases_with(GenerativeModel)
def test_log_scores_equal_corrected_log_likelihood_up_to_a_constant_per_image(model, shape):
    x = images(shape)
    difference = (model.log_likelihood(x) + model.score_correction - model.log_scores(x)).double()
    torch.testing.assert_close(difference, difference.mean(1, keepdim=True).expand(-1, K), rtol=1e-4, atol=1e-3)


@cases_with(Scorer)
def test_posteriors_sum_to_one(model, shape):
    p = log_posterior(model.log_scores(images(shape)), model.log_prior).exp()
    torch.testing.assert_close(p.sum(1), torch.ones(8, dtype=torch.float64))


@cases_with(Scorer)
def test_single_image_and_batch_agree(model, shape):
    x = images(shape)
    one_by_one = torch.cat([model.log_scores(image[None]) for image in x])
    torch.testing.assert_close(model.log_scores(x), one_by_one, rtol=1e-4, atol=1e-4)


@cases_with(Scorer)
def test_every_parameter_gets_a_gradient(model, shape):
    model.train()
    named = dict(model.named_parameters())
    reached = set()
    for objective in model.objectives():
        rng = torch.Generator().manual_seed(0)
        gradients = torch.autograd.grad(objective.loss(images(shape), LABELS, rng), list(objective.parameters))
        names = {id(parameter): name for name, parameter in named.items()}
        reached |= {names[id(p)] for p, g in zip(objective.parameters, gradients, strict=True) if g.abs().sum() > 0}
    assert reached == set(named)


@cases_with(Scorer)
def test_loss_of_unlabeled_images_is_finite(model, shape):
    for objective in model.objectives():
        loss = objective.loss(images(shape), torch.full((8,), -1), torch.Generator().manual_seed(0))
        assert loss.isfinite()


@cases_with(GenerativeModel)
def test_results_are_determined_by_the_generator(model, shape):
    c = torch.tensor([0, 1, 2, 2])
    first, again, other = (model.sample(c, rng=torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    L = [model.log_likelihood(images(shape), rng=torch.Generator().manual_seed(1)) for _ in range(2)]
    assert torch.equal(*L)


@cases_with(GenerativeModel)
def test_samples_have_the_shape_and_range_of_images(model, shape):
    for rng in (None, torch.Generator().manual_seed(0)):
        x = model.sample(torch.tensor([0, 1, 2, 2]), rng=rng)
        assert x.shape == (4, *shape)
        assert x.isfinite().all()
        if len(shape) == 3:
            assert 0 <= x.min() <= x.max() <= 1


@cases_with(GenerativeModel)
def test_likelihood_type_has_the_domain(model, shape):
    domain = Domain.PIXELS8 if len(shape) == 3 else Domain.FEATURES
    if isinstance(model, Autoregressive):
        domain = model.tokenizer.domain
        assert domain is (
            Domain.PIXELS8 if isinstance(model.tokenizer, LevelTokenizer) and len(shape) == 3 else Domain.TOKENS
        )
    assert model.likelihood_type.domain is domain
    assert model.likelihood_type.has_bits_per_dim == (
        domain is Domain.PIXELS8 and model.likelihood_type.kind is not LikelihoodKind.UNNORMALIZED
    )


@cases_with(GenerativeModel)
def test_outputs_agree_with_the_methods(model, shape):
    x = images(shape)
    outputs = model.outputs(x)
    assert torch.equal(outputs.log_scores, model.log_scores(x))
    torch.testing.assert_close(outputs.log_likelihood, model.log_likelihood(x), rtol=1e-5, atol=1e-3)
    assert outputs.statistics.shape[:2] == (8, K)
    for values in (outputs.features, outputs.latent, outputs.log_odds_real, outputs.statistics):
        assert values is None or (len(values) == 8 and values.isfinite().all())
    assert (outputs.latent is not None) == isinstance(model, HasEmbedding)
    if outputs.latent is not None:
        torch.testing.assert_close(outputs.latent, model.embed(x))


@cases_with(LatentClassMixture)
def test_latent_mixture_encodes_and_decodes(model, shape):
    z = model.encode(images(shape))
    mean, log_scale = model.components()
    assert mean.shape == log_scale.shape == (K, z.shape[1])
    assert model.decode(z).shape == (8, *shape)


@cases_with(Latent)
def test_decoded_latents_are_samples_and_truncation_scales_the_noise(model, shape):
    c = torch.tensor([0, 1, 2, 2])
    mean, sampled, truncated = (
        model.latent(c, rng=rng and torch.Generator().manual_seed(0), truncation=t)
        for rng, t in ((None, 1.0), (True, 1.0), (True, 0.5))
    )
    torch.testing.assert_close(truncated - mean, (sampled - mean) / 2)
    torch.testing.assert_close(model.decode(sampled), model.sample(c, rng=torch.Generator().manual_seed(0)))
    torch.testing.assert_close(model.decode(mean), model.sample(c))


@cases_with(SupportsMissingPixels, ("gray", "color"))
def test_values_of_hidden_pixels_have_no_effect(model, shape):
    x, c = images(shape), LABELS.clamp_min(0)
    observed = torch.rand(8, *shape[1:], generator=torch.Generator().manual_seed(1)) < 0.5
    observed[0] = False
    with torch.no_grad():
        found = model.observed_log_likelihood(x, observed)
        other = torch.where(observed[:, None], x, images(shape, seed=2))
        torch.testing.assert_close(model.observed_log_likelihood(other, observed), found, rtol=1e-5, atol=1e-4)
        one_by_one = [model.observed_log_likelihood(x[i : i + 1], observed[i : i + 1]) for i in range(8)]
        torch.testing.assert_close(torch.cat(one_by_one), found, rtol=1e-4, atol=1e-3)
        assert found.shape == (8, K)
        assert found.isfinite().all()
        assert found[0].eq(0).all()
        whole = model.impute(x, observed, c)
    assert torch.equal(torch.where(observed[:, None], whole, 0), torch.where(observed[:, None], x, 0))
    assert 0 <= whole.min() <= whole.max() <= 1


@cases_with(SupportsNewClasses)
def test_new_class_leaves_the_others_unchanged(model, shape):
    few, x = images(shape, n=5, seed=3), images(shape)
    for n in (1, 5):
        larger = model.with_new_class(few[:n])
        assert larger.task.class_counts == (4, 2, 6, n)
        assert larger.likelihood_type == model.likelihood_type
        with torch.no_grad():
            assert torch.isfinite(larger.log_likelihood(x)).all()
            torch.testing.assert_close(larger.log_likelihood(x)[:, :K], model.log_likelihood(x), rtol=1e-5, atol=1e-5)
            old, new = model.log_scores(x), larger.log_scores(x)[:, :K]
            torch.testing.assert_close((new - new[:, :1]).double(), (old - old[:, :1]).double(), rtol=1e-5, atol=1e-4)
            assert larger.sample(torch.tensor([K]), rng=torch.Generator().manual_seed(0)).shape == (1, *shape)
        state = larger.state_dict()
        for name, before in model.state_dict().items():
            assert torch.equal(state[name][: len(before)] if before.ndim else state[name], before)
        before, after = model.outputs(x).log_odds_real, larger.outputs(x).log_odds_real
        if before is not None:
            torch.testing.assert_close(after, before)


@cases_with(HasFeatures)
def test_features_are_one_vector_per_image(model, shape):
    features = model.features(images(shape))
    assert features.dtype == torch.float32
    assert features.ndim == 2
    assert len(features) == 8
    assert features.isfinite().all()


@cases_with(GAN)
def test_marginal_likelihood_of_a_gan_is_the_log_odds_of_being_real(model, shape):
    found = model.outputs(images(shape))
    evidence = (found.log_likelihood + model.log_prior).logsumexp(1)
    if model.settings.loss == "bce":
        torch.testing.assert_close(evidence, found.log_odds_real)
    else:
        assert found.log_odds_real is None


@cases_with(Scorer)
def test_state_dict_determines_the_scores(case, shape):
    model, other = built(case, shape), built(case, shape)
    with torch.no_grad():
        for t in other.state_dict().values():
            t.fill_(1) if t.is_floating_point() else t
    other.load_state_dict(model.state_dict())
    assert torch.equal(model.log_scores(images(shape)), other.log_scores(images(shape)))


def estimates(estimate, x, n):
    """n estimates of every image (N, K), each of a noise of its own: (n, N, K)."""
    return estimate(x.repeat(n, *[1] * (x.ndim - 1))).unflatten(0, (n, len(x))).double()


@cases_with(ImportanceWeighted)
def test_elbo_never_exceeds_the_importance_weighted_bound(case, shape):
    model = built(case, shape)
    x, n = images(shape), 200
    rng = torch.Generator().manual_seed(0)
    elbos = estimates(lambda x: model.log_likelihood(x, rng=rng), x, n)
    tight = estimates(lambda x: model.importance_weighted(x, 50, rng=rng), x, 20)
    error = (elbos.var(0) / n + tight.var(0) / 20).sqrt()
    # 24 comparisons: at four standard errors one in a thousand runs of a right model would fail, and rounding is allowed for.
    assert (elbos.mean(0) <= tight.mean(0) + 4 * error + 1e-5 * elbos.mean(0).abs()).all()


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_importance_weighted_bound_with_one_sample_is_the_elbo(shape):
    model = built(("vae", {}), shape)
    x, n = images(shape), 400
    rng = torch.Generator().manual_seed(0)
    elbos = estimates(lambda x: model.log_likelihood(x, rng=rng), x, n)
    single = estimates(lambda x: model.importance_weighted(x, 1, rng=rng), x, n)
    error = ((elbos.var(0) + single.var(0)) / n).sqrt()
    assert ((elbos.mean(0) - single.mean(0)).abs() <= 4.5 * error + 1e-5 * elbos.mean(0).abs()).all()


def test_gaussian_agrees_with_its_closed_form():
    x, y = torch.randn(40, 4, generator=torch.Generator().manual_seed(0)), torch.arange(40) % 2
    kind = family("gaussian")
    model = kind(Task((4,), (20, 20)), kind.options_type(covariance="per_class", shrinkage=0.0))
    model.update_statistics(x, y)
    model.finalize_statistics()
    for c in range(2):
        own = x[y == c].double()
        covariance = own.T.cov(correction=0) + 1e-6 * own.T.cov(correction=0).diagonal().mean() * torch.eye(4).double()
        expected = torch.distributions.MultivariateNormal(own.mean(0), covariance).log_prob(x.double())
        torch.testing.assert_close(model.log_likelihood(x)[:, c].double(), expected, rtol=1e-5, atol=1e-5)


def test_gaussian_bound_on_pixels_is_the_mean_over_dequantization_noise():
    shape, kind = (1, 2, 2), family("gaussian")
    model = kind(Task(shape, (8,)), kind.options_type())
    model.update_statistics(images(shape), torch.zeros(8, dtype=torch.long))
    model.finalize_statistics()
    x, n = images(shape, n=1), 200_000
    precision = (model.whitening[0].T @ model.whitening[0]).float()
    density = torch.distributions.MultivariateNormal(model.mean[0].float(), precision_matrix=precision)
    noise = (torch.rand(n, 4, generator=torch.Generator().manual_seed(0)) - 0.5) / 255
    log_bins = density.log_prob(x.flatten(1) + noise) - 4 * torch.tensor(255.0).log()
    expected, error = log_bins.mean(), log_bins.std() / n**0.5
    assert (model.log_likelihood(x)[0, 0] - expected).abs() < 4 * error + 1e-4
    assert model.log_likelihood(x)[0, 0] <= (log_bins.logsumexp(0) - torch.tensor(float(n)).log()) + 4 * error + 1e-4


def test_bits_per_dim_of_a_gaussian_is_its_entropy():
    """A wide Gaussian on pixels: −log2 of a bin's mass, per dimension, is its differential entropy in units of bins."""
    kind, scale, rng = family("gaussian"), 0.08, torch.Generator().manual_seed(0)
    x = (0.5 + scale * torch.randn(20_000, 1, 1, 2, generator=rng)).mul(255).round() / 255
    model = kind(Task((1, 1, 2), (20_000,)), kind.options_type(shrinkage=0.0))
    model.update_statistics(x, torch.zeros(len(x), dtype=torch.long))
    model.finalize_statistics()
    entropy = 0.5 * torch.log2(torch.tensor(2 * torch.pi * torch.e * (scale * 255) ** 2)).item()
    assert bits_per_dim(model.log_likelihood(x)[:, 0].numpy(), 2) == pytest.approx(entropy, abs=0.02)


def test_too_large_covariance_is_rejected():
    kind = family("gaussian")
    with pytest.raises(ValueError, match="diagonal"):
        kind(Task((3, 64, 64), (5, 5)), kind.options_type())


def test_unknown_family_suggests_the_nearest():
    with pytest.raises(ValueError, match="'gaussian'"):
        family("gausian")


def test_options_reject_unknown_names():
    for kind in FAMILIES.values():
        with pytest.raises(ValueError, match="latent_dim_s"):
            kind.options_type(latent_dim_s=3)
