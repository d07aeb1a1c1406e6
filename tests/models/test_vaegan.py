"""The autoencoder with a discriminator: who learns from which of the two losses."""

import pytest
import torch
from torch.testing import assert_close

from likely.base import Task
from likely.models.vae import VAE, VAEOptions
from likely.models.vaegan import VAEGAN, VAEGANOptions

LABELS = torch.tensor([0, 1, 2, 1, -1, 0, -1, 1])
SHAPES = {"images": (1, 8, 8), "vectors": (5,)}
SMALL = {"latent_dims": 3, "width": 4}
ENCODER = ("encoder.", "to_latent.")
DECODER = ("decoder.",)


def generator(seed):
    return torch.Generator().manual_seed(seed)


def images(shape, n=8):
    if len(shape) == 1:
        return 3 + 10 * torch.randn(n, *shape, generator=generator(0))
    return torch.randint(0, 256, (n, *shape), generator=generator(0)) / 255


def built(shape, **options):
    """In evaluation mode: batch normalization would tie the images that are made to those that are remade."""
    torch.manual_seed(0)
    model = VAEGAN(Task(shape, (4, 2, 6)), VAEGANOptions(**SMALL | options))
    model.update_statistics(images(shape), LABELS)
    model.finalize_statistics()
    return model.eval()


def gradients(loss, model, prefixes=("",)):
    named = {name: p for name, p in model.named_parameters() if name.startswith(prefixes)}
    found = torch.autograd.grad(loss, list(named.values()), allow_unused=True)
    return dict(zip(named, found, strict=True))


def autoencoder_gradients(shape, prefixes, **options):
    model = built(shape, **options)
    return gradients(model._autoencoder_loss(images(shape), LABELS, generator(1)), model, prefixes)


@pytest.fixture(params=SHAPES.values(), ids=SHAPES)
def shape(request):
    return request.param


def test_without_a_discriminators_word_it_is_the_autoencoder(shape):
    model, x = built(shape, adversarial_weight=0.0, feature_weight=0.0), images(shape)
    plain = VAE(model.task, VAEOptions(**SMALL)).eval()
    plain.load_state_dict({k: v for k, v in model.state_dict().items() if not k.startswith("discriminator.")})
    rng = generator(1)
    model._sample_classes(x, rng)  # what the larger model draws before the noise on z
    expected = plain._loss(x, LABELS, rng)
    loss = model._autoencoder_loss(x, LABELS, generator(1))
    assert_close(loss, expected)
    found, own = gradients(loss, model), gradients(expected, plain)
    for name, gradient in own.items():
        assert_close(found[name], gradient, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("loss", ["bce", "hinge"])
def test_the_adversarial_loss_teaches_the_decoder_alone(shape, loss):
    prefixes = (*ENCODER, "component_", *DECODER)
    without, with_ = (
        autoencoder_gradients(shape, prefixes, adversarial_weight=weight, feature_weight=0.0, loss=loss)
        for weight in (0.0, 10.0)
    )
    for name in without:
        if not name.startswith(DECODER):
            assert_close(with_[name], without[name], rtol=1e-4, atol=1e-6, msg=name)
    assert any(not torch.allclose(with_[name], without[name]) for name in without if name.startswith(DECODER))


def test_the_distance_of_features_teaches_encoder_and_decoder(shape):
    for part in (ENCODER, DECODER):
        without, with_ = (
            autoencoder_gradients(shape, part, adversarial_weight=0.0, feature_weight=weight) for weight in (0.0, 10.0)
        )
        assert any(not torch.allclose(with_[name], without[name]) for name in without)


@pytest.mark.parametrize("after_a_step", [True, False])
def test_the_discriminators_loss_teaches_the_discriminator_alone(shape, after_a_step):
    model, x = built(shape), images(shape)
    if after_a_step:
        model._autoencoder_loss(x, LABELS, generator(1))
    found = gradients(model._discriminator_loss(x, LABELS, generator(2)), model)
    for name, gradient in found.items():
        if name.startswith("discriminator."):
            assert gradient is not None, name
            assert gradient.abs().sum() > 0, name
        else:
            assert gradient is None, name


def test_the_objectives_share_out_the_parameters(shape):
    model = built(shape, d_lr_ratio=0.25)
    objectives = model.objectives()
    shared_out = [id(p) for objective in objectives for p in objective.parameters]
    assert sorted(shared_out) == sorted(id(p) for p in model.parameters())
    assert [objective.lr_ratio for objective in objectives[:2]] == [1.0, 0.25]
    beside = ["background", "masked"] if len(shape) == 3 else []
    assert [objective.name for objective in objectives] == ["autoencoder", "discriminator", *beside]


def test_the_discriminator_sees_the_images_that_the_decoder_has_just_made(shape):
    model, x = built(shape, fake_ratio=0.5), images(shape)
    model._autoencoder_loss(x, LABELS, generator(1))
    seen = []
    model.discriminator.register_forward_hook(lambda _, given, __: seen.append(given[0]))
    model._discriminator_loss(x, LABELS, generator(2))
    (both,) = seen
    assert len(both) == 8  # four real, four made
    assert torch.equal(both[4:], model._fake)
    assert not model._fake.requires_grad


@torch.no_grad()
@pytest.mark.parametrize(("share", "n", "expected"), [(0.25, 8, 2), (1.0, 8, 8), (0.01, 8, 2), (0.5, 6, 3)])
def test_the_share_of_made_images(share, n, expected):
    model = built((5,), fake_ratio=share)
    c = model._sample_classes(images((5,), n=n), generator(0))
    assert c.shape == (expected,)
    assert set(c.tolist()) <= {0, 1, 2}


@torch.no_grad()
def test_what_is_made_is_no_part_of_the_model(shape):
    model = built(shape)
    names = set(model.state_dict())
    model._autoencoder_loss(images(shape), LABELS, generator(1))
    assert set(model.state_dict()) == names


@torch.no_grad()
def test_asked_for_classes_it_is_the_autoencoder(shape):
    model, x = built(shape), images(shape)
    plain = VAE(model.task, VAEOptions(**SMALL)).eval()
    plain.load_state_dict({k: v for k, v in model.state_dict().items() if not k.startswith("discriminator.")})
    assert torch.equal(model.log_scores(x), plain.log_scores(x))
    assert torch.equal(model.log_likelihood(x), plain.log_likelihood(x))
    assert plain.outputs(x).log_odds_real is None
    assert model.outputs(x).log_odds_real.shape == (len(x),)


def test_the_discriminator_sees_made_pixels_as_a_sample_shows_them():
    model, x = built(SHAPES["images"]), images(SHAPES["images"])
    with torch.no_grad():  # every pixel a little blacker than black
        for layer in model.decoder.modules():
            if isinstance(layer, torch.nn.Conv2d):
                last = layer
        last.weight.zero_()
        last.bias.fill_(-9.0)
    seen = []
    model.discriminator.register_forward_hook(lambda _, given, __: seen.append(given[0]))
    model._autoencoder_loss(x, LABELS, generator(1))
    model._fake = torch.zeros(0)
    model._discriminator_loss(x, LABELS, generator(2))
    for shown in seen:
        assert shown.min() == -1
    assert model.sample(torch.tensor([0])).max() == 0
