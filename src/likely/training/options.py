"""What people may say about a training: how long, how fast, on what, with which changes to the images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field, model_validator

from likely.exceptions import InvalidValueError
from likely.options import Options


class AugmentOptions(Options):
    """Random changes to training images, drawn anew for every image and epoch from the seed.

    Shifts and flips move pixels and keep them exact. The others make new values between the old ones, which is no harm to
    a posterior but moves a likelihood of 8-bit pixels, so they are off until asked for.
    """

    shift: float = Field(
        0.08, ge=0, le=0.5, description="Largest shift, as a share of the image's side; the border repeats."
    )
    flip: bool = Field(False, description="Mirror every other image left to right; wrong for digits and letters.")
    rotate: float = Field(0.0, ge=0, le=180, description="Largest rotation in degrees.")
    scale: float = Field(0.0, ge=0, lt=1, description="Largest change of size, as a share: 0.1 means 0.9 to 1.1 times.")
    crop: float = Field(
        0.0, ge=0, lt=1, description="Largest share of the image's area cut away before it is enlarged again."
    )
    erase: float = Field(
        0.0, ge=0, lt=1, description="Largest share of the image that a rectangle of the mean color of the rest hides."
    )
    color: float = Field(
        0.0, ge=0, lt=1, description="Largest change of brightness, contrast and saturation, as a share."
    )


class TrainingOptions(Options):
    """Options of every training, whatever the family."""

    epochs: int | None = Field(
        None, ge=1, description="Passes over the training images; chosen by their number when left out."
    )
    minutes: float | None = Field(None, gt=0, description="Train for so many minutes instead.")
    batch_size: int | None = Field(None, ge=2, description="Images a step; chosen by their number when left out.")
    optimizer: Literal["adamw", "adam", "adagrad", "sgd"] = Field("adamw", description="How gradients become steps.")
    momentum: float = Field(
        0.9, ge=0, lt=1, description="How long gradients are remembered: momentum of SGD, β₁ of Adam."
    )
    beta2: float = Field(0.99, ge=0, lt=1, description="How long the squares of gradients are remembered: β₂ of Adam.")
    schedule: Literal["one_cycle", "cosine", "step", "constant", "wsd"] = Field(
        "one_cycle", description="How the learning rate runs from the first step to the last."
    )
    learning_rate: float = Field(4e-3, gt=0, description="The schedule's largest learning rate.")
    weight_decay: float = Field(0.02, ge=0, description="Pull of weights toward zero, per step and learning rate.")
    max_grad_norm: float = Field(1.0, gt=0, description="Largest norm of a gradient; a longer one is shortened to it.")
    ema_decay: float = Field(
        0.998, ge=0, lt=1, description="Decay of the weights' moving average, which is what is kept."
    )
    patience: int = Field(30, ge=1, description="Epochs without a better validation score before training stops early.")
    labeled_fraction: float = Field(
        0.25, ge=0, lt=1, description="Least share of a batch that is labeled, where there are unlabeled images."
    )
    device: Literal["auto", "cpu", "cuda", "mps"] = Field(
        "auto", description="Where to compute; auto: a GPU if there is one."
    )
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="Numbers inside the networks; auto: bfloat16 where the device is faster with it."
    )
    threads: int | None = Field(None, ge=1, description="Processor threads; the free cores when left out.")
    augment: AugmentOptions = Field(AugmentOptions(), description="Random changes to training images.")

    @model_validator(mode="after")
    def _one_length(self) -> TrainingOptions:
        if self.epochs is not None and self.minutes is not None:
            raise InvalidValueError(
                f"epochs ({self.epochs}) and minutes ({self.minutes:g}) both say how long to train; give one"
            )
        return self

    def with_defaults(self, better: Mapping[str, object]) -> TrainingOptions:
        """The same with what a family does better with, wherever nothing else was asked for."""
        asked, better = self.model_dump(exclude_unset=True), dict(better)
        for name, group in better.items():
            if isinstance(group, Mapping):
                asked[name] = {**group, **asked.get(name, {})}
        return self.model_validate(better | asked)

    def resolve(self, n_images: int) -> TrainingOptions:
        """The same with batch size and length filled in: a batch of about a thirtieth of the images, about 4,000 steps."""
        batch_size = self.batch_size or max(16, min(256, 1 << ((n_images // 32).bit_length() or 1)))
        if self.epochs is not None or self.minutes is not None:
            return self.model_copy(update={"batch_size": batch_size})
        epochs = max(5, min(200, 4000 * batch_size // max(n_images, 1)))
        return self.model_copy(update={"batch_size": batch_size, "epochs": epochs})
