"""Setup of a training: DATA is listed, read and split once, and every option is resolved."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

from likely import models
from likely.classifier.auto import ModelChoice, choose_model, default_backbone
from likely.data.dataset import Dataset, LabeledImages, concatenate
from likely.data.listing import list_data
from likely.data.loading import load_dataset
from likely.data.splits import Splits, make_splits
from likely.exceptions import TrainConfigError
from likely.experiment.config import TrainConfig
from likely.features.backbone import with_backbone_defaults
from likely.training.device import free_cores


@dataclass(frozen=True, eq=False)
class TrainingSetup:
    """Resolved configuration and data of a training; `choice` says why its family was chosen."""

    config: TrainConfig
    dataset: Dataset
    splits: Splits
    choice: ModelChoice

    @property
    def digest(self) -> str:
        """SHA-256 of the images and labels of all splits, in their order."""
        splits = (self.splits.train, self.splits.validation, self.splits.calibration)
        return hashlib.sha256(b"".join(s.hashes.tobytes() + s.labels.tobytes() for s in splits)).hexdigest()

    @property
    def eval_images(self) -> LabeledImages:
        """The test images held out, or else the validation images: training never reads DATA's own test split."""
        return self.splits.test.labeled() if self.splits.test is not None else self.splits.validation

    def held_out_images(self, cross_conformal: bool) -> LabeledImages:
        """Return images that did not train; as far as possible, they did not choose weights or options either."""
        return self.splits.validation if cross_conformal else self.splits.calibration

    def unseen_images(self, cross_conformal: bool) -> LabeledImages:
        """Return the held-out images and the test images held out, which had no influence on the training."""
        test = [] if self.splits.test is None else [self.splits.test]
        return concatenate([self.held_out_images(cross_conformal), *test])


def prepare(config: TrainConfig, progress: Callable[[int, int], None] | None = None) -> TrainingSetup:
    """Read and split DATA, and resolve the family, its features and all defaults.

    Everything is resolved now, so that a resumed training does not depend on later defaults. Raises TrainConfigError if
    options do not fit together.
    """
    listed = list_data(config.data)
    features = default_backbone(config.model, config.features, listed)
    if config.decoder.minutes is not None and features.kind != "backbone":
        raise TrainConfigError(
            "--decoder-minutes is for models of a backbone's features; name one with --backbone FOLDER"
        )
    images = with_backbone_defaults(config.images, features)
    dataset = load_dataset(listed, images, splits=("train", "validation"), progress=progress)
    dataset, splits = split_dataset(dataset, config.seed)
    train = splits.train
    choice = choose_model(config.model, features, train.images.shape, train.class_counts(len(dataset.classes)))
    options = models.family(choice.family).options_type.from_any(config.options)
    training = config.training.model_copy(update={"threads": config.training.threads or free_cores()})
    resolved = config.model_copy(
        update={
            "model": choice.family,
            "features": choice.features,
            "images": images,
            "training": training.with_defaults(options.training_defaults),
        }
    )
    return TrainingSetup(resolved, dataset, splits, choice)


def split_dataset(dataset: Dataset, seed: int) -> tuple[Dataset, Splits]:
    """Split a dataset; classes without a training image are dropped, and recorded among its errors."""
    splits = make_splits(dataset, seed)
    counts = splits.train.class_counts(len(dataset.classes))
    classes = [name for name, n in zip(dataset.classes, counts, strict=True) if n]
    if len(classes) == len(dataset.classes):
        return dataset, splits
    dataset = dataset.relabel(classes)
    return dataset, make_splits(dataset, seed)
