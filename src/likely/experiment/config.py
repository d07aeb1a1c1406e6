"""TrainConfig: data, model and all options of a training, stored in the model folder."""

from __future__ import annotations

from typing import Any

from pydantic import Field, field_validator

from likely.classifier.trainer import ModelSpec
from likely.data.preprocessing import ImageOptions
from likely.exceptions import InvalidValueError
from likely.features.feature_decoder import DecoderOptions
from likely.features.feature_extractors import FeatureOptions
from likely.options import DEFAULT_MODEL, Options
from likely.training.options import TrainingOptions

FOLD_FRACTION = 0.05  # of the training's length, for each fold of the label check


class TrainConfig(Options):
    """Configuration of a training."""

    data: str = Field(description="DATA, as it was given.")
    model: str = Field(DEFAULT_MODEL, description="The family.")
    options: dict[str, Any] = Field({}, description="The family's options, where they are not its defaults.")
    training: TrainingOptions = TrainingOptions()
    images: ImageOptions = ImageOptions()
    features: FeatureOptions = FeatureOptions()
    decoder: DecoderOptions = DecoderOptions()
    augment_with: str | None = Field(
        None,
        description="MODEL or MODEL:n: train once more with n images of each class (100) that this model draws; keep "
        "what comes of it if held-out accuracy rises beyond its interval.",
    )
    seed: int = Field(
        0, ge=0, lt=2**32, description="Seed of the weights, the splits, the order, the augmentation and the noise."
    )
    label_check_folds: int = Field(
        2, ge=0, le=10, description="Folds of short trainings that detect label errors; 0: none."
    )
    repeats: int = Field(
        0,
        ge=0,
        le=100,
        description="Further trainings, each as long and on another split of the training images, for confidence intervals; at "
        "least 2.",
    )

    @field_validator("label_check_folds")
    @classmethod
    def _more_than_one_fold(cls, folds: int) -> int:
        if folds == 1:
            raise InvalidValueError("one fold leaves no images to train on; 0 or at least 2 were expected")
        return folds

    @field_validator("repeats")
    @classmethod
    def _show_a_spread(cls, repeats: int) -> int:
        if repeats == 1:
            raise InvalidValueError("a single training shows no spread; at least 2 were expected, such as 5")
        return repeats

    @property
    def main_training(self) -> TrainingOptions:
        """Training options without the time of the label check, which is included in `minutes`."""
        if self.training.minutes is None:
            return self.training
        return self.training.model_copy(
            update={"minutes": self.training.minutes * (1 - self.label_check_folds * FOLD_FRACTION)}
        )

    def model_spec(self, seed: int) -> ModelSpec:
        """Return the specification of the model to be trained from a seed."""
        return ModelSpec(self.model, self.options, self.main_training, self.features, seed)
