"""Numbers that are a function of where they are used, and random all the same."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chi2

from likely.training.rng import generator, hash_uniforms, permutation

CHANCE = 1e-7  # that a test of randomness fails though the numbers are random
seeds, epochs = st.integers(0, 2**63), st.integers(0, 10_000)
CPU = torch.device("cpu")


def numbers(*, seed=0, epoch=0, n_images=500, n=11):
    return hash_uniforms(seed, epoch, np.arange(n_images), n)


@given(seeds, epochs, st.lists(st.integers(0, 2**40), max_size=8), st.integers(1, 12))
def test_uniforms_lie_in_the_unit_interval(seed, epoch, indices, n):
    u = hash_uniforms(seed, epoch, np.array(indices, np.int64), n)
    assert u.shape == (len(indices), n)
    assert u.dtype == torch.float32
    assert ((u >= 0) & (u < 1)).all()


@given(seeds, epochs, st.lists(st.integers(0, 1000), min_size=1, max_size=8), st.integers(1, 12))
def test_uniforms_do_not_depend_on_the_batch(seed, epoch, indices, n):
    u = hash_uniforms(seed, epoch, np.array(indices), 12)
    for i, row in zip(indices, u, strict=True):
        assert torch.equal(hash_uniforms(seed, epoch, np.array([i]), n)[0], row[:n])


def test_uniforms_differ_by_image_epoch_seed_and_index():
    u = torch.stack([numbers(seed=seed, epoch=epoch, n_images=20) for seed in range(3) for epoch in range(3)])
    # Of 1,980 numbers of 24 bits a pair or two may coincide by chance: n²/2 · 2⁻²⁴ are expected.
    assert len(u.unique()) >= u.numel() - 10


SLICES = {
    "images": lambda: numbers(n_images=20_000, n=1),
    "places": lambda: numbers(n_images=1, n=20_000),
    "epochs": lambda: torch.cat([numbers(epoch=epoch, n_images=2) for epoch in range(1000)]),
    "seeds": lambda: torch.cat([numbers(seed=seed, n_images=2) for seed in range(1000)]),
}


@pytest.mark.parametrize("draw", SLICES.values(), ids=SLICES)
def test_uniforms_are_uniform(draw):
    counts = torch.histc(draw().flatten(), 64, 0, 1)
    expected = counts.sum() / 64
    statistic = ((counts - expected).square() / expected).sum().item()
    assert chi2.ppf(CHANCE, 63) < statistic < chi2.isf(CHANCE, 63)


@pytest.mark.parametrize("draw", SLICES.values(), ids=SLICES)
def test_uniforms_of_adjacent_images_are_uncorrelated(draw):
    u = draw().flatten().double().numpy()
    assert abs(np.corrcoef(u[:-1], u[1:])[0, 1]) < 5.5 / np.sqrt(len(u))  # a normal's chance beyond is 4e-8


@given(seeds, epochs, st.integers(0, 200))
def test_permutation_contains_every_index_once(seed, epoch, n):
    assert sorted(permutation(seed, epoch, n)) == list(range(n))


def test_permutation_depends_on_seed_and_epoch():
    orders = {tuple(permutation(seed, epoch, 30)) for seed in range(5) for epoch in range(5)}
    assert len(orders) == 25
    assert np.array_equal(permutation(3, 4, 30), permutation(3, 4, 30))


def test_generator_depends_on_seed_and_step():
    draws = {torch.rand((), generator=generator(seed, step, CPU)).item() for seed in range(10) for step in range(10)}
    assert len(draws) >= 99
    again = [torch.rand(3, generator=generator(7, 8, CPU)) for _ in range(2)]
    assert torch.equal(*again)


@given(seeds, st.integers(0, 10**9))
def test_generator_accepts_any_seed_and_step(seed, step):
    assert generator(seed, step, CPU).device == CPU


def test_global_generators_are_unused():
    torch.manual_seed(0)
    before, legacy = torch.get_rng_state(), np.random.get_state()[1].copy()
    numbers()
    permutation(0, 0, 10)
    generator(0, 0, CPU)
    assert torch.equal(torch.get_rng_state(), before)
    assert np.array_equal(np.random.get_state()[1], legacy)
