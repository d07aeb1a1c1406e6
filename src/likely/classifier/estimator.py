"""Classifier: the scikit-learn interface of arrays and images, over Trainer and Predictor."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from numbers import Integral
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, column_or_1d, validate_data
from torch import Tensor

from likely import checkpoint
from likely.classifier import class_incremental, explanation, prior_adaptation, sampling, serialization
from likely.classifier.explanation import Explanation, Imputation
from likely.classifier.predictor import Predictor
from likely.classifier.prior_adaptation import PriorAdaptation
from likely.classifier.recalibration import recalibrate
from likely.classifier.trainer import ModelSpec, Trainer
from likely.data import arrays
from likely.data.decoding import ImageWarning
from likely.data.image_dataset import ImageDataset
from likely.data.preprocessing import ImageOptions
from likely.data.splits import MIN_GROUPS, classes_of_few_groups, make_splits
from likely.exceptions import InvalidValueError
from likely.features.feature_extractors import FeatureOptions
from likely.features.pretrained import with_backbone_defaults
from likely.inference.posterior import topk_log_posterior
from likely.options import DEFAULT_MODEL, Options
from likely.prediction import Guarantee, Prediction
from likely.training.options import TrainingOptions


class Classifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """p(c | x) = softmax(log p(x | c) / T + log π_c), with p(x | c) from one of the model families.

    `fit` takes 2-D arrays as vectors of any range, and arrays (N, H, W[, C]) or lists of paths, Pillow images or arrays as
    images. It holds out a tenth of every class to choose weights and temperature, and a fifth to calibrate p-values, at most
    300 images each. A label None marks an unlabeled image.

    Parameters
    ----------
    model
        Name of a family, which `likely models` lists, or "auto": chosen by the images and their number.
    options
        Options of the family, a mapping or its options object.
    training
        TrainingOptions, or a mapping such as {"epochs": 20}.
    images
        ImageOptions, or a mapping: the size and color that images are converted to.
    features
        FeatureOptions, or a mapping such as {"backbone": "resnet"}: model inputs other than pixels.
    random_state
        Seed of the weights, the splits, the order and the noise.

    Attributes
    ----------
    predictor_
        Fitted Predictor, the contents of a model folder.
    classes_
        Labels, (K,).
    n_features_in_
        Dimension of vectors.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> digits = load_digits()
    >>> classifier = Classifier("gaussian").fit(digits.images / 16, digits.target)
    >>> classifier.predict(digits.images[:3] / 16).tolist()
    [0, 1, 2]
    >>> classifier.classify(digits.images[:1] / 16)[0].status.value
    'known'
    """

    def __init__(
        self,
        model: str = DEFAULT_MODEL,
        *,
        options: Mapping[str, Any] | Options | None = None,
        training: Mapping[str, Any] | TrainingOptions | None = None,
        images: Mapping[str, Any] | ImageOptions | None = None,
        features: Mapping[str, Any] | FeatureOptions | None = None,
        random_state: Any = 0,
    ) -> None:
        self.model = model
        self.options = options
        self.training = training
        self.images = images
        self.features = features
        self.random_state = random_state

    def fit(self, X: Any, y: ArrayLike, *, groups: ArrayLike | None = None, unknown: Any = None) -> Self:
        """Learn p(x | c) from images or vectors X and their labels y.

        Images with equal `groups` (N,), such as those of one object, are not independent: they are on one side of every
        split and in one fold, and one of them calibrates. Images like the `unknown` ones, of no class, are rejected more often,
        at the same rate of false alarms.
        """
        X, y = self._checked(X, y)
        group_ids = _group_ids(groups, len(y))
        unlabeled = np.array([label is None for label in y]) if y.dtype == object else np.zeros(len(y), bool)
        classes, labels = np.unique(y[~unlabeled], return_inverse=True)
        indices = np.full(len(y), -1, np.int64)
        indices[~unlabeled] = labels
        features, seed = FeatureOptions.from_any(self.features), _seed_from(self.random_state)
        image_options = with_backbone_defaults(ImageOptions.from_any(self.images), features)
        dataset = arrays.labeled_dataset(X, indices, [str(c) for c in classes], image_options, group_ids)
        for error in dataset.errors:
            warnings.warn(error.message, ImageWarning, stacklevel=2)
        assert dataset.train is not None
        if groups is not None and (few := classes_of_few_groups(dataset.train, dataset.classes)):
            warnings.warn(f"classes of fewer than {MIN_GROUPS} groups only train: {', '.join(few)}", stacklevel=2)
        spec = ModelSpec(self.model, self.options, TrainingOptions.from_any(self.training), features, seed)
        splits = make_splits(dataset, seed)
        if unknown is not None:
            n_features = None if dataset.format is not None else splits.train.images.shape[0]
            splits = replace(splits, unknown=arrays.load_images(unknown, dataset.format, n_features=n_features).images)
        trainer = Trainer(spec, splits, dataset.classes, dataset.format)
        for _ in trainer.steps():
            pass
        if trainer.features is not None:
            trainer.features.disable_cache()  # features of images to be classified are not stored
        self.predictor_ = replace(trainer.predictor, classes=classes)
        self.classes_ = classes
        return self

    def predict_log_proba(self, X: Any) -> NDArray[np.float64]:
        """Return log p(c | x) under the prior of the training, (N, K)."""
        return self._fitted.log_posterior(self._images(X))

    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        """Return p(c | x) under the prior of the training, (N, K); rows sum to 1."""
        return np.exp(self.predict_log_proba(X))

    def predict(self, X: Any) -> NDArray[Any]:
        """Return the most probable class of each image, (N,)."""
        best = self.predict_log_proba(X).argmax(1)
        labels: NDArray[Any] = self.classes_[best]
        return labels

    @torch.inference_mode()
    def predict_topk(self, X: Any, k: int = 5) -> tuple[NDArray[Any], NDArray[np.float32]]:
        """Return the k most probable classes of each image, most probable first, and their log p(c | x), (N, k) each."""
        images, found, predictor = self._images(X), [], self._fitted
        T = predictor.decision_rule.temperature
        for x in predictor.input_pipeline.inputs(images):
            scores = predictor.model.log_scores(x)
            found.append(topk_log_posterior(scores, predictor.log_prior.to(scores.device), T, k))
        values, classes = (torch.cat(each).cpu().numpy() for each in zip(*found, strict=True))
        return self.classes_[classes], values

    def score_samples(self, X: Any) -> NDArray[np.float64]:
        """Return log p(x) = log Σ_c p(x | c) π_c in nats, (N,), of the kind `predictor_.model.likelihood_type`."""
        return self._fitted.log_evidence(self._images(X))

    def classify(
        self,
        inputs: Any,
        *,
        alpha: float = 0.05,
        guarantee: Guarantee | str = Guarantee.OVERALL,
        top_k: int | None = None,
        names: Sequence[str] | None = None,
        log_prior: Tensor | None = None,
        mask: ArrayLike | None = None,
    ) -> list[Prediction]:
        """Return one prediction for each input, in order; an input that cannot be read gives one with an error.

        At most a fraction `alpha` of images exchangeable with the calibration images gets the status unknown, or with the
        `guarantee` "class" at most a fraction `alpha` of every class. `top_k` limits the classes that a prediction
        lists. `log_prior`, log π (K,), replaces the prior of the training (`adapt_prior` estimates one). `mask`, (H, W)
        or (N, H, W) bool, is True where a pixel may be used.
        """
        return self._fitted.classify(
            inputs, alpha=alpha, guarantee=guarantee, top_k=top_k, names=names, log_prior=log_prior, mask=mask
        )

    def adapt_prior(self, inputs: Any, *, alpha: float = 0.05) -> PriorAdaptation:
        """Estimate the class prior of unlabeled images (Saerens 2002), without those that are unknown at `alpha`."""
        images = self._fitted.load_images(inputs).images
        batches = (outputs for _, outputs in self._fitted.batches(images))
        return prior_adaptation.adapt_prior(self._fitted, batches, alpha)

    def explain(self, image: Any, *, against: Any = None) -> Explanation:
        """Explain why an image is of its most probable class rather than of another one, by default the runner-up."""
        return explanation.explain(self._fitted, image, against=against)

    def impute(self, image: Any, mask: ArrayLike) -> Imputation:
        """Impute the missing pixels of an image for each class, from the pixels where `mask`, (H, W) bool, is True."""
        return explanation.impute(self._fitted, image, mask)

    def sample(self, label: Any, n: int = 1, *, seed: int = 0, truncation: float = 1.0) -> NDArray[Any]:
        """Return n new images of a class, uint8 (n, C, H, W), or float vectors (n, D); `truncation` scales their noise."""
        return sampling.sample(self._fitted, label, n, seed=seed, truncation=truncation)

    def extend(self, name: Any, inputs: Any) -> Self:
        """Return a classifier that learned a class from images, a new one or one that it has; the others stay as they are."""
        return self._with(class_incremental.extend(self._fitted, name, inputs))

    def calibrate(
        self, X: Any, y: ArrayLike | None = None, *, groups: ArrayLike | None = None, alpha: float = 0.05
    ) -> Self:
        """Return a classifier calibrated with images X of known classes from where it is used; the model stays as it is.

        At most a fraction alpha of images exchangeable with X is rejected as unknown: X replaces the calibration images of the
        training and holds at least 1 / alpha − 1 images that it was not trained on; others are left out with a warning. Labels
        y, None where unknown, also fit the temperature, and calibrate each class with at least 1 / alpha of the images. Of
        images with equal `groups` (N,) one calibrates.
        """
        predictor = self._fitted
        if predictor.format is None:
            X = validate_data(self, X, reset=False, dtype=[np.float64, np.float32])
        labels = np.full(len(X), -1) if y is None else self._indices(y, len(X))
        dataset = arrays.labeled_dataset(
            X, labels, predictor.labels, predictor.format or ImageOptions(), _group_ids(groups, len(X))
        )
        assert dataset.train is not None
        found = recalibrate(predictor, dataset.train, alpha)
        for error in dataset.errors:
            warnings.warn(error.message, ImageWarning, stacklevel=2)
        if found.n_skipped:
            message = f"{found.n_skipped:,} images were left out, because the model was trained on them"
            warnings.warn(message, ImageWarning, stacklevel=2)
        return self._with(found.predictor)

    def save(self, folder: str | Path) -> None:
        """Write a model folder: model.safetensors and model.json."""
        self.predictor_ = serialization.save(self._fitted, folder)

    @classmethod
    def load(cls, folder: str | Path, *, device: str = "cpu", trust: checkpoint.TrustPolicy | None = None) -> Self:
        """Read a model folder that the policy trusts; CheckpointError if it is missing, damaged or of another version."""
        predictor = serialization.load(folder, device=device, trust=trust)
        features, format = predictor.features, predictor.format
        classifier = cls(
            predictor.family,
            options=predictor.model.options,
            training=predictor.training,
            images=None if format is None else format.options,
            features=None if features is None else features.options,
            random_state=predictor.seed,
        )
        return classifier._with(predictor)

    def _with(self, predictor: Predictor) -> Self:
        """Return a classifier of the same parameters, fitted."""
        new = type(self)(**self.get_params(deep=False))
        new.predictor_, new.classes_ = predictor, predictor.classes
        if predictor.format is None:
            new.n_features_in_ = predictor.shape[0]
        return new

    @property
    def _fitted(self) -> Predictor:
        check_is_fitted(self, "predictor_")
        predictor: Predictor = self.predictor_
        return predictor

    def _checked(self, X: Any, y: Any) -> tuple[Any, NDArray[Any]]:
        """Images as they are, vectors as scikit-learn wants them, and labels (N,)."""
        if not arrays.are_images(X):
            X, y = validate_data(self, X, y, dtype=[np.float64, np.float32])
        y = column_or_1d(y, warn=True)
        labels = [label for label in y if label is not None]
        if not labels:
            raise InvalidValueError(
                f"y holds {len(y)} times None and no label; a label for some images of each class was expected"
            )
        check_classification_targets(labels)
        if len(X) != len(y):
            raise InvalidValueError(f"X holds {len(X)} images and y {len(y)} labels; one label an image was expected")
        return X, y

    def _indices(self, y: ArrayLike, n: int) -> NDArray[np.int64]:
        """Return the class index of each of n labels, −1 for None; InvalidValueError names labels that are no class."""
        names = [None if label is None else str(label) for label in np.asarray(y, object)]
        if len(names) != n:
            raise InvalidValueError(f"X holds {n} images and y {len(names)} labels; one label an image was expected")
        return np.array([-1 if name is None else self._fitted.index(name) for name in names], np.int64)

    def _images(self, X: Any) -> ImageDataset:
        format = self._fitted.format
        if format is None:
            X = validate_data(self, X, reset=False, dtype=[np.float64, np.float32])
        return arrays.images(X, format)


def _group_ids(groups: ArrayLike | None, n: int) -> NDArray[np.int64] | None:
    """Return numbers that are equal for images of equal groups, (n,)."""
    if groups is None:
        return None
    found = np.asarray(groups)
    if found.shape != (n,):
        raise InvalidValueError(f"groups has the shape {found.shape}; ({n},) was expected, a group for each image")
    return np.unique(found, return_inverse=True)[1]


def _seed_from(random_state: Any) -> int:
    """Return a number from anything that scikit-learn accepts as a random state."""
    if isinstance(random_state, Integral):
        return int(random_state)
    return int(check_random_state(random_state).randint(2**31))
