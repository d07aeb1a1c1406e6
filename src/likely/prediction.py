"""Answer: the one result type, the same from the command line, from Python and over HTTP."""

from __future__ import annotations

from enum import StrEnum

from pydantic import BaseModel, ConfigDict


class Status(StrEnum):
    """`known`: one class fits. `ambiguous`: several do. `unknown`: none does, at the false-alarm rate chosen.

    `uncalibrated`: too few calibration images to promise anything. `error`: the input could not be read.
    """

    KNOWN = "known"
    AMBIGUOUS = "ambiguous"
    UNKNOWN = "unknown"
    UNCALIBRATED = "uncalibrated"
    ERROR = "error"


class CalibrationScope(StrEnum):
    """What stands behind the p-values: images of the class itself, of all classes together (a marginal promise), or nothing."""

    PER_CLASS = "per_class"
    POOLED = "pooled"
    NONE = "none"


class ClassPrediction(BaseModel):
    """What one class says of the image."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    label: str
    probability: float
    p_value: float | None
    log_likelihood: float | None


class GroupPrediction(BaseModel):
    """A group of classes, as their names tell it, and what its classes' probabilities come to together."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    label: str
    probability: float


class Prediction(BaseModel):
    """What the model says of one image; `classes` are sorted, the most probable first."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    input: str
    status: Status
    label: str | None = None
    probability: float | None = None
    p_value: float | None = None
    prediction_set: tuple[str, ...] = ()
    classes: tuple[ClassPrediction, ...] = ()
    groups: tuple[
        GroupPrediction, ...
    ] = ()  # the most probable of each depth, from coarse to fine; of nested classes alone
    bits_per_dim: float | None = None
    p_real: float | None = (
        None  # of a model with a discriminator: is the image real, rather than made by its generator?
    )
    calibration: CalibrationScope = CalibrationScope.NONE
    model: str | None = None
    error: str | None = None

    @classmethod
    def failed(cls, source: str, message: str, *, model: str | None = None) -> Prediction:
        """The answer for an input that could not be read: `error` says why in a sentence."""
        return cls(input=source, status=Status.ERROR, error=message, model=model)
