"""The adversarial classifier: one set of logits for class and realness, presets, and who learns from which loss."""

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
CALM = {"latent_dims": 3, "width": 4, "diff_augment": "none", "noise": 0.0}  # draws the made images and nothing else


def generator(seed):
    return torch.Generator().manual_seed(seed)


def images(shape, n=8, seed=0):
    if len(shape) == 1:
        return 3 + 10 * torch.randn(n, *shape, generator=generator(seed))
    return torch.rand(n, *shape, generator=generator(seed))


def built(shape, **options):
    torch.manual_seed(0)
    model = GAN(Task(shape, (4, 2, 6)), GANOptions(**CALM | options))
    model.update_statistics(images(shape), LABELS)
    model.finalize_statistics()
    return model


def gradients(loss, network):
    return torch.autograd.grad(loss, list(network.parameters()), retain_graph=True)


@pytest.fixture(params=SHAPES.values(), ids=SHAPES)
def shape(request):
    return request.param


@torch.no_grad()
@pytest.mark.parametrize("head", HEADS)
def test_scores_are_logits_without_the_prior(shape, head):
    model, x = built(shape, head=head).eval(), images(shape)
    _, logits = model.discriminator(2 * x - 1 if len(shape) == 3 else model.standardizer(x))
    assert_close(model.log_scores(x) + model.log_prior, logits)
    assert_close((model.log_scores(x) + model.log_prior).softmax(1), logits.softmax(1))


@torch.no_grad()
@pytest.mark.parametrize("head", HEADS)
def test_how_real_is_what_the_logits_sum_to_beside_a_zero_for_made(shape, head):
    model, x = built(shape, head=head).eval(), images(shape)
    logits = model.log_scores(x) + model.log_prior
    with_made = torch.cat([logits, torch.zeros(8, 1)], 1).softmax(1)
    odds = model.outputs(x).log_odds_real
    assert_close(odds.sigmoid(), logits.logsumexp(1).sigmoid())
    assert_close(odds.sigmoid(), with_made[:, :-1].sum(1))


@pytest.mark.parametrize("given", [{}, {"head": "semi_supervised"}])
def test_a_critic_without_odds_is_refused_for_classes_that_share_them(given):
    with pytest.raises(ValueError, match="loss 'wgan-gp' needs head 'auxiliary'"):
        GANOptions(loss="wgan-gp", **given)
    assert GANOptions(loss="wgan-gp", head="auxiliary").loss == "wgan-gp"


def test_a_generator_with_nothing_to_learn_is_refused():
    with pytest.raises(ValueError, match="the generator would learn nothing"):
        GANOptions(adversarial_weight=0.0, feature_matching=0.0, aux_class_weight=0.0)


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_fills_in_what_is_not_set_by_hand(preset):
    options, plain = GANOptions(preset=preset), GANOptions()
    for name in GANOptions.model_fields:
        expected = preset if name == "preset" else PRESETS[preset].get(name, getattr(plain, name))
        assert getattr(options, name) == expected, name
    assert options.training_defaults == PRESET_TRAINING[preset]


@pytest.mark.parametrize("by_hand", [{"noise": 0.0}, {"norm": "spectral"}, {"adversarial_weight": 1.0, "width": 8}])
def test_what_is_set_by_hand_wins_over_the_preset(by_hand):
    chosen, preset = GANOptions(preset="classifier", **by_hand), GANOptions(preset="classifier")
    for name in GANOptions.model_fields:
        assert getattr(chosen, name) == by_hand.get(name, getattr(preset, name)), name


def test_options_written_out_and_read_back_are_the_same():
    options = GANOptions(preset="classifier", noise=0.0)
    assert GANOptions(**options.model_dump()) == options


OTHERS = [
    {"feature_matching": 1.0},
    {"loss": "hinge", "head": "auxiliary"},
    {"adversarial_weight": 0.0, "norm": "weight"},
]


@pytest.mark.parametrize("options", OTHERS, ids=lambda options: "-".join(map(str, options.values())))
def test_in_one_step_each_network_learns_what_it_would_in_turn(shape, options):
    model, x = built(shape, **options).train(), images(shape)
    joint = model._joint_loss(x, LABELS, generator(1))
    apart = {
        model.discriminator: model._discriminator_loss(x, LABELS, generator(1)),
        model.generator: model._generator_loss(x, LABELS, generator(1)),
    }
    for network, loss in apart.items():
        own = gradients(loss, network)
        assert any(each.abs().sum() > 0 for each in own)
        for found, expected in zip(gradients(joint, network), own, strict=True):
            assert_close(found, expected, rtol=1e-4, atol=1e-6)
    assert_close(joint, sum(apart.values()))


def test_what_the_generator_is_after_does_not_move_the_discriminator(shape):
    x, found = images(shape), []
    for weight in (0.0, 5.0):
        model = built(shape, adversarial_weight=weight, feature_matching=weight).train()
        found.append(gradients(model._joint_loss(x, LABELS, generator(1)), model.discriminator))
    for without, with_ in zip(*found, strict=True):
        assert torch.equal(without, with_)


def test_what_the_discriminator_is_after_does_not_move_the_generator(shape, monkeypatch):
    model, x = built(shape, feature_matching=1.0).train(), images(shape)
    expected = gradients(model._joint_loss(x, LABELS, generator(1)), model.generator)
    monkeypatch.setattr(model, "_discriminator_terms", lambda *_: torch.zeros(()))
    for without, with_ in zip(
        gradients(model._joint_loss(x, LABELS, generator(1)), model.generator), expected, strict=True
    ):
        assert torch.equal(without, with_)


@torch.no_grad()
@pytest.mark.parametrize("aux_class_weight", [0.0, 2.0])
def test_features_that_agree_in_the_mean_match(shape, aux_class_weight):
    model = built(shape, adversarial_weight=0.0, feature_matching=1.0, aux_class_weight=aux_class_weight)
    features, logits, c = torch.randn(6, 4, generator=generator(0)), torch.zeros(6, 3), torch.zeros(6).long()
    matched = model._generator_terms((features, logits), c, features.flip(0))
    assert matched.item() == pytest.approx(aux_class_weight * torch.tensor(3.0).log().item(), abs=1e-6)
    apart = model._generator_terms((features, logits), c, features + 2)
    assert (apart - matched).item() == pytest.approx(4, rel=1e-4)


@torch.no_grad()
@pytest.mark.parametrize(
    ("y", "looked_at"),
    [([0, -1, -1, 2, -1], [1, 2, 4]), ([0, 1, 2, 2, 0], range(5)), ([0, 1, -1, 2, -1], range(5)), ([-1] * 5, range(5))],
)
def test_real_images_are_the_unlabeled_ones_where_they_are_most(shape, y, looked_at):
    model, y, x = built(shape, class_weight=0.0), torch.tensor(y), images(shape, n=5)
    before = model._discriminator_loss(x, y, generator(1))
    for i in range(5):
        other = x.clone()
        other[i] = images(shape, n=1, seed=9)[0]
        after = model._discriminator_loss(other, y, generator(1))
        assert (after != before).item() == (i in looked_at), i


@torch.no_grad()
def test_there_are_as_many_made_images_as_real_ones_to_tell_them_from(shape):
    model = built(shape)
    for y, n in ((LABELS, 8), (torch.where(LABELS == 1, -1, LABELS), 5), (LABELS.clamp_min(0), 8), (LABELS[:1], 2)):
        x, c = model._fake_batch(y, generator(0))
        assert x.shape == (n, *shape)
        assert c.shape == (n,)


@pytest.mark.parametrize(
    ("given", "bounded"),
    [({}, [True, True]), ({"feature_matching": 1.0}, [True, False]), ({"loss": "hinge"}, [True, False])],
)
def test_only_losses_that_cannot_grow_without_end_are_watched_for_growing(given, bounded):
    assert [objective.bounded for objective in built((1, 8, 8), **given).objectives()] == bounded


@torch.no_grad()
def test_the_discriminators_loss_is_its_parts(shape):
    model, x = built(shape, class_weight=3.0).train(), images(shape)
    y = torch.where(LABELS == 1, -1, LABELS)
    real, (made, _) = model._augmented_input(x, generator(1)), model._fake_batch(y, generator(1))
    _, logits = model.discriminator(real)
    _, made_logits = model.discriminator(made)
    adversarial = ADVERSARIAL_LOSSES["bce"].real(logits[y < 0].logsumexp(1))
    adversarial = adversarial + ADVERSARIAL_LOSSES["bce"].fake(made_logits.logsumexp(1))
    classes = torch.nn.functional.cross_entropy(logits, y, ignore_index=-1)
    assert_close(model._discriminator_loss(x, y, generator(1)), adversarial + 3 * classes)


def blind(shape, **options):
    """A model whose generator knows no class, while its discriminator is sure of each image's."""
    model = built(shape, adversarial_weight=0.0, feature_matching=1.0, aux_class_weight=0.0, **options).eval()
    with torch.no_grad():
        plain = model._noise_and_class(torch.arange(3).repeat(70), generator(1))
        logits, last = model._discriminate(model.decode(plain))[1], model.discriminator.to_logits
        last.bias -= logits.mean(0)
        for parameter in (last.weight, last.bias):
            parameter *= 50 / logits.std(0).min()
    return model


@torch.no_grad()
def test_a_generator_that_knows_no_class_is_asked_by_what_the_discriminator_says(shape):
    """Among many images of no class there are some of each, as long as the discriminator tells any apart."""
    model, asked = blind(shape), torch.tensor([0, 2, 1, 2, 1, 0] * 5)
    found = model.log_scores(model.sample(asked, rng=generator(2))) + model.log_prior
    assert (found.argmax(1) == asked).float().mean() > 0.8
    drawn = model.latent(asked, rng=generator(2))
    assert len(drawn.unique(dim=0)) == len(asked)
    assert_close(model.latent(asked, rng=generator(2)), drawn)
    mean = model.latent(asked)
    assert_close(model.latent(asked, rng=generator(2), truncation=0.5), (drawn + mean) / 2)


@torch.no_grad()
def test_of_a_rare_class_there_are_as_many_candidates_as_of_any(shape, monkeypatch):
    """Four are expected for each image that is asked for, whatever the class's share; up to a limit."""
    model, n_made = blind(shape), []
    monkeypatch.setattr(model, "decode", lambda z: n_made.append(len(z)) or GAN.decode(model, z))
    for c, share in ((0, 4 / 12), (1, 2 / 12), (2, 6 / 12)):
        n_made.clear()
        model.latent(torch.full((10,), c), rng=generator(0))
        assert sum(n_made) == pytest.approx(4 * 10 / share, abs=1)
    n_made.clear()
    monkeypatch.setattr(model, "constants", GANConstants(max_candidates=30))
    model.latent(torch.full((10,), 1), rng=generator(0))
    assert sum(n_made) == 30


@torch.no_grad()
def test_a_generator_that_knows_its_classes_is_asked_for_them(shape):
    model, asked = built(shape), torch.tensor([0, 2, 1])
    assert_close(model.latent(asked, rng=generator(2)), model._noise_and_class(asked, generator(2)))


@torch.no_grad()
def test_the_first_images_set_lengths_and_where_a_dense_generator_begins(shape):
    model = built(shape, norm="fixed_weight_norm", generator_architecture="dense")
    torch.manual_seed(0)
    before = GAN(model.task, model.settings)
    first, last = (m.discriminator.to_logits.parametrizations.weight[0].length for m in (before, model))
    assert not torch.equal(first, last)
    if len(shape) == 3:
        assert_close(model.generator.last.bias, images(shape).mean(0).clamp(0.01, 0.99).logit().flatten())


def test_networks_that_learn_in_one_step_have_one_rate():
    with pytest.raises(ValueError, match="g_lr_ratio"):
        GANOptions(preset="classifier", g_lr_ratio=1.0)
    assert GANOptions(g_lr_ratio=1.0).g_lr_ratio == 1
    model = built((5,), preset="classifier")
    (joint,) = model.objectives()
    assert {*joint.parameters} == {*model.parameters()}
    assert [each.lr_ratio for each in built((5,)).objectives()] == [1, 0.2]


def test_the_classifier_preset_is_of_the_kind_that_it_says():
    model = built((1, 8, 8), preset="classifier", noise=0.5)
    assert any(isinstance(module, nn.Conv2d) for module in model.generator.modules())
    assert all(isinstance(layer, nn.Linear | nn.Sequential) for layer in model.discriminator.trunk.layers)
    assert sum(parametrize.is_parametrized(module, "weight") for module in model.discriminator.trunk.modules()) == 5
    assert parametrize.is_parametrized(model.discriminator.to_logits, "weight")


def test_a_single_first_image_leaves_a_model_that_can_learn(shape):
    model = GAN(Task(shape, (1, 0, 0)), GANOptions(preset="classifier", latent_dims=3, width=4, generator_width=4))
    model.update_statistics(images(shape, n=1), torch.tensor([0]))
    model.finalize_statistics()
    assert all(t.isfinite().all() for t in model.state_dict().values())


def test_a_stored_model_keeps_the_options_of_its_time():
    """An option that came later has its default, not what a preset has come to mean."""
    written = GANOptions(preset="classifier").model_dump()
    del written["generator_width"]
    assert GANOptions.model_validate(written).generator_width == 16
    assert GANOptions.model_validate(written, context={STORED: True}).generator_width is None
