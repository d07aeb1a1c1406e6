"""VAE-GAN: the gradients of each loss, and scores that are those of the VAE."""

import pytest
import torch
from torch.testing import assert_close

from likely.base import Task
from likely.models.vae import VAE, VAEOptions
from likely.models.vaegan import VAEGAN, VAEGANOptions
from likely.networks.blocks import sample_classes

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
    """A model in evaluation mode: batch normalization would couple generated and reconstructed images."""
    torch.manual_seed(0)
    model = VAEGAN(Task(shape, (4, 2, 6)), VAEGANOptions(**SMALL | options))
    model.update_statistics(images(shape), LABELS)
    model.finalize_statistics()
    return model.eval()


def gradients(loss, model, prefixes=("",)):
    named = {name: p for name, p in model.named_parameters() if name.startswith(prefixes)}
    found = torch.autograd.grad(loss, list(named.values()), allow_unused=True)
    return dict(zip(named, found, strict=True))


def loss_of(model, name):
    """The loss of the objective of this name."""
    return next(objective.loss for objective in model.objectives() if objective.name == name)


def recorded(network):
    """A list that every further pass of a network appends its first input to."""
    seen = []
    network.register_forward_hook(lambda _, args, __: seen.append(args[0]))
    return seen


def autoencoder_gradients(shape, prefixes, **options):
    model = built(shape, **options)
    return gradients(loss_of(model, "autoencoder")(images(shape), LABELS, generator(1)), model, prefixes)


@pytest.fixture(params=SHAPES.values(), ids=SHAPES)
def shape(request):
    return request.param


def test_autoencoder_loss_without_gan_terms_is_the_vae_loss(shape):
    model, x = built(shape, adversarial_weight=0.0, feature_weight=0.0), images(shape)
    plain = VAE(model.task, VAEOptions(**SMALL)).eval()
    plain.load_state_dict({k: v for k, v in model.state_dict().items() if not k.startswith("discriminator.")})
    rng = generator(1)
    sample_classes(model.log_prior, 2, rng)  # sampled before the noise on z: a quarter of the images is generated
    expected = loss_of(plain, "bound")(x, LABELS, rng)
    loss = loss_of(model, "autoencoder")(x, LABELS, generator(1))
    assert_close(loss, expected)
    found, own = gradients(loss, model), gradients(expected, plain)
    for name, gradient in own.items():
        assert_close(found[name], gradient, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("loss", ["bce", "hinge"])
def test_adversarial_loss_has_gradients_for_the_decoder_only(shape, loss):
    prefixes = (*ENCODER, "component_", *DECODER)
    without, with_ = (
        autoencoder_gradients(shape, prefixes, adversarial_weight=weight, feature_weight=0.0, loss=loss)
        for weight in (0.0, 10.0)
    )
    for name in without:
        if not name.startswith(DECODER):
            assert_close(with_[name], without[name], rtol=1e-4, atol=1e-6, msg=name)
    assert any(not torch.allclose(with_[name], without[name]) for name in without if name.startswith(DECODER))


def test_feature_distance_has_gradients_for_encoder_and_decoder(shape):
    for prefixes in (ENCODER, DECODER):
        without, with_ = (
            autoencoder_gradients(shape, prefixes, adversarial_weight=0.0, feature_weight=weight)
            for weight in (0.0, 10.0)
        )
        assert any(not torch.allclose(with_[name], without[name]) for name in without)


@pytest.mark.parametrize("after_a_step", [True, False])
def test_discriminator_loss_has_gradients_for_the_discriminator_only(shape, after_a_step):
    model, x = built(shape), images(shape)
    if after_a_step:
        loss_of(model, "autoencoder")(x, LABELS, generator(1))
    found = gradients(loss_of(model, "discriminator")(x, LABELS, generator(2)), model)
    for name, gradient in found.items():
        if name.startswith("discriminator."):
            assert gradient is not None, name
            assert gradient.abs().sum() > 0, name
        else:
            assert gradient is None, name


def test_objectives_partition_the_parameters(shape):
    model = built(shape, d_lr_ratio=0.25)
    objectives = model.objectives()
    parameters = [id(p) for objective in objectives for p in objective.parameters]
    assert sorted(parameters) == sorted(id(p) for p in model.parameters())
    assert [objective.lr_ratio for objective in objectives[:2]] == [1.0, 0.25]
    auxiliary = ["background", "masked"] if len(shape) == 3 else []
    assert [objective.name for objective in objectives] == ["autoencoder", "discriminator", *auxiliary]


def test_discriminator_is_trained_on_the_images_of_the_current_step(shape):
    model, x = built(shape, fake_ratio=0.5), images(shape)
    seen = recorded(model.discriminator)
    loss_of(model, "autoencoder")(x, LABELS, generator(1))
    loss_of(model, "discriminator")(x, LABELS, generator(2))
    generated, batch = seen
    assert len(batch) == 8  # four real, four generated
    assert torch.equal(batch[4:], generated[:4])
    assert not batch.requires_grad


@torch.no_grad()
@pytest.mark.parametrize(("fake_ratio", "n", "expected"), [(0.25, 8, 2), (1.0, 8, 8), (0.01, 8, 2), (0.5, 6, 3)])
def test_fake_ratio_sets_the_number_of_generated_images(fake_ratio, n, expected):
    model = built((5,), fake_ratio=fake_ratio)
    seen = recorded(model.discriminator)
    loss_of(model, "discriminator")(images((5,), n=n), LABELS[:n], generator(0))
    assert [len(batch) for batch in seen] == [2 * expected]


@torch.no_grad()
def test_training_adds_no_tensors_to_the_state(shape):
    model = built(shape)
    names = set(model.state_dict())
    loss_of(model, "autoencoder")(images(shape), LABELS, generator(1))
    assert set(model.state_dict()) == names


@torch.no_grad()
def test_scores_and_likelihoods_are_those_of_the_vae(shape):
    model, x = built(shape), images(shape)
    plain = VAE(model.task, VAEOptions(**SMALL)).eval()
    plain.load_state_dict({k: v for k, v in model.state_dict().items() if not k.startswith("discriminator.")})
    assert torch.equal(model.log_scores(x), plain.log_scores(x))
    assert torch.equal(model.log_likelihood(x), plain.log_likelihood(x))
    assert plain.outputs(x).log_odds_real is None
    assert model.outputs(x).log_odds_real.shape == (len(x),)


@pytest.mark.parametrize("after_a_step", [True, False])
def test_discriminator_input_is_clamped_as_samples_are(after_a_step):
    model, x = built(SHAPES["images"]), images(SHAPES["images"])
    with torch.no_grad():  # every pixel is below black
        *_, last = (layer for layer in model.decoder.modules() if isinstance(layer, torch.nn.Conv2d))
        last.weight.zero_()
        last.bias.fill_(-9.0)
    seen = recorded(model.discriminator)
    if after_a_step:
        loss_of(model, "autoencoder")(x, LABELS, generator(1))
    loss_of(model, "discriminator")(x, LABELS, generator(2))
    assert all(batch.min() == -1 for batch in seen)
    assert model.sample(torch.tensor([0])).max() == 0
