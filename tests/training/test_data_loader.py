"""Batches: every image once an epoch, and always the same ones at the same place."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_trainings import ROUGH, Store, feed

from likely.base import to_unit
from likely.training.data_loader import ShuffledBatches
from likely.training.options import AugmentOptions

sizes = st.integers(1, 40)
batch_sizes = st.integers(2, 12)


def numbered(n, batch_size, seed=0):
    """Batches whose vectors and labels both are the images' numbers."""
    store = Store(n, (1,))
    store.x = torch.arange(n, dtype=torch.float32)[:, None]
    return ShuffledBatches(store, np.arange(n), batch_size=batch_size, seed=seed, augment=None)


@given(sizes, batch_sizes, st.integers(0, 5))
def test_epoch_contains_every_image_once(n, batch_size, epoch):
    batches = list(numbered(n, batch_size)(epoch, 0))
    x, y = torch.cat([x for x, _ in batches]), torch.cat([y for _, y in batches])
    assert sorted(y.tolist()) == list(range(n))
    assert torch.equal(x[:, 0].long(), y)


@given(sizes, batch_sizes)
def test_number_of_batches_and_their_sizes(n, batch_size):
    batches = numbered(n, batch_size)
    counts = [len(y) for _, y in batches(0, 0)]
    assert len(counts) == batches.n_batches
    assert set(counts[:-1]) <= {batch_size}
    assert counts[-1] <= batch_size + 1
    assert n == 1 or min(counts) > 1


@pytest.mark.parametrize(("n", "expected"), [(8, [4, 4]), (9, [4, 5]), (10, [4, 4, 2]), (3, [3]), (5, [5]), (1, [1])])
def test_single_remaining_image_joins_the_last_batch(n, expected):
    assert [len(y) for _, y in numbered(n, 4)(0, 0)] == expected


@given(sizes, batch_sizes, st.integers(0, 3), st.data())
def test_epoch_resumes_at_any_position(n, batch_size, epoch, data):
    batches = numbered(n, batch_size)
    position = data.draw(st.integers(0, batches.n_batches))
    whole, rest = [[y.tolist() for _, y in batches(epoch, start)] for start in (0, position)]
    assert rest == whole[position:]


def test_batches_are_determined_by_epoch_and_position():
    one, other = feed(9, augment=ROUGH), feed(9, augment=ROUGH)
    next(iter(other(5, 1)))  # what was asked for before is no matter
    for (x, y), (x_again, y_again) in zip(one(2, 0), other(2, 0), strict=True):
        assert torch.equal(x, x_again)
        assert torch.equal(y, y_again)


def test_epochs_and_seeds_differ_in_order_and_augmentation():
    epochs = [torch.cat([y for _, y in numbered(30, 4, seed)(epoch, 0)]) for seed in (0, 1) for epoch in (0, 1)]
    assert len(torch.stack(epochs).unique(dim=0)) == 4
    one_image = feed(1, augment=ROUGH)
    changed = [next(iter(one_image(epoch, 0)))[0] for epoch in range(5)]
    assert len(torch.cat(changed).unique(dim=0)) == 5


@given(batch_sizes, batch_sizes)
def test_augmentation_of_an_image_does_not_depend_on_the_batch_size(one, other):
    x, x_other = (torch.cat([x for x, _ in feed(20, batch_size=size, augment=ROUGH)(3, 0)]) for size in (one, other))
    assert torch.equal(x, x_other)


def test_batches_are_in_the_unit_interval_and_channels_last():
    x, _ = next(iter(feed(6, shape=(3, 8, 8), augment=ROUGH)(0, 0)))
    assert x.dtype == torch.float32
    assert x.min() >= 0
    assert x.max() <= 1
    assert x.is_contiguous(memory_format=torch.channels_last)


def test_batches_without_augmentation_are_the_stored_images():
    batches = feed(6)
    for augment in (None, AugmentOptions(shift=0)):
        batches.augment = augment
        x = torch.cat([x for x, _ in batches(0, 0)])
        assert torch.equal(x.flatten(1).sort(0).values, to_unit(batches.images.x).flatten(1).sort(0).values)


def test_vectors_are_not_augmented():
    batches = numbered(6, 4)
    batches.augment = ROUGH
    assert sorted(torch.cat([x[:, 0] for x, _ in batches(0, 0)]).tolist()) == list(range(6))


def test_to_sets_the_device_and_returns_itself():
    batches = feed(6)
    assert batches.to(torch.device("meta")) is batches
    x, y = next(iter(batches(0, 0)))
    assert x.device.type == y.device.type == "meta"


def partly_labeled(n, n_labeled, batch_size, fraction, augment=None):
    """Batches of images that are their own numbers, of which the first few have a label."""
    store = Store(n, (1,))
    store.x = torch.arange(n, dtype=torch.float32)[:, None]
    labels = np.where(np.arange(n) < n_labeled, 0, -1)
    return ShuffledBatches(store, labels, batch_size=batch_size, seed=0, augment=augment, labeled_fraction=fraction)


@given(st.integers(20, 60), st.integers(1, 5), batch_sizes, st.integers(0, 3))
def test_few_labeled_images_are_oversampled(n, n_labeled, batch_size, epoch):
    batches = list(partly_labeled(n, n_labeled, batch_size, 0.5)(epoch, 0))
    numbers = torch.cat([x[:, 0] for x, _ in batches]).long()
    assert sorted(numbers[numbers >= n_labeled].tolist()) == list(range(n_labeled, n))
    for x, y in batches:
        assert int((y >= 0).sum()) == round(batch_size / 2)
        assert torch.equal(y >= 0, x[:, 0] < n_labeled)


@given(st.integers(20, 60), st.integers(1, 5), batch_sizes)
def test_labeled_images_are_oversampled_equally(n, n_labeled, batch_size):
    batches = list(partly_labeled(n, n_labeled, batch_size, 0.5)(0, 0))
    numbers = torch.cat([x[:, 0] for x, _ in batches]).long()
    counts = torch.bincount(numbers[numbers < n_labeled], minlength=n_labeled)
    assert counts.max() - counts.min() <= 1


def test_every_batch_has_at_least_one_labeled_image():
    for x, y in partly_labeled(40, 2, 4, 0.1)(0, 0):
        assert int((y >= 0).sum()) == 1
        assert len(x) > 1


def test_labeled_images_are_shuffled_within_a_batch():
    places = [(y >= 0).nonzero().flatten().tolist() for _, y in partly_labeled(400, 4, 8, 0.25)(0, 0)]
    assert {place for found in places for place in found} == set(range(8))


def test_enough_labeled_images_are_not_oversampled():
    batches = partly_labeled(40, 20, 8, 0.25)
    numbers = torch.cat([x[:, 0] for x, _ in batches(0, 0)]).long()
    assert sorted(numbers.tolist()) == list(range(40))


def test_partly_labeled_epoch_resumes_at_any_position():
    batches = partly_labeled(50, 4, 6, 0.5)
    whole, rest = ([x[:, 0].tolist() for x, _ in batches(1, start)] for start in (0, 5))
    assert rest == whole[5:]
