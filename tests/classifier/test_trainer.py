"""Trainer: which images a model is fitted to, and which calibrate it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import binom

from likely.classifier.calibration import DEFAULT_OPTIONS, FitPlan
from likely.classifier.trainer import ModelSpec, Trainer, most_regularized
from likely.data.dataset import LabeledImages, concatenate
from likely.data.image_dataset import ArrayDataset
from likely.data.splits import Splits
from likely.features.feature_extractors import FeatureOptions
from likely.models.gaussian import Gaussian

K, D = 3, 6
N_MANY = DEFAULT_OPTIONS.min_validation_images


def labeled_vectors(n: int, seed: int) -> LabeledImages:
    """n vectors of K normal classes, of which neighbors overlap."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % K
    vectors = rng.standard_normal((n, D)) + 2 * labels[:, None]
    return LabeledImages(ArrayDataset(vectors, str), labels, rng.integers(2**62, size=n))


def splits_with(n_validation: int) -> Splits:
    sizes = {"train": 240, "validation": n_validation, "calibration": 90}
    return Splits(**{name: labeled_vectors(n, i) for i, (name, n) in enumerate(sizes.items())}, test=None)


def trained(splits: Splits) -> Trainer:
    trainer = Trainer(ModelSpec("gaussian"), splits, ["a", "b", "c"], None)
    for _ in trainer.steps():
        pass
    return trainer


@pytest.fixture(scope="module", params=[60, N_MANY], ids=["few", "many"])
def trainer(request) -> Trainer:
    """A trainer with few or many validation images."""
    return trained(splits_with(request.param))


def means(images: LabeledImages) -> torch.Tensor:
    vectors = torch.from_numpy(images.images.to_array())
    return torch.stack([vectors[images.labels == c].mean(0) for c in range(K)])


def mean_of(model: object) -> torch.Tensor:
    assert isinstance(model, Gaussian)
    return model.mean


def test_final_model_is_fitted_to_validation_images_as_well(trainer: Trainer) -> None:
    splits, crosses = trainer.splits, trainer.plan.cross_conformal
    fitted = concatenate([splits.train, splits.validation, *([splits.calibration] if crosses else [])])
    torch.testing.assert_close(mean_of(trainer.predictor.model), means(fitted))
    assert trainer.predictor.model.task.class_counts == fitted.class_counts(K)
    assert trainer.predictor.log_prior.exp().sum() == pytest.approx(1)


def test_validation_images_are_unseen_by_the_validation_predictor(trainer: Trainer) -> None:
    splits, crosses = trainer.splits, trainer.plan.cross_conformal
    selected = concatenate([splits.train, splits.calibration]) if crosses else splits.train
    torch.testing.assert_close(mean_of(trainer.validation_predictor.model), means(selected))
    assert trainer.validation_predictor.decision_rule is trainer.predictor.decision_rule


def test_refitted_model_has_the_options_that_were_selected(trainer: Trainer) -> None:
    selected, final = trainer.validation_predictor.model, trainer.predictor.model
    assert isinstance(selected, Gaussian)
    assert isinstance(final, Gaussian)
    assert final.shrinkage == selected.shrinkage


def test_folds_of_all_images_calibrate_or_with_many_validation_images_the_calibration_images_alone(trainer) -> None:
    splits, n_calibration = trainer.splits, len(trainer.predictor.decision_rule.typicality.labels)
    if len(splits.validation) < N_MANY:
        assert n_calibration == len(splits.train) + len(splits.validation) + len(splits.calibration)
    else:
        assert n_calibration == len(splits.calibration)


def test_false_alarms_on_new_images_are_within_the_guarantee(trainer: Trainer) -> None:
    new, alpha = labeled_vectors(3000, seed=9), 0.1
    rejected = trainer.predictor.conformal_output(new.images, alpha=alpha).p_value <= alpha
    n = len(trainer.predictor.decision_rule.typicality.labels)
    spread = np.sqrt(alpha * (1 - alpha) / n)
    assert int(rejected.sum()) <= binom.ppf(0.9999, len(new), alpha + 3 * spread)


def test_groups_are_in_one_fold() -> None:
    """Copies of an image with a little noise are more alike than new images, unless they share a group."""
    few = labeled_vectors(60, seed=3)
    noise = 0.01 * np.random.default_rng(0).standard_normal((20, 60, D))
    vectors = (few.images.to_array() + noise).reshape(-1, D)
    repeated = LabeledImages(
        ArrayDataset(vectors, str), np.tile(few.labels, 20), np.arange(1200), groups=np.tile(np.arange(60), 20)
    )
    none, new = repeated.subset([]), labeled_vectors(600, seed=4)
    rejection_rates = []
    for train in (repeated, replace(repeated, groups=None)):
        rule_trainer = trained(Splits(train, none, none, None))
        p_value = rule_trainer.predictor.conformal_output(new.images, alpha=0.1).p_value
        rejection_rates.append((p_value <= 0.1).double().mean().item())
    assert rejection_rates[0] < rejection_rates[1]


@pytest.mark.parametrize("n_validation", [60, N_MANY], ids=["folds", "split"])
def test_one_image_of_each_group_calibrates(n_validation: int) -> None:
    splits = splits_with(n_validation)
    named = {"train": splits.train, "validation": splits.validation, "calibration": splits.calibration}
    grouped = {
        name: replace(images, groups=1000 * len(images) + np.arange(len(images)) // 6) for name, images in named.items()
    }
    found = trained(replace(splits, **grouped))
    rule = found.predictor.decision_rule
    pool = grouped.values() if found.plan.cross_conformal else [grouped["calibration"]]
    assert len(rule.image_calibrator.scores) == sum(images.n_groups for images in pool)


def test_images_of_new_groups_are_rejected_at_the_level_and_more_often_if_all_images_of_a_group_calibrate() -> None:
    """Large groups lie near their class mean, small ones far away: a new group is small more often than an image's group."""
    rng, alpha, sizes = np.random.default_rng(0), 0.1, np.tile([1, 1, 40], 60)

    def images_of(sizes: np.ndarray) -> LabeledImages:
        groups, spread = np.arange(len(sizes)).repeat(sizes), np.where(sizes > 1, 0.3, 2.0).repeat(sizes)
        labels = groups // 3 % K
        vectors = rng.standard_normal((len(groups), D)) * spread[:, None] + 4 * labels[:, None]
        return LabeledImages(ArrayDataset(vectors, str), labels, rng.integers(2**62, size=len(groups)), groups)

    train, new = images_of(sizes), images_of(np.where(np.tile(sizes, 10) > 1, 2, 1))
    none, one = train.subset([]), new.subset(new.one_per_group(0))
    rates = []
    for images in (train, replace(train, groups=None)):
        predictor = trained(Splits(images, none, none, None)).predictor
        rates.append(float((predictor.conformal_output(one.images, alpha=alpha).p_value <= alpha).double().mean()))
    assert rates[0] <= alpha + 3 * np.sqrt(alpha * (1 - alpha) * (1 / len(sizes) + 1 / len(one)))
    assert rates[1] > 2 * alpha


@pytest.mark.parametrize(
    ("family", "kind", "shape", "refits"),
    [
        ("gaussian", "pixels", (1, 4, 4), False),
        ("gaussian", "random", (3, 8, 8), True),
        ("gaussian", "autoencoder", (3, 8, 8), False),
        ("vae", "pixels", (6,), False),
        ("gaussian", "pixels", (6,), True),
    ],
)
def test_models_of_features_in_closed_form_are_refitted(family, kind, shape, refits) -> None:
    images = LabeledImages(ArrayDataset(np.zeros((3, *shape), np.uint8), str), np.arange(3), np.arange(3))
    plan = FitPlan.choose(family, FeatureOptions(features=kind), Splits(images, images, images, None), K)
    assert (plan.refits, plan.cross_conformal) == (refits, refits)


@pytest.mark.parametrize(
    ("accuracies", "n", "chosen"),
    [
        ([0.9, 0.9, 0.9], 50, 2),
        ([0.9, 0.89, 0.5], 50, 1),
        ([0.5, 0.8, 0.9, 0.899, 0.7], 10_000, 3),
        ([1.0, 0.99], 100, 0),
    ],
)
def test_last_candidate_within_one_standard_error_is_selected(accuracies, n, chosen):
    assert most_regularized(accuracies, n) == chosen
