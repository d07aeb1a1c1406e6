"""Prediction: the one result type of the command line, the Python API and the HTTP API."""

from __future__ import annotations

from enum import StrEnum

from pydantic import BaseModel, ConfigDict, Field


class Status(StrEnum):
    """Status of a prediction at significance level alpha.

    `known`: one class fits the image; the prediction set is a singleton.
    `ambiguous`: several classes fit the image; all of them are in the prediction set.
    `unknown`: the image is not like the known images, p_value ≤ alpha; it is rejected as out of distribution.
    `uncalibrated`: no p-value, for lack of calibration images; `label` and `probability` are valid without a guarantee.
    `error`: the input could not be read; `error` says why.
    """

    KNOWN = "known"
    AMBIGUOUS = "ambiguous"
    UNKNOWN = "unknown"
    UNCALIBRATED = "uncalibrated"
    ERROR = "error"


class Guarantee(StrEnum):
    """Guarantee of a rejection at significance level alpha, in expectation over calibration draws.

    `overall`: at most a fraction alpha of images exchangeable with the calibration images is rejected.
    `class`: at most a fraction alpha of every class is; an image is rejected only if every class rejects it.
    """

    OVERALL = "overall"
    CLASS = "class"


class CalibrationMethod(StrEnum):
    """Method by which conformal p-values are calibrated.

    `split`: on images that nothing else was fitted to; the guarantee is exact.
    `cross-conformal`: on training images in folds, each scored by a model of the other folds (Vovk 2015); the guarantee is
    approximate, up to 2 alpha in the worst case (Barber 2021).
    """

    SPLIT = "split"
    CROSS_CONFORMAL = "cross-conformal"


class CalibrationScope(StrEnum):
    """Scope of the conformal guarantee of p-values.

    `per_class`: class-conditional (Mondrian): the guarantee holds for each class, from its own calibration images.
    `pooled`: marginal: the guarantee holds on average over classes that share a pool of calibration images.
    `none`: no guarantee, because there are too few calibration images.
    """

    PER_CLASS = "per_class"
    POOLED = "pooled"
    NONE = "none"


class ClassPrediction(BaseModel):
    """Prediction for one class."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    label: str = Field(description="Name of the class.")
    probability: float = Field(description="Posterior probability p(c | x).")
    p_value: float | None = Field(
        description="Conformal p-value: small if the image is atypical of the class; null without calibration."
    )
    log_likelihood: float | None = Field(
        description="log p(x | c) in nats, or its bound or unnormalized score; null for models without one."
    )


class GroupPrediction(BaseModel):
    """Prediction for a group of classes, by the hierarchy in their names: `fruit` is the group of `fruit/apple`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    label: str = Field(description="Name of the group.")
    probability: float = Field(description="Sum of the posterior probabilities of its classes.")


class Prediction(BaseModel):
    """Prediction for one image."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    input: str = Field(description="Path or name of the image.")
    status: Status = Field(description="Status at significance level alpha.")
    label: str | None = Field(
        None, description="Class of the highest posterior probability, also if the image is rejected; null on error."
    )
    probability: float | None = Field(None, description="Posterior probability of `label`; null on error.")
    p_value: float | None = Field(
        None,
        description="Conformal p-value of the image, small if it is unlike the known images; at most alpha if and only if "
        "`status` is `unknown`. With the guarantee `class`, the maximum of the p-values of the classes. Null without "
        "calibration.",
    )
    prediction_set: tuple[str, ...] = Field(
        (),
        description="`label` and every class that the posterior cannot exclude at alpha; empty if `unknown` or `error`.",
    )
    classes: tuple[ClassPrediction, ...] = Field(
        (), description="Classes in descending order of probability: all, or the `--top-k` most probable."
    )
    groups: tuple[GroupPrediction, ...] = Field(
        (), description="Most probable group at each level of nested class names, from coarse to fine."
    )
    bits_per_dim: float | None = Field(
        None, description="−log₂ p(x) / D; null unless the likelihood is a normalized one of 8-bit pixels."
    )
    p_real: float | None = Field(
        None,
        description="Probability that the image is real and not generated; null for models without a discriminator.",
    )
    guarantee: Guarantee = Field(
        Guarantee.OVERALL,
        description="Guarantee of `p_value`: at most a fraction alpha of known images is rejected, `overall` or of every "
        "`class`.",
    )
    calibration: str | None = Field(
        None,
        description="Method that calibrated `p_value`: `split` or `cross-conformal`, with `-pooled` if small classes share "
        "calibration images for the guarantee `class`; null without calibration.",
    )
    model: str | None = Field(None, description="Name of the model folder and its hash, `NAME@HASH`; null if unsaved.")
    error: str | None = Field(None, description="Reason in one sentence why the input could not be read; else null.")

    @classmethod
    def failed(cls, source: str, message: str, *, model: str | None = None) -> Prediction:
        """Return the prediction for an input that could not be read; `message` is one sentence."""
        return cls(input=source, status=Status.ERROR, error=message, model=model)
