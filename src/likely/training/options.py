"""Options of training and augmentation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field, model_validator

from likely.exceptions import InvalidValueError
from likely.options import Options


class AugmentOptions(Options):
    """Random augmentation of training images, different for every image and epoch.

    Shifts and flips preserve pixel values. The others interpolate, which is harmless for posteriors but changes the likelihood
    of 8-bit pixels, so they are off by default.
    """

    shift: float = Field(
        0.08, ge=0, le=0.5, description="Maximum shift as a fraction of the image side; border pixels are repeated."
    )
    flip: bool = Field(False, description="Flip images horizontally with probability 1/2; not for digits or letters.")
    rotate: float = Field(0.0, ge=0, le=180, description="Maximum rotation in degrees.")
    scale: float = Field(0.0, ge=0, lt=1, description="Maximum relative change of size: 0.1 means 0.9 to 1.1 times.")
    crop: float = Field(
        0.0, ge=0, lt=1, description="Maximum fraction of the area cropped away before resizing to the full image."
    )
    erase: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="Maximum fraction of the area erased by a rectangle of the image's mean color (random erasing).",
    )
    color: float = Field(0.0, ge=0, lt=1, description="Maximum relative change of brightness, contrast and saturation.")


class TrainingOptions(Options):
    """Options of training, for all families."""

    epochs: int | None = Field(
        None, ge=1, description="Passes over the training images. Default: chosen from their number."
    )
    minutes: float | None = Field(None, gt=0, description="Training time in minutes, instead of epochs.")
    batch_size: int | None = Field(None, ge=2, description="Images per step. Default: chosen from their number.")
    optimizer: Literal["adamw", "adam", "adagrad", "sgd"] = Field("adamw", description="Optimizer.")
    momentum: float = Field(0.9, ge=0, lt=1, description="Momentum of SGD, β₁ of Adam.")
    beta2: float = Field(0.99, ge=0, lt=1, description="β₂ of Adam.")
    schedule: Literal["one_cycle", "cosine", "step", "constant", "wsd"] = Field(
        "one_cycle", description="Learning-rate schedule; wsd: constant, then linear cooldown."
    )
    learning_rate: float = Field(4e-3, gt=0, description="Maximum learning rate of the schedule.")
    weight_decay: float = Field(0.02, ge=0, description="Weight decay.")
    l1_weight: float = Field(0.0, ge=0, description="Weight of the sum of absolute weights in the loss (L1).")
    max_grad_norm: float = Field(1.0, gt=0, description="Maximum gradient norm (gradient clipping).")
    ema_decay: float = Field(
        0.998, ge=0, lt=1, description="Decay per step of the moving average of the weights, which is the final model."
    )
    patience: int = Field(
        30, ge=1, description="Early stopping after this many epochs without a better validation score."
    )
    labeled_fraction: float = Field(
        0.25, ge=0, lt=1, description="Minimum fraction of labeled images per batch if there are unlabeled images."
    )
    device: Literal["auto", "cpu", "cuda", "mps"] = Field("auto", description="Device; auto: a GPU if available.")
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="Precision of the networks; auto: bfloat16 where it is faster."
    )
    threads: int | None = Field(None, ge=1, description="CPU threads. Default: the number of free cores.")
    augment: AugmentOptions = Field(AugmentOptions(), description="Augmentation of training images.")

    @model_validator(mode="after")
    def _one_length(self) -> TrainingOptions:
        if self.epochs is not None and self.minutes is not None:
            raise InvalidValueError(
                f"epochs ({self.epochs}) and minutes ({self.minutes:g}) are alternatives; set one of them"
            )
        return self

    def with_defaults(self, family_defaults: Mapping[str, object]) -> TrainingOptions:
        """Return the options with a family's defaults for everything that is not set explicitly."""
        explicit, family_defaults = self.model_dump(exclude_unset=True), dict(family_defaults)
        for name, group in family_defaults.items():
            if isinstance(group, Mapping):
                explicit[name] = {**group, **explicit.get(name, {})}
        return self.model_validate(family_defaults | explicit)

    def resolve(self, n_images: int) -> TrainingOptions:
        """Return the options with batch size (about 1/32 of the images) and epochs (about 4,000 steps) filled in."""
        batch_size = self.batch_size or max(16, min(256, 1 << ((n_images // 32).bit_length() or 1)))
        if self.epochs is not None or self.minutes is not None:
            return self.model_copy(update={"batch_size": batch_size})
        epochs = max(5, min(200, 4000 * batch_size // max(n_images, 1)))
        return self.model_copy(update={"batch_size": batch_size, "epochs": epochs})
