"""The plane: classes lie as far apart as in any two dimensions, and nothing is further apart on it than it is."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from likely.inference.projection import PCAProjection


@given(st.integers(1, 6), st.integers(1, 5), st.integers(0, 100))
def test_it_is_orthonormal_whatever_the_number_of_classes(K, d, seed):
    places = torch.randn(K, d, generator=torch.Generator().manual_seed(seed))
    plane = PCAProjection.fit(places)
    n = min(2, d)
    torch.testing.assert_close((plane.axes.mT @ plane.axes)[:n, :n], torch.eye(n).double())
    shown = plane(places)
    assert shown.shape == (K, 2)
    assert (torch.cdist(shown, shown) <= torch.cdist(places.double(), places.double()) + 1e-6).all()


@pytest.mark.parametrize("seed", range(5))
def test_no_other_plane_shows_the_classes_further_apart(seed):
    rng = torch.Generator().manual_seed(seed)
    places = torch.randn(7, 5, generator=rng).double()
    spread = PCAProjection.fit(places)(places).square().sum()
    for _ in range(50):
        other, _ = torch.linalg.qr(torch.randn(5, 2, generator=rng).double())
        assert ((places - places.mean(0)) @ other).square().sum() <= spread + 1e-9


def test_the_same_classes_give_the_same_map():
    places = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    assert torch.equal(PCAProjection.fit(places).axes, PCAProjection.fit(places.clone()).axes)


def test_classes_that_are_one_place_have_a_plane_too():
    plane = PCAProjection.fit(torch.zeros(3, 4))
    torch.testing.assert_close(plane.axes.mT @ plane.axes, torch.eye(2).double())
