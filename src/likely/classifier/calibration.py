"""Calibration: temperature, nonconformity scores and conformal p-values of a trained model, from held-out images."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from likely import models
from likely.base import FamilyOptions, FitsInClosedForm, Scorer, Task
from likely.classifier.inputs import BATCH_SIZE, InputPipeline, to_masks
from likely.classifier.predictor import Predictor
from likely.classifier.scoring import model_outputs
from likely.data.dataset import LabeledImages, concatenate
from likely.data.image_dataset import ImageDataset
from likely.data.splits import Splits, group_folds
from likely.features.feature_extraction import ModelInput
from likely.features.feature_extractors import FeatureOptions
from likely.inference.calibration_data import CalibrationData
from likely.inference.decision import DecisionRule
from likely.inference.known_unknowns import KnownUnknowns
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
    `max_unknown_images`: unknown images that are compared with each image.
    `n_folds`: folds of cross-conformal prediction.
    `min_validation_images`: validation images from which on calibration images are kept apart, if both cover every class.
    """

    max_training_images: int = 30_000
    max_images_per_class: int = 100
    max_scores: int = 50_000_000
    min_images_for_temperature: int = 1000
    max_scores_for_temperature: int = 10_000_000
    max_cross_conformal_images: int = 20_000
    max_unknown_images: int = 2000
    n_folds: int = 5
    min_validation_images: int = 1000


DEFAULT_OPTIONS = CalibrationOptions()


@dataclass(frozen=True)
class FitPlan:
    """Images that a model is fitted to, and those that calibrate it.

    `refits`: one fold of training and validation images selects options, and then the model is fitted to all of them. This is
    affordable for models of features that are fitted in closed form, as is scoring images in folds, each by a model of the
    other folds.
    `cross_conformal`: the folds calibrate (cross-conformal prediction, Vovk 2015), and the model is fitted to the calibration
    images as well. Otherwise these have no influence on the model.
    `copies`: augmented copies of images, as vectors; a model that is fitted to an image is also fitted to its copies.
    `options`: those of the family that held-out images selected, once they have.
    """

    refits: bool
    cross_conformal: bool
    copies: tuple[LabeledImages, ...] = ()
    options: FamilyOptions | None = None

    @classmethod
    def choose(cls, family: str, features: FeatureOptions, splits: Splits, K: int) -> FitPlan:
        """Choose the plan for images (C, H, W), or vectors (D,), of K classes."""
        of_features = len(splits.train.images.shape) == 1 or (features.kind != "pixels" and not features.learns)
        refits = of_features and not models.family(family).trained_by_gradient
        counts = [images.class_counts(K) for images in (splits.validation, splits.calibration)]
        are_enough = sum(counts[0]) >= DEFAULT_OPTIONS.min_validation_images and all(map(min, counts))
        return cls(refits, refits and not are_enough)

    def selection_split(self, splits: Splits, seed: int) -> tuple[LabeledImages, LabeledImages]:
        """Return the images that the model is fitted to while options are selected, and those that select them."""
        if not self.refits:
            return self.evaluable_images(splits), splits.validation
        pool, generated = self.final_images(splits, generated=False).labeled(), splits.generated
        is_held_out = group_folds(pool, DEFAULT_OPTIONS.n_folds, seed) == 0
        train = pool.subset(np.flatnonzero(~is_held_out))
        return concatenate([train, *([] if generated is None else [generated])]), pool.subset(
            np.flatnonzero(is_held_out)
        )

    def evaluable_images(self, splits: Splits) -> LabeledImages:
        """Return the images that a model may be fitted to if it is evaluated on the validation images."""
        return splits.training_images(calibration=self.cross_conformal)

    def final_images(self, splits: Splits, *, generated: bool = True) -> LabeledImages:
        """Return the images that the model is fitted to in the end."""
        return splits.training_images(calibration=self.cross_conformal, validation=self.refits, generated=generated)

    def with_copies(self, vectors: LabeledImages) -> LabeledImages:
        """Return the vectors of images with those of their augmented copies."""
        return concatenate([vectors, *(copies.matching(vectors) for copies in self.copies)])


def calibrate(pipeline: InputPipeline, splits: Splits, log_prior: Tensor, seed: int, plan: FitPlan) -> DecisionRule:
    """Fit temperature and nonconformity scores on validation images or folds, and p-values on calibration images or folds.

    Nonconformity scores also use statistics of training images where the model has features of its own.
    """
    calibrator = _Calibrator(pipeline, log_prior, seed, splits.unknown)
    unknowns = calibrator.known_unknowns(pipeline.model)
    folds, T = calibrator.out_of_fold_data(splits, plan) if plan.refits else ([], 1.0)
    if len(folds) > 1:
        folds, T = _with_pooled_temperature(folds, log_prior, T)
        if plan.cross_conformal:
            rule = DecisionRule.fit_cross_conformal(folds, log_prior, T)
            return replace(rule, known_unknowns=unknowns)
        before = CalibrationData.concatenate(folds)
    else:
        before, T = calibrator.held_out_data(splits, plan, unknowns)
    # Without folds, the images are very few, and the model was fitted to all of them.
    held_out = splits.calibration.subset([]) if plan.cross_conformal else splits.calibration
    calibration = held_out.subset(held_out.one_per_group(seed))
    now = calibrator.data(pipeline.model, calibration, T, unknowns)
    training = None if plan.refits else calibrator.training_statistics(splits.train)
    rule = DecisionRule.fit(before, now, log_prior, T, training)
    return replace(rule, known_unknowns=unknowns)


def fit_like(pipeline: InputPipeline, vectors: LabeledImages, plan: FitPlan, K: int, seed: int) -> Scorer:
    """Fit another model of the kind of the pipeline's, with the options chosen for it, to vectors of K classes and copies."""
    like = pipeline.model
    assert isinstance(like, FitsInClosedForm)
    task = Task(vectors.images.shape, vectors.class_counts(K))
    model = to_device(type(like)(task, plan.options or like.with_chosen(like.options)), pipeline.device)
    vectors = plan.with_copies(vectors)
    loader = ShuffledBatches(vectors.images, vectors.labels, batch_size=BATCH_SIZE, seed=seed, augment=None)
    next(fit_closed_form(model, loader.to(pipeline.device)))  # the first candidate has the options given
    return model.eval()


def calibrate_for_mask(
    predictor: Predictor, mask: ArrayLike, validation: LabeledImages, calibration: LabeledImages
) -> DecisionRule:
    """Calibrate for images of which only the pixels where `mask`, (H, W) bool, is True are observed.

    Neither collection may hold training images.
    """
    masks = to_masks(mask, 1, predictor.shape[1:])
    calibration = calibration.subset(calibration.one_per_group(predictor.seed))
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


def n_for_temperature(K: int) -> int:
    """Return the number of images that the temperature of K classes is fitted to, if there are as many."""
    return max(DEFAULT_OPTIONS.min_images_for_temperature, DEFAULT_OPTIONS.max_scores_for_temperature // K)


def subsample(images: LabeledImages, K: int, seed: int) -> LabeledImages:
    """Return all images, or a random subset whose scores under K classes fit into memory."""
    n = n_for_temperature(K)
    return images if len(images) <= n else images.subset(np.random.default_rng(seed).permutation(len(images))[:n])


@dataclass(frozen=True)
class _Calibrator:
    """Calibration data from a trained model."""

    pipeline: InputPipeline
    log_prior: Tensor
    seed: int
    unknown: ImageDataset | None

    @property
    def K(self) -> int:
        return len(self.log_prior)

    def fit_temperature(self, model: Scorer, held_out: LabeledImages) -> float:
        held_out = subsample(held_out, self.K, self.seed)
        with torch.inference_mode():
            scores = model_outputs(model, self.pipeline.model_inputs(held_out.images)).log_scores
        return fit_temperature(scores, torch.from_numpy(held_out.labels), self.log_prior)

    def known_unknowns(self, model: Scorer) -> KnownUnknowns:
        """Fit to the unknown images in the embedding of a model."""
        if self.unknown is None or not len(self.unknown):
            return KnownUnknowns.none()
        chosen = np.random.default_rng(self.seed).permutation(len(self.unknown))[: DEFAULT_OPTIONS.max_unknown_images]
        with torch.inference_mode():
            latent = model_outputs(model, self.pipeline.model_inputs(self.unknown.subset(chosen))).latent
        assert latent is not None  # the trainer requires an embedding
        return KnownUnknowns.fit(latent.float())

    def held_out_data(self, splits: Splits, plan: FitPlan, unknowns: KnownUnknowns) -> tuple[CalibrationData, float]:
        """Return calibration data of validation images and the temperature, or of training images if none are held out."""
        enough, model = len(splits.validation) > 0 and not plan.refits, self.pipeline.model
        held_out = splits.validation if enough else splits.train.labeled()
        T = self.fit_temperature(model, held_out)
        T = T if enough else max(1.0, T)  # confidence on training images does not justify sharper posteriors
        return self.data(model, held_out, T, unknowns), T

    def data(
        self, model: Scorer, images: LabeledImages, temperature: float, unknowns: KnownUnknowns
    ) -> CalibrationData:
        """Return the calibration data of labeled images under `model`, in whose embedding the unknown images are."""
        few, pieces = len(images) * self.K <= DEFAULT_OPTIONS.max_scores, []
        for start in range(0, max(1, len(images)), BATCH_SIZE):
            block = images.subset(np.arange(start, min(start + BATCH_SIZE, len(images))))
            with torch.inference_mode():
                found = model_outputs(model, self.pipeline.model_inputs(block.images))
            piece = CalibrationData.from_outputs(found, torch.from_numpy(block.labels), temperature, unknowns)
            pieces.append(piece if few else piece.without_scores())
        return CalibrationData.concatenate(pieces)

    def out_of_fold_data(self, splits: Splits, plan: FitPlan) -> tuple[list[CalibrationData], float]:
        """Return calibration data of fitted images in folds, each scored by a model of the other folds, and a temperature.

        One image of each group calibrates (Dunn 2022, Distribution-free prediction sets for two-layer hierarchical models,
        section 3.1), so that the p-values are those of an image of a new group. Folds without images are left out. Large
        classes are subsampled. The temperature is that of the first fold.
        """
        pool, generated = plan.final_images(splits, generated=False).labeled(), splits.generated
        fold = group_folds(pool, DEFAULT_OPTIONS.n_folds, self.seed)
        calibrates = np.isin(np.arange(len(pool)), pool.one_per_group(self.seed)) & (fold >= 0)
        n = max(1, DEFAULT_OPTIONS.max_cross_conformal_images // self.K)
        sample = _per_class_sample(np.where(calibrates, pool.labels, -1), self.K, n, self.seed)
        vectors, added = self.pipeline.vectors(pool), [] if generated is None else [self.pipeline.vectors(generated)]
        pieces: list[CalibrationData] = []
        T = 1.0
        for k in np.unique(fold[sample]):
            others = concatenate([vectors.subset(np.flatnonzero(fold != k)), *added])
            model = fit_like(self.pipeline, others, plan, self.K, self.seed)
            held_out = pool.subset(sample[fold[sample] == k])
            T = T if pieces else self.fit_temperature(model, held_out)
            pieces.append(self.data(model, held_out, T, self.known_unknowns(model)))
        scores_fit = sum(len(piece.labels) for piece in pieces) * self.K <= DEFAULT_OPTIONS.max_scores
        return pieces if scores_fit else [piece.without_scores() for piece in pieces], T

    @torch.inference_mode()
    def training_statistics(self, train: LabeledImages) -> tuple[Tensor, Tensor] | None:
        """Return statistics and labels of training images, at most some of each class, if the model computes features.

        Unlike likelihoods, these differ little between training and test images.
        """
        one = next(self.pipeline.inputs(train.images.subset([0])))
        if model_outputs(self.pipeline.model, [ModelInput(one)]).features is None:
            return None
        n = max(DEFAULT_OPTIONS.max_images_per_class, DEFAULT_OPTIONS.max_training_images // self.K)
        some = train.subset(_per_class_sample(train.labels, self.K, n, self.seed))
        labels = torch.split(torch.from_numpy(some.labels), BATCH_SIZE)
        inputs = self.pipeline.model_inputs(some.images)
        outputs = (model_outputs(self.pipeline.model, [batch]) for batch in inputs)
        found = [Statistics.of(each).of_true_class(y) for each, y in zip(outputs, labels, strict=True)]
        return torch.cat(found), torch.cat(labels)


def _with_pooled_temperature(
    folds: list[CalibrationData], log_prior: Tensor, temperature: float
) -> tuple[list[CalibrationData], float]:
    """Fit the temperature to all folds, if their scores are not too many; it does not sharpen posteriors."""
    pool = CalibrationData.concatenate(folds)
    if pool.n_scores not in range(1, DEFAULT_OPTIONS.max_scores_for_temperature):
        return folds, temperature
    temperature = max(1.0, pool.fit_temperature(log_prior))
    return [fold.with_temperature(temperature) for fold in folds], temperature


def _per_class_sample(labels: NDArray[np.int64], K: int, n: int, seed: int) -> NDArray[np.int64]:
    """Return the indices, ascending, of at most n random images of each class."""
    rng = np.random.default_rng(seed)
    return np.sort(np.concatenate([rng.permutation(np.flatnonzero(labels == c))[:n] for c in range(K)]))
