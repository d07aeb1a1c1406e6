"""GAN classifier: class logits that are also odds of being real, presets, and the gradients of each loss."""

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize
from torch.testing import assert_close

from likely.base import STORED, Task
from likely.models.gan import GAN, PRESET_TRAINING, PRESETS, GANConstants, GANOptions
from likely.networks.adversarial import ADVERSARIAL_LOSSES

LABELS = torch.tensor([0, 1, 2, 1, -1, 0, -1, 1])
SHAPES = {"images": (1, 8, 8), "vectors": (5,)}
HEADS = ["semi_supervised", "auxiliary"]
SMALL = {"latent_dims": 3, "width": 4, "diff_augment": "none", "noise": 0.0}


def generator(seed):
    return torch.Generator().manual_seed(seed)


def images(shape, n=8, seed=0):
    if len(shape) == 1:
        return 3 + 10 * torch.randn(n, *shape, generator=generator(seed))
    return torch.rand(n, *shape, generator=generator(seed))


def built(shape, **options):
    torch.manual_seed(0)
    model = GAN(Task(shape, (4, 2, 6)), GANOptions(**SMALL | options))
    model.update_statistics(images(shape), LABELS)
    model.finalize_statistics()
    return model


def loss_of(model, name):
    """The loss of the objective of this name."""
    return next(objective.loss for objective in model.objectives() if objective.name == name)


def recorded(network, *, inputs=False):
    """A list that every further pass of a network appends its output to, or its first input."""
    seen = []
    network.register_forward_hook(lambda _, args, output: seen.append(args[0] if inputs else output))
    return seen


def joint(shape, **options):
    """The model of `built` with the same options and weights, but with one objective for both networks."""
    options = GANOptions(**SMALL | options).model_dump() | {"preset": "classifier"}
    return built(shape, **options)


def gradients(loss, network):
    return torch.autograd.grad(loss, list(network.parameters()), retain_graph=True)


@pytest.fixture(params=SHAPES.values(), ids=SHAPES)
def shape(request):
    return request.param


@torch.no_grad()
@pytest.mark.parametrize("head", HEADS)
def test_log_scores_are_logits_minus_log_prior(shape, head):
    model, x = built(shape, head=head).eval(), images(shape)
    _, logits = model.discriminator(2 * x - 1 if len(shape) == 3 else model.standardizer(x))
    assert_close(model.log_scores(x) + model.log_prior, logits)
    assert_close((model.log_scores(x) + model.log_prior).softmax(1), logits.softmax(1))


@torch.no_grad()
@pytest.mark.parametrize("head", HEADS)
def test_log_odds_real_is_logsumexp_of_logits(shape, head):
    model, x = built(shape, head=head).eval(), images(shape)
    logits = model.log_scores(x) + model.log_prior
    with_fake = torch.cat([logits, torch.zeros(8, 1)], 1).softmax(1)
    odds = model.outputs(x).log_odds_real
    assert_close(odds.sigmoid(), logits.logsumexp(1).sigmoid())
    assert_close(odds.sigmoid(), with_fake[:, :-1].sum(1))


@pytest.mark.parametrize("options", [{}, {"head": "semi_supervised"}])
def test_wgan_gp_requires_the_auxiliary_head(options):
    with pytest.raises(ValueError, match="head 'auxiliary'"):
        GANOptions(loss="wgan-gp", **options)
    assert GANOptions(loss="wgan-gp", head="auxiliary").loss == "wgan-gp"


def test_options_reject_a_generator_without_loss():
    with pytest.raises(ValueError, match="aux_class_weight"):
        GANOptions(adversarial_weight=0.0, feature_matching=0.0, aux_class_weight=0.0)


@pytest.mark.parametrize("preset", PRESETS)
def test_preset_sets_defaults(preset):
    options, plain = GANOptions(preset=preset), GANOptions()
    for name in GANOptions.model_fields:
        expected = preset if name == "preset" else PRESETS[preset].get(name, getattr(plain, name))
        assert getattr(options, name) == expected, name
    assert options.training_defaults == PRESET_TRAINING[preset]


@pytest.mark.parametrize("explicit", [{"noise": 0.0}, {"norm": "spectral"}, {"adversarial_weight": 1.0, "width": 8}])
def test_explicit_options_override_the_preset(explicit):
    chosen, preset = GANOptions(preset="classifier", **explicit), GANOptions(preset="classifier")
    for name in GANOptions.model_fields:
        assert getattr(chosen, name) == explicit.get(name, getattr(preset, name)), name


def test_options_survive_a_round_trip():
    options = GANOptions(preset="classifier", noise=0.0)
    assert GANOptions(**options.model_dump()) == options


OTHERS = [
    {"feature_matching": 1.0},
    {"loss": "hinge", "head": "auxiliary"},
    {"adversarial_weight": 0.0, "norm": "weight"},
]


@pytest.mark.parametrize("options", OTHERS, ids=lambda options: "-".join(map(str, options.values())))
def test_joint_loss_has_the_gradients_of_separate_losses(shape, options):
    model, separate, x = joint(shape, **options).train(), built(shape, **options).train(), images(shape)
    loss, losses = loss_of(model, "joint")(x, LABELS, generator(1)), []
    for name in ("discriminator", "generator"):
        losses.append(loss_of(separate, name)(x, LABELS, generator(1)))
        expected = gradients(losses[-1], getattr(separate, name))
        assert any(each.abs().sum() > 0 for each in expected)
        for a, b in zip(gradients(loss, getattr(model, name)), expected, strict=True):
            assert_close(a, b, rtol=1e-4, atol=1e-6)
    assert_close(loss, sum(losses))


def test_generator_terms_do_not_affect_discriminator_gradients(shape):
    x, found = images(shape), []
    for weight in (0.0, 5.0):
        model = joint(shape, adversarial_weight=weight, feature_matching=weight).train()
        found.append(gradients(loss_of(model, "joint")(x, LABELS, generator(1)), model.discriminator))
    for without, with_ in zip(*found, strict=True):
        assert torch.equal(without, with_)


def test_discriminator_terms_do_not_affect_generator_gradients(shape):
    x, found = images(shape), []
    for weight in (0.0, 5.0):  # of the class loss of the discriminator
        model = joint(shape, feature_matching=1.0, class_weight=weight).train()
        found.append(gradients(loss_of(model, "joint")(x, LABELS, generator(1)), model.generator))
    for without, with_ in zip(*found, strict=True):
        assert torch.equal(without, with_)


@torch.no_grad()
def test_feature_matching_is_the_distance_of_mean_features(shape):
    model = built(shape, adversarial_weight=0.0, feature_matching=2.0, aux_class_weight=0.0)
    outputs = recorded(model.discriminator)
    loss = loss_of(model, "generator")(images(shape), LABELS, generator(1))
    (real, _), (fake, _) = outputs
    assert_close(loss, 2 * (real.mean(0) - fake.mean(0)).square().mean())


@torch.no_grad()
@pytest.mark.parametrize(
    ("y", "used"),
    [([0, -1, -1, 2, -1], [1, 2, 4]), ([0, 1, 2, 2, 0], range(5)), ([0, 1, -1, 2, -1], range(5)), ([-1] * 5, range(5))],
)
def test_adversarial_loss_uses_unlabeled_images_if_they_are_the_majority(shape, y, used):
    model, y, x = built(shape, class_weight=0.0), torch.tensor(y), images(shape, n=5)
    loss = loss_of(model, "discriminator")
    before = loss(x, y, generator(1))
    for i in range(5):
        other = x.clone()
        other[i] = images(shape, n=1, seed=9)[0]
        after = loss(other, y, generator(1))
        assert (after != before).item() == (i in used), i


@torch.no_grad()
def test_as_many_fake_images_as_real_ones_in_the_adversarial_loss(shape):
    model = built(shape)
    for y, n in ((LABELS, 8), (torch.where(LABELS == 1, -1, LABELS), 5), (LABELS.clamp_min(0), 8), (LABELS[:1], 2)):
        seen = recorded(model.generator)
        loss_of(model, "discriminator")(images(shape, n=len(y)), y, generator(0))
        assert seen[-1].shape == (n, *shape)


@pytest.mark.parametrize(
    ("options", "bounded"),
    [({}, [True, True]), ({"feature_matching": 1.0}, [True, False]), ({"loss": "hinge"}, [True, False])],
)
def test_objectives_declare_unbounded_losses(options, bounded):
    assert [objective.bounded for objective in built((1, 8, 8), **options).objectives()] == bounded


@torch.no_grad()
def test_discriminator_loss_is_adversarial_plus_class_loss(shape):
    model, x = built(shape, class_weight=3.0).train(), images(shape)
    y = torch.where(LABELS == 1, -1, LABELS)
    outputs = recorded(model.discriminator)
    loss = loss_of(model, "discriminator")(x, y, generator(1))
    (_, logits), (_, fake_logits) = outputs
    adversarial = ADVERSARIAL_LOSSES["bce"].real(logits[y < 0].logsumexp(1))
    adversarial = adversarial + ADVERSARIAL_LOSSES["bce"].fake(fake_logits.logsumexp(1))
    classes = torch.nn.functional.cross_entropy(logits, y, ignore_index=-1)
    assert_close(loss, adversarial + 3 * classes)


def unconditional(shape, **options):
    """A model with an unconditional generator and a discriminator with confident class probabilities."""
    model = built(shape, adversarial_weight=0.0, feature_matching=1.0, aux_class_weight=0.0, **options).eval()
    with torch.no_grad():
        z = built(shape).latent(torch.arange(3).repeat(70), rng=generator(1))
        logits, last = model.log_scores(model.decode(z)) + model.log_prior, model.discriminator.to_logits
        last.bias -= logits.mean(0)
        for parameter in (last.weight, last.bias):
            parameter *= 50 / logits.std(0).min()
    return model


@torch.no_grad()
def test_unconditional_generator_samples_classes_by_resampling(shape):
    model, c = unconditional(shape), torch.tensor([0, 2, 1, 2, 1, 0] * 5)
    found = model.log_scores(model.sample(c, rng=generator(2))) + model.log_prior
    assert (found.argmax(1) == c).float().mean() > 0.8
    sampled = model.latent(c, rng=generator(2))
    assert len(sampled.unique(dim=0)) == len(c)
    assert_close(model.latent(c, rng=generator(2)), sampled)
    mean = model.latent(c)
    assert_close(model.latent(c, rng=generator(2), truncation=0.5), (sampled + mean) / 2)


@torch.no_grad()
def test_number_of_candidates_follows_the_class_prior(shape, monkeypatch):
    """Four candidates are expected per sample, whatever the prior of its class, up to a limit."""
    model = unconditional(shape)
    seen = recorded(model.generator)
    for c, prior in ((0, 4 / 12), (1, 2 / 12), (2, 6 / 12)):
        seen.clear()
        model.latent(torch.full((10,), c), rng=generator(0))
        assert sum(map(len, seen)) == pytest.approx(4 * 10 / prior, abs=1)
    seen.clear()
    monkeypatch.setattr(model, "constants", GANConstants(max_candidates=30))
    model.latent(torch.full((10,), 1), rng=generator(0))
    assert sum(map(len, seen)) == 30


@torch.no_grad()
def test_latents_of_a_conditional_generator_contain_the_class(shape):
    model, c = built(shape), torch.tensor([0, 2, 1])
    z, halved = model.latent(c, rng=generator(2)), model.latent(c, rng=generator(2), truncation=0.5)
    assert torch.equal(z[:, -3:], torch.nn.functional.one_hot(c, 3).float())
    assert_close(halved[:, :-3], z[:, :-3] / 2)
    assert len(z[:, :-3].unique(dim=0)) == 3


@torch.no_grad()
def test_first_batch_initializes_weight_norms_and_dense_generator(shape):
    model = built(shape, norm="fixed_weight_norm", generator_architecture="dense")
    torch.manual_seed(0)
    before = GAN(model.task, model.settings)
    first, last = (m.discriminator.to_logits.parametrizations.weight[0].length for m in (before, model))
    assert not torch.equal(first, last)
    if len(shape) == 3:
        assert_close(model.generator.last.bias, images(shape).mean(0).clamp(0.01, 0.99).logit().flatten())


def test_classifier_preset_rejects_g_lr_ratio():
    with pytest.raises(ValueError, match="g_lr_ratio"):
        GANOptions(preset="classifier", g_lr_ratio=1.0)
    assert GANOptions(g_lr_ratio=1.0).g_lr_ratio == 1
    model = built((5,), preset="classifier")
    (joint,) = model.objectives()
    assert {*joint.parameters} == {*model.parameters()}
    assert [each.lr_ratio for each in built((5,)).objectives()] == [1, 0.2]


def test_classifier_preset_has_a_dense_discriminator():
    model = built((1, 8, 8), preset="classifier", noise=0.5)
    assert any(isinstance(module, nn.Conv2d) for module in model.generator.modules())
    assert all(isinstance(layer, nn.Linear | nn.Sequential) for layer in model.discriminator.trunk.layers)
    assert sum(parametrize.is_parametrized(module, "weight") for module in model.discriminator.trunk.modules()) == 5
    assert parametrize.is_parametrized(model.discriminator.to_logits, "weight")


def test_first_batch_of_one_image_leaves_finite_weights(shape):
    model = GAN(Task(shape, (1, 0, 0)), GANOptions(preset="classifier", latent_dims=3, width=4, generator_width=4))
    model.update_statistics(images(shape, n=1), torch.tensor([0]))
    model.finalize_statistics()
    assert all(t.isfinite().all() for t in model.state_dict().values())


def test_stored_options_do_not_use_presets():
    """An option that came later has its default, not what a preset has come to mean."""
    written = GANOptions(preset="classifier").model_dump()
    del written["generator_width"]
    assert GANOptions.model_validate(written).generator_width == 16
    assert GANOptions.model_validate(written, context={STORED: True}).generator_width is None
