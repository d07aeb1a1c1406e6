"""Calibration: temperature, nonconformity scores and conformal p-values of a trained model, from held-out images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from likely import models
from likely.base import Domain, FitsInClosedForm, Scorer, Task
from likely.classifier.inputs import BATCH_SIZE, InputPipeline, to_masks
from likely.classifier.predictor import Predictor
from likely.classifier.scoring import model_outputs
from likely.data.dataset import LabeledImages, concatenate
from likely.data.splits import Splits
from likely.features.feature_extraction import ModelInput
from likely.features.feature_extractors import FeatureOptions
from likely.inference.calibration_data import CalibrationData
from likely.inference.decision import DecisionRule
from likely.inference.nonconformity import Statistics
from likely.inference.temperature_scaling import fit_temperature
from likely.training.data_loader import ShuffledBatches
from likely.training.device import to_device
from likely.training.loop import fit_closed_form


@dataclass(frozen=True)
class CalibrationOptions:
    """Constants that bound the time and memory of calibration.

    `max_training_images`: training images that the nonconformity score is fitted to, or `max_images_per_class` of each class,
    if these are more.
    `max_scores`: scores of images under all classes that are held in memory together.
    `min_images_for_temperature`: images that the temperature is fitted to, or as many as have
    `max_scores_for_temperature` scores under all classes, if these are more.
    `max_cross_conformal_images`: training images that calibrate in cross-conformal prediction, or one of each class.
    `n_folds`: folds of cross-conformal prediction.
    """

    max_training_images: int = 30_000
    max_images_per_class: int = 100
    max_scores: int = 50_000_000
    min_images_for_temperature: int = 1000
    max_scores_for_temperature: int = 10_000_000
    max_cross_conformal_images: int = 20_000
    n_folds: int = 5


DEFAULT_OPTIONS = CalibrationOptions()


def uses_cross_conformal(family: str, features: FeatureOptions, shape: Sequence[int]) -> bool:
    """Return True if the training images calibrate as well (cross-conformal prediction, Vovk 2015).

    A fifth of them is scored by a model of the rest, which is affordable for models of features that are fitted in closed
    form. `shape` is that of an image (C, H, W), or of a vector (D,).
    """
    of_features = len(shape) == 1 or (features.kind != "pixels" and not features.learns)
    return of_features and not models.family(family).trained_by_gradient


def calibrate(
    pipeline: InputPipeline, splits: Splits, log_prior: Tensor, seed: int, cross_conformal: bool
) -> DecisionRule:
    """Fit temperature and nonconformity scores on validation images, and p-values on calibration images.

    Nonconformity scores also use statistics of training images where the model has features of its own.
    """
    calibrator = _Calibrator(pipeline, log_prior, seed)
    enough = len(splits.validation) > 0
    held_out = splits.validation if enough else splits.train.labeled()
    T = calibrator.fit_temperature(held_out)
    T = T if enough else max(1.0, T)  # confidence on training images does not justify sharper posteriors
    before = calibrator.data(pipeline.model, held_out, T)
    calibration = splits.calibration
    if cross_conformal:
        folds = calibrator.cross_conformal_data(splits, T)
        if len(folds) > 1:
            return _cross_conformal(folds, before if enough else None, log_prior, T)
        calibration = calibration.subset([])  # the model was trained on all of so few images
    now = calibrator.data(pipeline.model, calibration, T)
    training = calibrator.training_statistics(splits.train) if calibrator.has_own_features(held_out) else None
    # In features, much moves an image away from all classes alike, so nonconformity is relative to the other classes.
    relative = pipeline.model.task.domain is Domain.FEATURES
    return DecisionRule.fit(before, now, log_prior, T, training, uses_likelihood_ratio=relative)


def calibrate_for_mask(
    predictor: Predictor, mask: ArrayLike, validation: LabeledImages, calibration: LabeledImages
) -> DecisionRule:
    """Calibrate for images of which only the pixels where `mask`, (H, W) bool, is True are observed.

    Neither collection may hold training images.
    """
    masks = to_masks(mask, 1, predictor.shape[1:])
    before, now = (
        predictor.outputs(each.images, masks.expand(len(each), -1, -1)) for each in (validation, calibration)
    )
    labels = [torch.from_numpy(each.labels) for each in (validation, calibration)]
    T = fit_temperature(before.log_scores, labels[0], predictor.log_prior)
    return DecisionRule.fit(
        CalibrationData.from_outputs(before, labels[0], T),
        CalibrationData.from_outputs(now, labels[1], T),
        predictor.log_prior,
        T,
    )


def subsample(images: LabeledImages, K: int, seed: int) -> LabeledImages:
    """Return all images, or a random subset whose scores under K classes fit into memory."""
    n = max(DEFAULT_OPTIONS.min_images_for_temperature, DEFAULT_OPTIONS.max_scores_for_temperature // K)
    return images if len(images) <= n else images.subset(np.random.default_rng(seed).permutation(len(images))[:n])


@dataclass(frozen=True)
class _Calibrator:
    """Calibration data from a trained model."""

    pipeline: InputPipeline
    log_prior: Tensor
    seed: int

    @property
    def K(self) -> int:
        return len(self.log_prior)

    def fit_temperature(self, held_out: LabeledImages) -> float:
        held_out = subsample(held_out, self.K, self.seed)
        with torch.inference_mode():
            scores = model_outputs(self.pipeline.model, self.pipeline.model_inputs(held_out.images)).log_scores
        return fit_temperature(scores, torch.from_numpy(held_out.labels), self.log_prior)

    def has_own_features(self, images: LabeledImages) -> bool:
        """Return True if the model computes features: unlike likelihoods, they differ little between training and test."""
        one = next(self.pipeline.inputs(images.images.subset([0])))
        with torch.inference_mode():
            return model_outputs(self.pipeline.model, [ModelInput(one)]).features is not None

    def data(self, model: Scorer, images: LabeledImages, temperature: float) -> CalibrationData:
        """Return the calibration data of labeled images under `model`, which takes the same inputs."""
        few, pieces = len(images) * self.K <= DEFAULT_OPTIONS.max_scores, []
        for start in range(0, max(1, len(images)), BATCH_SIZE):
            block = images.subset(np.arange(start, min(start + BATCH_SIZE, len(images))))
            with torch.inference_mode():
                found = model_outputs(model, self.pipeline.model_inputs(block.images))
            piece = CalibrationData.from_outputs(found, torch.from_numpy(block.labels), temperature)
            pieces.append(piece if few else piece.without_scores())
        return CalibrationData.concatenate(pieces)

    def cross_conformal_data(self, splits: Splits, temperature: float) -> list[CalibrationData]:
        """Return calibration data of training images in folds, each scored by a model of the other folds.

        Groups are in one fold. Folds without images are left out, as are classes in a single one. Large classes are
        subsampled.
        """
        pool = splits.training_images(calibration=True, generated=False).labeled()
        vectors = self._as_vectors(pool)
        added = [] if splits.generated is None else [self._as_vectors(splits.generated)]
        fold = _fold_of_image(pool, self.seed)
        n_folds_of_class = np.bincount(np.unique(np.column_stack([pool.labels, fold]), axis=0)[:, 0])
        several = n_folds_of_class[pool.labels] > 1
        sample = _per_class_sample(
            pool.labels, self.K, max(1, DEFAULT_OPTIONS.max_cross_conformal_images // self.K), self.seed
        )
        calibrates = several & np.isin(np.arange(len(pool)), sample)
        pieces = []
        for k in np.unique(fold[calibrates]):
            without = self._fit_like(concatenate([vectors.subset(np.flatnonzero(fold != k)), *added]))
            pieces.append(self.data(without, pool.subset(np.flatnonzero((fold == k) & calibrates)), temperature))
        scores_fit = sum(len(piece.labels) for piece in pieces) * self.K <= DEFAULT_OPTIONS.max_scores
        return pieces if scores_fit else [piece.without_scores() for piece in pieces]

    @torch.inference_mode()
    def training_statistics(self, train: LabeledImages) -> tuple[Tensor, Tensor]:
        """Return statistics and labels of training images, at most some of each class."""
        n = max(DEFAULT_OPTIONS.max_images_per_class, DEFAULT_OPTIONS.max_training_images // self.K)
        some = train.subset(_per_class_sample(train.labels, self.K, n, self.seed))
        labels = torch.split(torch.from_numpy(some.labels), BATCH_SIZE)
        inputs = self.pipeline.model_inputs(some.images)
        outputs = (model_outputs(self.pipeline.model, [batch]) for batch in inputs)
        found = [Statistics.of(each).of_true_class(y) for each, y in zip(outputs, labels, strict=True)]
        return torch.cat(found), torch.cat(labels)

    def _as_vectors(self, images: LabeledImages) -> LabeledImages:
        return images if self.pipeline.features is None else self.pipeline.features.transform_images(images)

    def _fit_like(self, images: LabeledImages) -> Scorer:
        """Fit another model of the same kind, with the options chosen before, to vectors."""
        like = self.pipeline.model
        assert isinstance(like, FitsInClosedForm)
        task = Task(images.images.shape, images.class_counts(self.K))
        model = to_device(type(like)(task, like.with_chosen(like.options)), self.pipeline.device)
        loader = ShuffledBatches(images.images, images.labels, batch_size=BATCH_SIZE, seed=self.seed, augment=None)
        for _ in fit_closed_form(model, loader.to(self.pipeline.device)):
            pass
        return model.eval()


def _cross_conformal(
    folds: list[CalibrationData], held_out: CalibrationData | None, log_prior: Tensor, temperature: float
) -> DecisionRule:
    """Fit p-values on folds.

    The temperature of the held-out images is shrunk toward that of the folds, for they may be few and all correct; it is
    used as it is where there are too many scores.
    """
    pool = CalibrationData.concatenate(folds)
    if all(
        images.n_scores in range(1, DEFAULT_OPTIONS.max_scores_for_temperature)
        for images in (pool, held_out)
        if images is not None
    ):
        temperature = max(1.0, pool.fit_temperature(log_prior))
        if held_out is not None:
            temperature = held_out.fit_temperature(log_prior, temperature)
            held_out = held_out.with_temperature(temperature)
        folds = [fold.with_temperature(temperature) for fold in folds]
    return DecisionRule.fit_cross_conformal(held_out, folds, log_prior, temperature)


def _per_class_sample(labels: NDArray[np.int64], K: int, n: int, seed: int) -> NDArray[np.int64]:
    """Return the indices, ascending, of at most n random images of each class."""
    rng = np.random.default_rng(seed)
    return np.sort(np.concatenate([rng.permutation(np.flatnonzero(labels == c))[:n] for c in range(K)]))


def _fold_of_image(images: LabeledImages, seed: int) -> NDArray[np.int64]:
    """Return a fold for every image, (N,): each class is spread evenly, and groups are together."""
    fold, rng = np.zeros(len(images), np.int64), np.random.default_rng(seed)
    _, first, group = np.unique(images.group_ids, return_index=True, return_inverse=True)
    is_first = np.zeros(len(images), np.bool_)
    is_first[first] = True
    for c in np.unique(images.labels):
        of_class = rng.permutation(np.flatnonzero((images.labels == c) & is_first))
        fold[of_class] = (np.arange(len(of_class)) + rng.integers(DEFAULT_OPTIONS.n_folds)) % DEFAULT_OPTIONS.n_folds
    return fold[first][group]
