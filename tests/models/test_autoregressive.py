"""Sequence models: normalized under every order, causal, and consistent between scoring, sampling and explaining."""

import itertools

import pytest
import torch
from torch.testing import assert_close

from likely.base import Task
from likely.exceptions import InvalidValueError
from likely.models.autoregressive import Autoregressive, AutoregressiveOptions

SMALL = {"tokens": "pixels", "levels": 4, "channels": 8, "heads": 2}
VARIANTS = [
    {},
    {"network": "lstm"},
    {"conditioning": "late"},
    {"conditioning": "full", "network": "lstm"},
    {"order": "raster"},
    {"average": "logsumexp"},
]
variants = pytest.mark.parametrize("options", VARIANTS, ids=lambda options: "-".join(options.values()) or "default")


def built(shape=(1, 1, 2), counts=(3, 5), **options):
    torch.manual_seed(0)
    model = Autoregressive(Task(shape, counts), AutoregressiveOptions(**SMALL | options)).eval()
    with torch.no_grad():
        for parameter in (model.class_vectors, model.no_class, model.network.start, model.network.to_codes.weight):
            parameter.add_(torch.randn_like(parameter))  # far from uniform
    return model.requires_grad_(False)


def all_images(n_pixels=2):
    """All images of a row of pixels with four levels each."""
    return torch.tensor(list(itertools.product((0, 64, 128, 192), repeat=n_pixels)))[:, None, None] / 255


@variants
@pytest.mark.parametrize("reverse", [False, True])
def test_probabilities_of_all_images_sum_to_one_under_every_order(options, reverse):
    model = built(n_orders=1, **options)
    model.order_keys = torch.tensor([[0.9, 0.1] if reverse else [0.1, 0.9]])
    L = model.log_likelihood(all_images()) + 2 * torch.tensor(64.0).log()  # 64 values per level
    assert_close(L.logsumexp(0), torch.zeros(2), atol=1e-5, rtol=0)
    unconditional = model.unconditional_map(all_images()).flatten(1).sum(1) + 2 * torch.tensor(64.0).log()
    assert_close(unconditional.logsumexp(0), torch.tensor(0.0), atol=1e-5, rtol=0)
    assert L.exp().std() > 0.01


def test_mixture_of_orders_is_normalized_and_its_mean_of_logs_is_a_lower_bound():
    mixture, bound = built(average="logsumexp"), built(average="mean")
    L = mixture.log_likelihood(all_images())
    assert_close((L + 2 * torch.tensor(64.0).log()).logsumexp(0), torch.zeros(2), atol=1e-5, rtol=0)
    assert (bound.log_likelihood(all_images()) <= L + 1e-6).all()
    assert str(mixture.likelihood_type) == "exact on pixels8"
    assert str(bound.likelihood_type) == "lower bound on pixels8"
    assert str(built(order="raster").likelihood_type) == "exact on pixels8"
    assert str(built(tokens="vq").likelihood_type) == "lower bound on tokens"


@variants
def test_tokens_depend_on_those_before_in_the_order(options):
    model = built((1, 2, 3), n_orders=1, **options)
    x = torch.full((1, 1, 2, 3), 0.1)
    order = model.order_keys[0].argsort()
    before = model.likelihood_map(x).flatten(3)
    for i, position in enumerate(order):
        other = x.clone()
        other.flatten()[position] = 0.9
        change = (model.likelihood_map(other).flatten(3) - before).abs().amax((0, 1, 2))[order]
        assert (change[:i] < 1e-6).all()
        assert (change[i:] > 1e-6).all()


@variants
def test_sampling_with_a_cache_follows_the_likelihood(options):
    model, n = built(**options | {"order": "raster"}), 4000
    for c in range(2):
        x = model.sample(torch.full((n,), c), rng=torch.Generator().manual_seed(c))
        codes, _ = model.tokenizer.quantize(x)
        counts = (4 * codes[:, 0] + codes[:, 1]).bincount(minlength=16)
        p = (model.log_likelihood(all_images())[:, c] + 2 * torch.tensor(64.0).log()).exp()
        assert ((counts - n * p).abs() <= 4.5 * (n * p * (1 - p)).sqrt() + 1).all()


@variants
def test_sampling_without_noise_takes_the_most_probable_token(options):
    model = built((1, 2, 2), n_orders=1, **options)
    c = torch.tensor([0, 1])
    x = model.sample(c)
    own = model.likelihood_map(x)[c, c].flatten(1)
    for position, level in itertools.product(range(4), (0, 64, 128, 192)):
        other = x.clone()
        other.flatten(1)[:, position] = level / 255
        assert (model.likelihood_map(other)[c, c].flatten(1)[:, position] <= own[:, position] + 1e-6).all()


def test_low_temperature_samples_the_most_probable_tokens():
    model, c = built((1, 2, 2), order="raster"), torch.tensor([0, 1, 1])
    cold, warm = (model.sample_at(c, T, rng=torch.Generator().manual_seed(0)) for T in (1e-4, 1.0))
    assert_close(cold, model.sample(c))
    assert not torch.equal(cold, warm)


@variants
def test_likelihood_map_sums_to_the_likelihood(options):
    for shape, tokens in (((1, 3, 4), "pixels"), ((3, 8, 9), "vq")):
        model = built(shape, **options | {"tokens": tokens})
        x = torch.rand(3, *shape, generator=torch.Generator().manual_seed(0))
        maps = model.likelihood_map(x)
        L = model.log_likelihood(x)
        assert maps.shape == (3, 2, *shape)
        assert_close(maps.flatten(2).sum(2), L, atol=1e-4, rtol=0)
        ratio = (maps[:, 0] - maps[:, 1]).flatten(1).sum(1)
        assert_close(ratio, L[:, 0] - L[:, 1], atol=1e-4, rtol=0)
        assert_close(model.likelihood_map(x[:1]), maps[:1], atol=1e-4, rtol=0)


def test_evidence_against_no_class_sums_to_the_likelihood_ratio():
    model = built((1, 3, 4))
    x = torch.rand(3, 1, 3, 4, generator=torch.Generator().manual_seed(0))
    statistic = model.outputs(x).statistics[:, :, 1]  # (log p(x | ∅) − log p(x | c)) / T
    difference = model.likelihood_map(x) - model.unconditional_map(x)[:, None]
    assert_close(difference.flatten(2).sum(2), -12 * statistic, atol=1e-4, rtol=0)


@variants
def test_observed_pixels_have_a_normalized_likelihood(options):
    model, x = built(**options), all_images()
    observed = torch.tensor([[False, True]]).expand(16, 1, 2)
    L = model.observed_log_likelihood(x, observed)[:4] + torch.tensor(64.0).log()
    assert_close(L.logsumexp(0), torch.zeros(2), atol=1e-5, rtol=0)
    everything = torch.ones(16, 1, 2, dtype=torch.bool)
    assert_close(model.observed_log_likelihood(x, everything), model.log_likelihood(x))


def test_finalists_have_the_likelihood_of_all_orders():
    counts = (3, 3, 3, 3)
    options = {"conditioning": "full", "n_orders": 4}
    whole, halved = (built((1, 2, 2), counts, finalists=m, **options) for m in (0, 2))
    x = torch.rand(8, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    first = built((1, 2, 2), counts, conditioning="full", n_orders=1).log_likelihood(x)
    best = first.topk(2, 1).indices
    assert_close(halved.log_likelihood(x).gather(1, best), whole.log_likelihood(x).gather(1, best))
    rest = torch.ones_like(first, dtype=torch.bool).scatter(1, best, False)
    assert_close(halved.log_likelihood(x)[rest], first[rest])
    assert (whole.evaluations_per_image, halved.evaluations_per_image) == (16, 10)
    assert built((1, 2, 2), counts).evaluations_per_image == 2


@pytest.mark.parametrize("with_exemplars", [False, True])
def test_new_class_is_predicted_for_images_like_its_own(with_exemplars):
    model = built((1, 3, 3), levels=8)
    dark, light = (torch.rand(20, 1, 3, 3, generator=torch.Generator().manual_seed(i)) / 4 + i * 0.7 for i in (0, 1))
    exemplars = (model.exemplar_features(dark), torch.arange(20) % 2) if with_exemplars else None
    larger = model.with_new_class(light[:12], exemplars)
    assert (larger.log_likelihood(light[12:]).argmax(1) == 2).float().mean() > 0.5
    if with_exemplars:
        assert (larger.log_likelihood(dark).argmax(1) < 2).float().mean() > 0.5


def test_tokenizer_is_trained_first_and_then_fixed():
    model = built((1, 8, 8), tokens="vq", tokenizer={"width": 4, "grid": 2}, tokenizer_time=0.25).requires_grad_(True)
    tokenizer, sequence = model.objectives()
    assert tokenizer.span == (0.0, 0.25)
    assert sequence.span == (0.25, 1.0)
    both = [*tokenizer.parameters, *sequence.parameters]
    assert len(set(map(id, both))) == len(both) == len(list(model.parameters()))
    x, y, rng = torch.rand(8, 1, 8, 8), torch.arange(8) % 2, torch.Generator().manual_seed(0)
    model.train()
    before = {name: value.clone() for name, value in model.tokenizer.state_dict().items()}
    sequence.loss(x, y, rng)
    assert all(torch.equal(value, before[name]) for name, value in model.tokenizer.state_dict().items())
    model.train()
    tokenizer.loss(x, y, rng)
    assert not all(torch.equal(value, before[name]) for name, value in model.tokenizer.state_dict().items())


def test_fewer_images_with_cross_entropy_have_the_same_likelihood():
    whole, some = (built((1, 2, 2), class_weight=0, class_fraction=f).requires_grad_(True) for f in (1.0, 0.3))
    x, y = torch.rand(8, 1, 2, 2, generator=torch.Generator().manual_seed(0)), torch.arange(8) % 2
    losses = [model.objectives()[0].loss(x, y, torch.Generator().manual_seed(0)) for model in (whole, some)]
    assert_close(*losses)


def test_too_long_sequences_are_rejected():
    with pytest.raises(InvalidValueError, match="vq"):
        built((3, 32, 32))


def test_heads_must_divide_the_channels():
    with pytest.raises(InvalidValueError, match="heads"):
        built(channels=9)


@pytest.mark.parametrize(("options", "named"), [({"finalists": 2}, "late"), ({"palette": 4, "tokens": "vq"}, "pixels")])
def test_options_without_effect_are_rejected(options, named):
    with pytest.raises(InvalidValueError, match=named):
        AutoregressiveOptions.from_any(options)
