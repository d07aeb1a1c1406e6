"""Classifier: what people hold in their hands, of arrays, behind scikit-learn's contract."""

from __future__ import annotations

import warnings
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import column_or_1d, validate_data

from likely.classifier.predictor import Predictor, seed_from
from likely.data import arrays
from likely.data.decoding import ImageWarning
from likely.data.image_dataset import ImageDataset
from likely.data.preprocessing import ImageOptions
from likely.data.splits import make_splits
from likely.exceptions import InvalidValueError
from likely.features.feature_extraction import with_backbone_defaults
from likely.features.feature_extractors import FeatureOptions
from likely.inference.posterior import topk_log_posterior


class Classifier(ClassifierMixin, BaseEstimator, Predictor):  # type: ignore[misc]  # scikit-learn has no types
    """p(c | x) = softmax(log p(x | c) / T + log π_c), with p(x | c) from one of the model families.

    Parameters
    ----------
    model : the name of a family, which `likely models` lists, or "auto": chosen by what the images are and how many.
    options : the family's own options, a mapping or its options object.
    training : TrainingOptions, or a mapping such as {"epochs": 20}.
    images : ImageOptions, or a mapping: the size and color that images are brought to.
    features : FeatureOptions, or a mapping such as {"backbone": "resnet"}: what the model sees in place of pixels.
    random_state : seed of the weights, the splits, the order and the noise.

    `fit` takes 2-D arrays as vectors of any range, and arrays (N, H, W[, C]) or lists of paths, Pillow images or arrays as
    images. It sets aside a tenth of every class to choose weights and temperature by, and a fifth to calibrate p-values on,
    at most 300 images each. A label None marks an unlabeled image.

    >>> from sklearn.datasets import load_digits
    >>> digits = load_digits()
    >>> classifier = Classifier("gaussian").fit(digits.images / 16, digits.target)
    >>> classifier.predict(digits.images[:3] / 16).tolist()
    [0, 1, 2]
    >>> classifier.answer(digits.images[:1] / 16)[0].status.value
    'known'
    """

    def fit(self, X: Any, y: ArrayLike) -> Self:
        """Learn p(x | c) from images or vectors X and their labels y."""
        X, y = self._checked(X, y)
        self.seed_ = seed_from(self.random_state)
        unlabeled = np.array([label is None for label in y]) if y.dtype == object else np.zeros(len(y), bool)
        classes, labels = np.unique(y[~unlabeled], return_inverse=True)
        numbers = np.full(len(y), -1, np.int64)
        numbers[~unlabeled] = labels
        asked = with_backbone_defaults(ImageOptions.from_any(self.images), FeatureOptions.from_any(self.features))
        dataset = arrays.labeled_dataset(X, numbers, [str(c) for c in classes], asked)
        for error in dataset.errors:
            warnings.warn(error.message, ImageWarning, stacklevel=2)
        parts = make_splits(dataset, self.seed)
        for _ in self.fit_steps(parts, dataset.classes, dataset.format):
            pass
        self.finish(parts)
        self.disable_feature_cache()  # what comes now are images of every day, of which nobody asked to keep anything
        self.classes_ = classes
        return self

    def predict_log_proba(self, X: Any) -> NDArray[np.float64]:
        """log p(c | x) under the training prior: (N, K)."""
        return self.log_posterior(self._images(X))

    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        """p(c | x) under the training prior: (N, K), rows summing to 1."""
        return np.exp(self.predict_log_proba(X))

    def predict(self, X: Any) -> NDArray[Any]:
        """The most probable class of each image: (N,)."""
        best = self.predict_log_proba(X).argmax(1)
        labels: NDArray[Any] = self.classes_[best]
        return labels

    @torch.inference_mode()
    def predict_topk(self, X: Any, k: int = 5) -> tuple[NDArray[Any], NDArray[np.float32]]:
        """The k most probable classes of each image, the first the best, and their log p(c | x): (N, k) each.

        Of thousands of classes no more is kept than is asked for.
        """
        images, found = self._images(X), []
        for x in self.input_pipeline.inputs(images):
            scores = self.model_.log_scores(x)
            found.append(topk_log_posterior(scores, self.log_prior_.to(scores.device), self.conformal_.temperature, k))
        values, classes = (torch.cat(part).cpu().numpy() for part in zip(*found, strict=True))
        return self.classes_[classes], values

    def score_samples(self, X: Any) -> NDArray[np.float64]:
        """log p(x) = log Σ_c p(x | c) π_c in nats, (N,); of the kind that `model_.evidence` names."""
        return self.log_evidence(self._images(X))

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

    def _images(self, X: Any) -> ImageDataset:
        self._check_fitted()
        if self.format_ is None:
            X = validate_data(self, X, reset=False, dtype=[np.float64, np.float32])
        return arrays.images(X, self.format_)
