"""Coarse answers: sums of fine ones, over groups that the names tell."""

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from likely.inference.hierarchy import levels
from likely.inference.posterior import grouped_logsumexp

words = st.text("abc", min_size=1, max_size=2)
nested = st.lists(st.lists(words, min_size=1, max_size=4).map("/".join), min_size=1, max_size=12, unique=True)


@given(nested, st.integers(0, 9))
def test_a_group_is_as_probable_as_its_classes_together(labels, seed):
    p = torch.randn(5, len(labels), generator=torch.Generator().manual_seed(seed)).double().log_softmax(1)
    for level in levels(labels):
        found = level.log_posterior(p).exp()
        assert_close(found.sum(1), torch.ones(5).double())
        for g, name in enumerate(level.names):
            inside = [c for c, label in enumerate(labels) if f"{label}/".startswith(f"{name}/")]
            own = [c for c in range(len(labels)) if level.group[c] == g]
            assert set(own) <= set(inside)
            assert_close(found[:, g], p[:, own].exp().sum(1))


@given(nested)
def test_levels_become_finer(labels):
    found = levels(labels)
    sizes = [len(level.names) for level in found]
    assert sizes == sorted(set(sizes))
    assert all(1 < size < len(labels) for size in sizes)


def test_flat_classes_have_no_groups():
    assert levels(["sandal", "boot"]) == ()


def test_impossible_in_all_components_is_impossible():
    values = torch.full((2, 1), -torch.inf)
    assert grouped_logsumexp(values, torch.tensor([0, 0]), 2).tolist() == [[-torch.inf], [-torch.inf]]
