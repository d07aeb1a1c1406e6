"""Request and response schemas, from which the OpenAPI documentation is generated."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

from likely.prediction import Guarantee, Prediction
from likely.server.store import ClassStats, PredictionFilter, PredictionRecord, Scope
from likely.server.store.queries import MAX_PAGE, Word

Responses: TypeAlias = dict[int | str, dict[str, Any]]
MAX_IDS = 10_000  # predictions that one request may label


class Problem(BaseModel):
    """Error message."""

    detail: str


class PredictionOut(Prediction):
    """Prediction with the id under which it is stored."""

    id: Annotated[str | None, Field(description="null for an image that could not be read.")]


class ClassifyResponse(BaseModel):
    """Predictions for all images of a request, in order."""

    model: str
    request: str
    predictions: list[PredictionOut]


class ModelInfo(BaseModel):
    """Model that is served; `versions` are loaded, and the last one is the default."""

    name: str
    version: str
    versions: list[str]
    family: str
    labels: list[str]
    size: Annotated[list[int], Field(description="Height and width to which images are resized.")]
    channels: int


class ModelsResponse(BaseModel):
    """All models that are served."""

    models: list[ModelInfo]


class PathFrame(BaseModel):
    """Image on the path to another class."""

    image: Annotated[str, Field(description="PNG in base64.")]
    probability: Annotated[float, Field(description="Probability of the other class for this image.")]
    flips: Annotated[bool, Field(description="True for the first image that is classified as the other class.")]


class ExplainResponse(BaseModel):
    """Explanation of a class against another one; images are PNG in base64."""

    model: str
    label: str
    against: str
    probability: float
    probability_against: float
    log_odds: Annotated[float, Field(description="log p(x | label) − log p(x | against), nats.")]
    image: Annotated[str, Field(description="The image after preprocessing.")]
    attribution: Annotated[
        str, Field(description="Pixel attributions: orange supports the label, blue the other class.")
    ]
    counterfactual_path: Annotated[
        list[PathFrame],
        Field(description="Counterfactual path to the other class; empty if the model has no latent space."),
    ]


class GenerateRequest(BaseModel):
    """Request for generated images."""

    model_config = ConfigDict(extra="forbid")

    label: Annotated[str, Field(max_length=255)]
    model: Annotated[str | None, Field(max_length=255)] = None
    n: Annotated[int, Field(ge=1, le=64)] = 1
    seed: Annotated[int, Field(ge=0, lt=1 << 31)] = 0


class GenerateResponse(BaseModel):
    """Generated images of a class, PNG in base64 each."""

    model: str
    label: str
    images: list[str]


class DriftInfo(BaseModel):
    """Drift of recent images against validation images; all null if either is missing."""

    model: str
    drifted: Annotated[
        bool | None,
        Field(description="True if the difference is significant and large; null with too few recent images."),
    ] = None
    difference: Annotated[float | None, Field(description="Kolmogorov-Smirnov statistic.")] = None
    p_value: Annotated[float | None, Field(description="p-value of the statistic under no drift.")] = None
    n: Annotated[int | None, Field(description="Number of recent images.")] = None


class ClassInfo(ClassStats):
    """Class of a model with its statistics."""

    n_training: Annotated[int | None, Field(description="Number of training images; null if it was not recorded.")]


class ClassesResponse(BaseModel):
    """All classes of a model, in order."""

    model: str
    classes: list[ClassInfo]


class ClassEmbedding(BaseModel):
    """Projected embedding of a class."""

    label: str
    x: float
    y: float


class ProjectionResponse(BaseModel):
    """2-D projection of a model's classes; empty if the model has no embedding."""

    model: str
    classes: list[ClassEmbedding]


class PageParams(PredictionFilter):
    """Filter of predictions and a page of the result."""

    before: Annotated[Word | None, Field(max_length=36, description="Return predictions older than this one.")] = None
    limit: Annotated[int, Field(ge=1, le=MAX_PAGE)] = 50


class PredictionsResponse(BaseModel):
    """Predictions, the newest first; pass `before` to get the next page, null on the last."""

    predictions: list[PredictionRecord]
    before: str | None
    counts: Annotated[dict[str, int], Field(description="Total number of matching predictions, by status.")]


class UploadParams(BaseModel):
    """Query parameters of a request that uploads images."""

    model_config = ConfigDict(extra="forbid")

    name: Annotated[
        str | None, Field(description="Name of the image in the body; forms and JSON carry their own names.")
    ] = None


class ModelParams(UploadParams):
    """Selection of a model."""

    model: Annotated[
        str | None, Field(max_length=255, description='"name" or "name@version"; the first model by default.')
    ] = None


class ClassifyParams(ModelParams):
    """Parameters of classification."""

    alpha: Annotated[
        float | None,
        Field(gt=0, lt=1, description="Fraction of in-distribution images that may be rejected as unknown."),
    ] = None
    guarantee: Annotated[
        Guarantee, Field(description="Limit alpha for all images of known classes together, or for every class.")
    ] = Guarantee.OVERALL
    top_k: Annotated[int | None, Field(ge=1, description="Number of classes to return for each image.")] = None


class ExplainParams(ModelParams):
    """Parameters of an explanation."""

    against: Annotated[
        str | None, Field(max_length=255, description="Class to compare with; the runner-up by default.")
    ] = None


class SampleParams(BaseModel):
    """Parameters of a generated image."""

    model_config = ConfigDict(extra="forbid")

    seed: Annotated[int, Field(ge=0, lt=1 << 31)] = 0


class NewClassParams(UploadParams):
    """Parameters of a new class, or of more images of a class."""

    label: Annotated[Word, Field(min_length=1, max_length=255, description="Name of the class.")]


class LabelRequest(BaseModel):
    """Label of an image; null withdraws it."""

    model_config = ConfigDict(extra="forbid")

    label: Annotated[Word | None, Field(min_length=1, max_length=255)]


class BulkLabelRequest(LabelRequest):
    """Label of several images."""

    ids: Annotated[list[Annotated[Word, Field(max_length=36)]], Field(min_length=1, max_length=MAX_IDS)]


class LabelResponse(BaseModel):
    """Ids of the predictions that were labeled."""

    ids: list[str]


class LoginRequest(BaseModel):
    """Key to exchange for a session cookie."""

    model_config = ConfigDict(extra="forbid")

    key: Annotated[str, Field(max_length=255)]


class SessionInfo(BaseModel):
    """Authenticated key, and the CSRF token of a browser session."""

    key: str
    name: str
    scopes: list[Scope]
    csrf: str | None


class KeyInfo(BaseModel):
    """API key without its secret."""

    id: str
    name: str
    scopes: list[Scope]
    created: datetime
    expires: datetime | None
    revoked: datetime | None


class NewKeyRequest(BaseModel):
    """Parameters of a new API key."""

    model_config = ConfigDict(extra="forbid")

    name: Annotated[Word, Field(min_length=1, max_length=255)]
    scopes: Annotated[list[Scope], Field(min_length=1)]
    days: Annotated[float | None, Field(gt=0, le=36500, description="Days until the key expires; null for never.")] = (
        None
    )


class NewKeyResponse(KeyInfo):
    """New API key with its secret, which is shown only once."""

    secret: str


def response_schema(model: type[BaseModel]) -> dict[str, Any]:
    """Return a model's JSON schema with all references resolved."""
    whole = model.model_json_schema()
    named = whole.pop("$defs", {})

    def resolved(node: Any) -> Any:
        if isinstance(node, dict):
            if "$ref" in node:
                return resolved(named[node["$ref"].rpartition("/")[2]])
            return {key: resolved(value) for key, value in node.items()}
        return [resolved(each) for each in node] if isinstance(node, list) else node

    found: dict[str, Any] = resolved(whole)
    return found


def problem_responses(*codes: int) -> Responses:
    """Return the error responses of a route for its OpenAPI documentation."""
    descriptions = {
        400: "The request cannot be parsed.",
        401: "The key is missing or invalid.",
        403: "The key lacks the scope.",
        404: "Not found.",
        413: "Too many bytes, images or pixels.",
        415: "Unsupported media type.",
        422: "The request is invalid.",
        429: "Rate limit exceeded; retry after Retry-After seconds.",
        503: "The queue is full or the store is unavailable; retry after Retry-After seconds.",
    }
    content = {"application/json": {"schema": response_schema(Problem)}}  # also where a success is not JSON
    return {code: {"content": content, "description": descriptions[code]} for code in codes}
