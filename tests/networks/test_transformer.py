"""Causal networks of sequences: a position sees those before it, with a cache and without."""

import pytest
import torch
from torch.testing import assert_close

from likely.networks.recurrent import Recurrent
from likely.networks.transformer import Transformer


@pytest.fixture(params=["transformer", "lstm"])
def network(request):
    torch.manual_seed(0)
    return Transformer(8, depth=2, n_heads=2) if request.param == "transformer" else Recurrent(8, depth=2)


@torch.no_grad()
def test_position_depends_on_itself_and_those_before(network):
    x = torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(1))
    before = network(x)
    for t in range(5):
        changed = x.clone()
        changed[:, t] *= -1
        change = (network(changed) - before).abs().amax((0, 2))
        assert (change[:t] == 0).all()
        assert (change[t:] > 1e-6).all()


@torch.no_grad()
def test_steps_with_a_cache_agree_with_the_whole_sequence(network):
    x = torch.randn(3, 6, 8, generator=torch.Generator().manual_seed(1))
    cache, found = [], []
    for t in range(6):
        h, cache = network.step(x[:, t : t + 1], cache)
        found.append(h)
    assert_close(torch.cat(found, 1), network(x))
