"""From a trained model to the judge of its answers: what held-out and calibration images say of its figures."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from likely.base import Domain, FitsInClosedForm, Scorer, Task
from likely.classifier.inputs import BATCH_SIZE
from likely.classifier.scoring import model_outputs, statistics_of_true_class
from likely.data.dataset import LabeledImages, concatenate
from likely.data.splits import Splits
from likely.features.model_input import ModelInput
from likely.inference.decision import CalibrationData, ConformalClassifier
from likely.inference.temperature_scaling import fit_temperature
from likely.training.data_loader import ShuffledBatches
from likely.training.device import to_device
from likely.training.loop import fit_closed_form

if TYPE_CHECKING:
    from likely.classifier.predictor import Predictor

MAX_TRAINING_IMAGES = 30_000  # images of the training that nonconformity is learned from, or
MAX_IMAGES_PER_CLASS = 100  # of each class, if that is more
MAX_SCORES = 50_000_000  # of images under all classes that are kept together
MIN_IMAGES_FOR_TEMPERATURE = 1000  # images, however many the classes, or
MAX_SCORES_FOR_TEMPERATURE = 10_000_000  # scores of images under all classes, if these are more
MAX_CROSS_CONFORMAL_IMAGES = 20_000  # images that calibrate although they are learned from, or one of each class
N_FOLDS = 5  # of these


def calibrate(classifier: Predictor, parts: Splits) -> ConformalClassifier:
    """Temperature, nonconformity and p-values: from validation images, from calibration images, and from those trained on."""
    enough = len(parts.validation) > 0
    held_out = parts.validation if enough else parts.train.labeled()
    T = _temperature(classifier, held_out)
    T = T if enough else max(1.0, T)  # sureness on the images of the training itself is no measure
    before = calibration_data(classifier, classifier.model_, held_out, T)
    calibration = parts.calibration
    if classifier.uses_cross_conformal(classifier.shape):
        folds = cross_conformal_data(classifier, parts, T, classifier.seed)
        if len(folds) > 1:
            return _cross_conformal(folds, before if enough else None, classifier.log_prior_, T)
        calibration = calibration.subset([])  # of so few images each is needed to learn from
    now = calibration_data(classifier, classifier.model_, calibration, T)
    trained = training_statistics(classifier, parts.train) if has_own_features(classifier, held_out) else None
    return ConformalClassifier.fit(
        before, now, classifier.log_prior_, T, trained, uses_likelihood_ratio=uses_likelihood_ratio(classifier)
    )


def has_own_features(classifier: Predictor, part: LabeledImages) -> bool:
    """Whether the model itself says what it sees in an image: that differs little between images trained on and others,
    unlike how well they are explained."""
    one = next(classifier.input_pipeline.inputs(part.images.subset([0])))
    with torch.inference_mode():
        return model_outputs(classifier.model_, [ModelInput(one)]).features is not None


def uses_likelihood_ratio(classifier: Predictor) -> bool:
    """Whether what is as near to every class is strange: in features, where much moves an image away from all alike."""
    return classifier.model_.task.domain is Domain.FEATURES


def calibration_data(classifier: Predictor, model: Scorer, part: LabeledImages, temperature: float) -> CalibrationData:
    """What a judge learns from, of labeled images as a model of the classifier's kind sees them."""
    few, pieces = len(part) * len(classifier.labels) <= MAX_SCORES, []
    for start in range(0, max(1, len(part)), BATCH_SIZE):
        block = part.subset(np.arange(start, min(start + BATCH_SIZE, len(part))))
        with torch.inference_mode():
            found = model_outputs(model, classifier.input_pipeline.model_inputs(block.images))
        piece = CalibrationData.from_outputs(found, torch.from_numpy(block.labels), temperature)
        pieces.append(piece if few else piece.without_scores())
    return CalibrationData.concatenate(pieces)


def cross_conformal_data(classifier: Predictor, parts: Splits, temperature: float, seed: int) -> list[CalibrationData]:
    """What a judge learns from, of images of the training, in folds: each is examined by a model that has not seen it, nor a
    copy of it. Folds without an image are left out.

    A class of a single image is left out, for without it nothing is known of the class. Of very many images so many of each
    class calibrate.
    """
    pool = parts.training_images(calibration=True, generated=False).labeled()
    vectors = _as_vectors(classifier, pool)
    added = [] if parts.generated is None else [_as_vectors(classifier, parts.generated)]
    fold, several = _fold_of_image(pool, seed), np.bincount(pool.labels)[pool.labels] > 1
    K = len(classifier.labels)
    calibrates = several & np.isin(
        np.arange(len(pool)), _per_class_sample(pool.labels, K, max(1, MAX_CROSS_CONFORMAL_IMAGES // K), seed)
    )
    pieces = []
    for k in np.unique(fold[calibrates]):
        without = _fit_like(classifier, concatenate([vectors.subset(np.flatnonzero(fold != k)), *added]))
        pieces.append(
            calibration_data(classifier, without, pool.subset(np.flatnonzero((fold == k) & calibrates)), temperature)
        )
    scores_fit = sum(len(piece.labels) for piece in pieces) * K <= MAX_SCORES
    return pieces if scores_fit else [piece.without_scores() for piece in pieces]


@torch.inference_mode()
def training_statistics(classifier: Predictor, train: LabeledImages) -> tuple[Tensor, Tensor]:
    """Of the labeled images, or of so many of each class drawn by the seed."""
    K = len(classifier.labels)
    part = train.subset(
        _per_class_sample(train.labels, K, max(MAX_IMAGES_PER_CLASS, MAX_TRAINING_IMAGES // K), classifier.seed)
    )
    batches = zip(
        classifier.input_pipeline.model_inputs(part.images),
        torch.split(torch.from_numpy(part.labels), BATCH_SIZE),
        strict=True,
    )
    return statistics_of_true_class(classifier.model_, batches)


def _temperature(classifier: Predictor, held_out: LabeledImages) -> float:
    held_out = subsample(held_out, len(classifier.labels), classifier.seed)
    scores = classifier.outputs(held_out.images).log_scores
    return fit_temperature(scores, torch.from_numpy(held_out.labels), classifier.log_prior_)


def _cross_conformal(
    folds: list[CalibrationData], held_out: CalibrationData | None, log_prior: Tensor, temperature: float
) -> ConformalClassifier:
    """At the temperature of the held-out images, of which, for they may be few and all right, that of the folds is expected;
    at the one given where the scores are too many."""
    pool = CalibrationData.concatenate(folds)
    if all(
        images.n_scores in range(1, MAX_SCORES_FOR_TEMPERATURE) for images in (pool, held_out) if images is not None
    ):
        temperature = max(1.0, pool.fit_temperature(log_prior))
        if held_out is not None:
            temperature = held_out.fit_temperature(log_prior, temperature)
            held_out = held_out.with_temperature(temperature)
        folds = [fold.with_temperature(temperature) for fold in folds]
    return ConformalClassifier.fit_cross_conformal(held_out, folds, log_prior, temperature)


def subsample(part: LabeledImages, K: int, seed: int) -> LabeledImages:
    """The part, or so many of its images, drawn by the seed, as have scores under K classes that fit into memory."""
    n = max(MIN_IMAGES_FOR_TEMPERATURE, MAX_SCORES_FOR_TEMPERATURE // K)
    return part if len(part) <= n else part.subset(np.random.default_rng(seed).permutation(len(part))[:n])


def _as_vectors(classifier: Predictor, part: LabeledImages) -> LabeledImages:
    """The part as vectors, which the classifier's model is of."""
    return part if classifier.features_ is None else classifier.features_.transform_images(part)


def _fit_like(classifier: Predictor, part: LabeledImages) -> Scorer:
    """A model like the classifier's of other images, vectors all."""
    like = classifier.model_
    assert isinstance(like, FitsInClosedForm)
    task = Task(part.images.shape, part.class_counts(len(classifier.labels)))
    model = to_device(type(like)(task, like.with_chosen(like.options)), classifier.device)
    feed = ShuffledBatches(part.images, part.labels, batch_size=BATCH_SIZE, seed=classifier.seed, augment=None)
    for _ in fit_closed_form(model, feed.to(classifier.device)):
        pass
    return model.eval()


def _per_class_sample(labels: NDArray[np.int64], K: int, n: int, seed: int) -> NDArray[np.int64]:
    """Which images are drawn if n of each class are, or all that it has: indices, ascending."""
    rng = np.random.default_rng(seed)
    return np.sort(np.concatenate([rng.permutation(np.flatnonzero(labels == c))[:n] for c in range(K)]))


def _fold_of_image(part: LabeledImages, seed: int) -> NDArray[np.int64]:
    """A fold for every image, (N,): the images of each class are dealt out evenly, copies of one together."""
    fold, rng = np.zeros(len(part), np.int64), np.random.default_rng(seed)
    _, first, copy_of = np.unique(part.hashes, return_index=True, return_inverse=True)
    is_first = np.zeros(len(part), np.bool_)
    is_first[first] = True
    for c in np.unique(part.labels):
        of_class = rng.permutation(np.flatnonzero((part.labels == c) & is_first))
        fold[of_class] = (np.arange(len(of_class)) + rng.integers(N_FOLDS)) % N_FOLDS
    return fold[first][copy_of]
