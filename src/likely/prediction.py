"""Prediction: the one result type of the command line, the Python API and the HTTP API."""

from __future__ import annotations

from enum import StrEnum

from pydantic import BaseModel, ConfigDict


class Status(StrEnum):
    """Status of a prediction at significance level alpha.

    `known`: the prediction set holds one class (a singleton). `ambiguous`: it holds several classes. `unknown`: the
    image is rejected as out of distribution, p_value ≤ alpha. `uncalibrated`: too few calibration images for a
    guarantee. `error`: the input could not be read.
    """

    KNOWN = "known"
    AMBIGUOUS = "ambiguous"
    UNKNOWN = "unknown"
    UNCALIBRATED = "uncalibrated"
    ERROR = "error"


class CalibrationScope(StrEnum):
    """Scope of the conformal guarantee of p-values.

    `per_class`: class-conditional (Mondrian), from calibration images of the class. `pooled`: marginal over classes
    that share a pool of calibration images. `none`: too few calibration images.
    """

    PER_CLASS = "per_class"
    POOLED = "pooled"
    NONE = "none"


class ClassPrediction(BaseModel):
    """Posterior probability, conformal p-value and log p(x | c) in nats of one class; None where not available."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    label: str
    probability: float
    p_value: float | None
    log_likelihood: float | None


class GroupPrediction(BaseModel):
    """A group of classes by the hierarchy in their names, and the sum of their probabilities."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    label: str
    probability: float


class Prediction(BaseModel):
    """Prediction for one image.

    `label` is the class of the highest posterior `probability`; `p_value` = max_c p_c tests if the image is like the
    known images, and decides `status` with `prediction_set`. `classes` lists the most probable classes in descending
    order, `groups` the most probable group of each level of nested class names, from coarse to fine. `bits_per_dim` =
    −log2 p(x) / D is None unless the likelihood is a normalized one of 8-bit pixels. `p_real` is the discriminator's
    probability that the image is real and not generated; None without one. `calibration` is the weakest scope among the
    reported p-values. `model` is NAME@HASH. `error` is one sentence, else None.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    input: str
    status: Status
    label: str | None = None
    probability: float | None = None
    p_value: float | None = None
    prediction_set: tuple[str, ...] = ()
    classes: tuple[ClassPrediction, ...] = ()
    groups: tuple[GroupPrediction, ...] = ()
    bits_per_dim: float | None = None
    p_real: float | None = None
    calibration: CalibrationScope = CalibrationScope.NONE
    model: str | None = None
    error: str | None = None

    @classmethod
    def failed(cls, source: str, message: str, *, model: str | None = None) -> Prediction:
        """Return the prediction for an input that could not be read; `message` is one sentence."""
        return cls(input=source, status=Status.ERROR, error=message, model=model)
