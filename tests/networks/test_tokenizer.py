"""Tokenizers: codes, the images that they represent, and the pixels that they cover."""

import pytest
import torch
from torch.testing import assert_close

from likely.base import Task
from likely.networks.quantizer import FiniteScalarQuantizer, QuantizerOptions, QuantizingTokenizer
from likely.networks.tokenizer import LevelTokenizer, PaletteTokenizer

COUNTS = (4, 4)
SMALL = QuantizerOptions(width=4, grid=3)


def images(*shape, n=6):
    return torch.randint(0, 256, (n, *shape), generator=torch.Generator().manual_seed(0)) / 255


def palette(x, n_colors):
    made = PaletteTokenizer(Task(tuple(x.shape[1:]), COUNTS), n_colors)
    made.update_statistics(x)
    made.finalize_statistics()
    return made


TOKENIZERS = {
    "levels": lambda x: LevelTokenizer(Task(tuple(x.shape[1:]), COUNTS), 5),
    "palette": lambda x: palette(x, 7),
    "quantizer": lambda x: QuantizingTokenizer(Task(tuple(x.shape[1:]), COUNTS), SMALL).eval(),
}


@pytest.fixture(params=TOKENIZERS.values(), ids=TOKENIZERS)
def tokenizer(request):
    torch.manual_seed(0)
    return request.param(images(3, 9, 8))


def test_codes_are_below_their_number_and_have_their_vectors(tokenizer):
    codes, vectors = tokenizer.quantize(images(3, 9, 8))
    assert codes.shape == (6, tokenizer.n_tokens)
    assert 0 <= codes.min() <= codes.max() < tokenizer.n_codes
    assert_close(vectors, tokenizer.code_vectors[codes])
    assert tokenizer.code_vectors.abs().max() <= 1


def test_value_of_a_token_is_the_sum_over_its_pixels(tokenizer):
    values = torch.randn(2, 3, tokenizer.n_tokens)
    spread = tokenizer.spread(values)
    assert spread.shape == (2, 3, 3, 9, 8)
    assert_close(spread.sum((2, 3, 4)), values.sum(2))


def test_tokens_are_observed_where_pixels_are(tokenizer):
    observed = torch.zeros(1, 9, 8, dtype=torch.bool)
    assert not tokenizer.observed_tokens(observed).any()
    assert tokenizer.observed_tokens(~observed).all()
    observed[:, :6] = True  # two of three rows
    hidden = ~tokenizer.observed_tokens(observed)
    where = tokenizer.spread(hidden.float()).sum((0, 1))
    assert (where[:6] == 0).all()
    assert (where[6:] > 0).all()


def test_gradient_reaches_the_image(tokenizer):
    x = images(3, 9, 8).requires_grad_()
    (gradient,) = torch.autograd.grad(tokenizer.quantize(x)[1].square().sum(), x)
    assert gradient.abs().sum() > 0


@pytest.mark.parametrize("n_levels", [2, 5, 16, 256])
def test_levels_divide_the_values_of_a_pixel(n_levels):
    tokenizer = LevelTokenizer(Task((1, 1, 1), COUNTS), n_levels)
    x = (torch.arange(256) / 255).reshape(-1, 1, 1, 1)
    codes, _ = tokenizer.quantize(x)
    assert (codes.diff(dim=0) >= 0).all()
    assert torch.equal(codes.unique(), torch.arange(n_levels))
    assert_close(tokenizer.log_code_size(codes)[:, 0], codes.flatten().bincount().log()[codes[:, 0]])
    again, _ = tokenizer.quantize(tokenizer.decode(codes))
    assert torch.equal(again, codes)
    assert (tokenizer.decode(codes) - x).abs().max() <= 0.5 / n_levels


def test_levels_of_standard_normal_components_are_equally_probable():
    tokenizer = LevelTokenizer(Task((4,), COUNTS), 8)
    z = torch.randn(5000, 4, generator=torch.Generator().manual_seed(0))
    counts = tokenizer.quantize(z)[0].flatten().bincount(minlength=8)
    assert ((counts - 2500).abs() < 5 * 2500**0.5).all()


def test_palette_holds_the_colors_of_few_colored_images():
    colors = torch.tensor([[0, 0, 0], [255, 0, 0], [10, 200, 30]]) / 255
    index = torch.randint(0, 3, (4, 64), generator=torch.Generator().manual_seed(0))
    x = colors[index].mT.reshape(4, 3, 8, 8)
    made = palette(x, 6)
    assert_close(made.decode(made.quantize(x)[0]), x)


@pytest.mark.parametrize(("n_levels", "n_dims"), [(2, 1), (4, 2), (5, 3)])
def test_every_code_of_finite_scalar_quantization_has_its_own_vector(n_levels, n_dims):
    quantizer = FiniteScalarQuantizer(n_levels, n_dims)
    codes, vectors = quantizer(torch.atanh(0.999 * quantizer.code_vectors))
    assert torch.equal(codes, torch.arange(n_levels**n_dims))
    assert_close(vectors, quantizer.code_vectors)


def test_quantizer_learns_to_reconstruct_and_hidden_pixels_do_not_matter():
    torch.manual_seed(0)
    x, y = images(1, 8, 8, n=16), torch.arange(16) % 2
    tokenizer = QuantizingTokenizer(Task((1, 8, 8), (8, 8)), SMALL)
    optimizer, rng = torch.optim.Adam(tokenizer.parameters(), 1e-2), torch.Generator().manual_seed(0)
    losses = []
    for _ in range(30):
        optimizer.zero_grad()
        losses.append(tokenizer.loss(x, y, rng))
        losses[-1].backward()
        optimizer.step()
    assert losses[-1] < losses[0] - 0.1
    observed = torch.rand(16, 8, 8, generator=rng) < 0.7
    other = torch.where(observed[:, None], x, 1 - x)
    tokenizer.eval()
    assert torch.equal(tokenizer.quantize(x, observed)[0], tokenizer.quantize(other, observed)[0])
    assert not torch.equal(tokenizer.quantize(x)[0], tokenizer.quantize(other)[0])
