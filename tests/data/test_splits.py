"""Splits are disjoint, complete, stratified and reproducible, and keep duplicates together."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from likely.data.dataset import Dataset, LabeledImages
from likely.data.image_dataset import ArrayDataset
from likely.data.splits import MIN_GROUPS, SplitFractions, SplitIndices, group_folds, make_splits, split
from likely.exceptions import DataError

labels_of_few_classes = st.lists(st.integers(-1, 4), max_size=120).map(lambda labels: np.array(labels, np.int64))


def sides(indices: SplitIndices) -> list[np.ndarray]:
    return [indices.train, indices.validation, indices.calibration, indices.test]


def dataset(**splits: LabeledImages) -> Dataset:
    have = {"train": None, "validation": None, "test": None} | splits
    return Dataset("made", ("a", "b"), **have, errors=(), format=None, available=tuple(splits))


def labeled_images(labels: list[int], hashes: list[int]) -> LabeledImages:
    rows = np.array(hashes, np.float64)[:, None]
    return LabeledImages(ArrayDataset(rows, str), np.array(labels, np.int64), np.array(hashes, np.int64))


@given(labels=labels_of_few_classes, test=st.sampled_from([0, 0.2, 0.25]), seed=st.integers(0, 3), data=st.data())
@settings(deadline=None)
def test_every_image_is_in_one_split_and_duplicates_in_the_same(labels, test, seed, data) -> None:
    hashes = np.array(data.draw(st.lists(st.integers(0, 60), min_size=len(labels), max_size=len(labels))), np.int64)
    cut = split(labels, hashes=hashes, fractions=SplitFractions(test=test), seed=seed)
    assert sorted(np.concatenate(sides(cut)).tolist()) == list(range(len(labels)))
    side_of = {}
    for name, indices in enumerate(sides(cut)):
        assert (np.diff(indices) > 0).all()
        for i in indices:
            assert side_of.setdefault(hashes[i], name) == name
    for c in set(labels.tolist()):
        assert (labels[cut.train] == c).any()
    assert not (labels[np.concatenate(sides(cut)[1:])] == -1).any()


@given(labels=labels_of_few_classes, seed=st.integers(0, 3))
@settings(deadline=None)
def test_split_is_determined_by_the_seed(labels, seed) -> None:
    for a, b in zip(sides(split(labels, seed=seed)), sides(split(labels, seed=seed)), strict=True):
        assert np.array_equal(a, b)
    many = np.zeros(200, np.int64)
    assert not np.array_equal(split(many, seed=seed).train, split(many, seed=seed + 1).train)


@given(n=st.integers(1, 400), limit=st.sampled_from([3, 300]))
@settings(deadline=None)
def test_each_class_contributes_its_fractions(n, limit) -> None:
    cut = split(np.array([0] * n + [1] * 50), SplitFractions(max_per_class=limit), seed=0)
    assert (cut.calibration < n).sum() == min(n // 5, limit)
    assert (cut.validation < n).sum() == min(max(n // 10, n >= 5), limit)


def test_test_fraction_is_taken_first() -> None:
    cut = split(np.zeros(100, np.int64), SplitFractions(test=0.2), seed=0)
    assert [len(side) for side in sides(cut)] == [56, 8, 16, 20]


def test_split_of_a_class_does_not_depend_on_other_classes() -> None:
    alone = split(np.zeros(50, np.int64), seed=3)
    beside = split(np.array([0] * 50 + [1] * 30), seed=3)
    assert np.array_equal(alone.calibration, beside.calibration[beside.calibration < 50])


def test_duplicates_with_different_labels_are_training_images() -> None:
    hashes = np.arange(40) % 20
    labels = np.repeat([0, 1], 20)  # every image once under each label
    assert len(split(labels, SplitFractions(test=0.2), hashes=hashes, seed=0).train) == 40


@given(
    labels=st.lists(st.integers(0, 3), min_size=1, max_size=120).map(lambda labels: np.array(labels, np.int64)),
    n_groups=st.integers(1, 60),
    seed=st.integers(0, 3),
)
@settings(deadline=None)
def test_groups_stay_together_and_each_class_keeps_one_to_train(labels, n_groups, seed) -> None:
    groups = np.random.default_rng(seed).integers(0, n_groups, len(labels))
    cut = split(labels, SplitFractions(test=0.2), hashes=np.arange(len(labels)), groups=groups, seed=seed)
    assert sorted(np.concatenate(sides(cut)).tolist()) == list(range(len(labels)))
    for a, b in combinations(sides(cut), 2):
        assert not set(groups[a]) & set(groups[b])
    assert set(labels[cut.train]) == set(labels)


def grouped_images(labels: np.ndarray, n_groups: int, seed: int) -> LabeledImages:
    """Images in random groups, of which some are of several classes."""
    groups = np.random.default_rng(seed).integers(0, n_groups, len(labels))
    return replace(labeled_images(labels.tolist(), list(range(len(labels)))), groups=groups)


@given(labels=labels_of_few_classes, n_groups=st.integers(1, 80), seed=st.integers(0, 3), n_folds=st.integers(2, 5))
@settings(deadline=None)
def test_folds_keep_groups_together_and_leave_no_class_out_of_training(labels, n_groups, seed, n_folds) -> None:
    images = grouped_images(labels, n_groups, seed)
    fold = group_folds(images, n_folds, seed)
    assert set(fold) <= {-1, *range(n_folds)}
    for g in np.unique(images.group_ids):
        assert len(set(fold[images.group_ids == g])) == 1
    for c in set(labels[labels >= 0]):
        of_class = labels == c
        if len(set(images.group_ids[of_class])) < MIN_GROUPS:
            assert (fold[of_class] == -1).all()
        for k in range(n_folds):
            assert (fold[of_class] != k).any()


def test_folds_have_equal_numbers_of_groups_of_each_class() -> None:
    images = replace(labeled_images([0] * 60 + [1] * 30, list(range(90))), groups=np.arange(90) // 3)
    fold = group_folds(images, 5, 0)
    for c, n in ((0, 4), (1, 2)):
        of_class = images.labels == c
        assert [len(set(images.group_ids[of_class & (fold == k)])) for k in range(5)] == [n] * 5


@given(labels=labels_of_few_classes.filter(len), n_groups=st.integers(3, 80), seed=st.integers(0, 3))
@settings(deadline=None)
def test_classes_of_few_groups_are_for_training(labels, n_groups, seed) -> None:
    images = grouped_images(labels, n_groups, seed)
    half = SplitFractions(test=0.5, calibration=0.5)
    cut = split(labels, half, hashes=images.hashes, groups=images.groups, seed=seed)
    few = np.flatnonzero(images.n_groups_by_class(5) < MIN_GROUPS)
    assert not np.isin(labels[np.concatenate(sides(cut)[1:])], few).any()


@given(
    n_groups=st.integers(2, 60),
    seed=st.integers(0, 3),
    own=st.sets(st.sampled_from(["validation", "test"])),
)
@settings(deadline=None)
def test_no_group_is_on_two_sides_of_splits_of_which_the_data_has_some(n_groups, seed, own) -> None:
    names = ["train", *sorted(own)]
    whole = grouped_images(np.tile([0, 1], 60), n_groups, seed)
    indices = np.array_split(np.random.default_rng(seed).permutation(120), len(names))
    try:
        splits = make_splits(dataset(**{name: whole.subset(i) for name, i in zip(names, indices, strict=True)}), seed)
    except DataError:  # every training image is of a group of another split
        return
    found = [splits.train, splits.validation, splits.calibration, splits.test]
    groups = [set(images.group_ids) for images in found if images is not None]
    if {"validation", "test"} <= own:
        groups = [groups[0], groups[1] | groups[3], groups[2]]  # the data's own splits are used as they are
    for a, b in combinations(groups, 2):
        assert not a & b


def test_one_image_of_each_group_is_taken() -> None:
    images = grouped_images(np.tile([0, 1], 40), 25, 0)
    one = images.one_per_group(0)
    assert sorted(images.group_ids[one]) == sorted(set(images.group_ids))
    assert any(images.one_per_group(seed).tolist() != one.tolist() for seed in range(1, 5))
    assert replace(images, groups=None).one_per_group(0).tolist() == list(range(80))


def test_fractions_are_of_groups_also_where_groups_have_several_classes() -> None:
    labels, groups = np.tile(np.arange(4), 50), np.repeat(np.arange(10), 20)  # ten cameras that see all classes
    cut = split(labels, SplitFractions(test=0.2), hashes=np.arange(200), groups=groups, seed=0)
    assert [len(set(groups[side])) for side in sides(cut)] == [6, 1, 1, 2]


def test_groups_of_leaked_images_are_removed_from_training() -> None:
    train = replace(labeled_images([0, 0, 1, 1, 0], [0, 1, 2, 3, 4]), groups=np.array([0, 0, 2, 3, 4]))
    splits = make_splits(dataset(train=train, validation=labeled_images([0], [1])), seed=0)
    remaining = [each.hashes for each in (splits.train, splits.calibration, splits.test) if each is not None]
    assert sorted(np.concatenate(remaining).tolist()) == [2, 3, 4]


def test_fifth_is_held_out_without_a_test_split() -> None:
    splits = make_splits(dataset(train=labeled_images([0] * 50 + [1] * 50 + [-1] * 7, list(range(107)))), seed=0)
    assert splits.test is not None
    assert splits.test.class_counts(2) == (10, 10)
    assert splits.calibration.class_counts(2) == (8, 8)
    assert splits.validation.class_counts(2) == (4, 4)
    assert len(splits.train) == 100 - 20 - 16 - 8 + 7


def test_existing_splits_are_used_and_their_duplicates_removed_from_training() -> None:
    train = labeled_images([0] * 50 + [1] * 50, list(range(100)))
    validation = labeled_images([0, 1, -1], [0, 200, 201])
    test = labeled_images([0, 1], [99, 300])
    splits = make_splits(dataset(train=train, validation=validation, test=test), seed=0)
    assert splits.test is test
    assert splits.validation.hashes.tolist() == [0, 200]
    assert not {0, 99} & {*splits.train.hashes.tolist(), *splits.calibration.hashes.tolist()}
    assert len(splits.train) + len(splits.calibration) == 98


def test_unread_test_split_is_not_replaced() -> None:
    unread = Dataset(
        "made", ("a", "b"), labeled_images([0, 1], [0, 1]), None, None, (), None, available=("train", "test")
    )
    splits = make_splits(unread, seed=0)
    assert splits.test is None
    assert len(splits.train) == 2


def test_splits_need_training_images() -> None:
    with pytest.raises(DataError, match="test"):
        make_splits(dataset(test=labeled_images([0], [0])), seed=0)
    with pytest.raises(DataError, match="test"):
        make_splits(dataset(train=labeled_images([0], [0]), test=labeled_images([0], [0])), seed=0)
