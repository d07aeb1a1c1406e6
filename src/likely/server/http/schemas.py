"""Request and response schemas, from which the OpenAPI documentation is generated."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

from likely.prediction import Prediction
from likely.server.store import ClassStats, PredictionFilter, PredictionRecord, Scope
from likely.server.store.queries import MOST, Word

Responses: TypeAlias = dict[int | str, dict[str, Any]]
MOST_IDS = 10_000  # predictions that are labeled together


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
    size: Annotated[list[int], Field(description="Height and width that images are brought to.")]
    channels: int


class ModelsResponse(BaseModel):
    """All models that are served."""

    models: list[ModelInfo]


class PathFrame(BaseModel):
    """Image on the path to another class."""

    image: Annotated[str, Field(description="PNG in base64.")]
    probability: Annotated[float, Field(description="That of the other class, as the model sees this image.")]
    flips: Annotated[bool, Field(description="Whether this is the first that the model takes for the other class.")]


class ExplainResponse(BaseModel):
    """Explanation of a class against another one; images are PNG in base64."""

    model: str
    label: str
    against: str
    probability: float
    probability_against: float
    log_odds: Annotated[float, Field(description="log p(x | label) − log p(x | against), nats.")]
    image: Annotated[str, Field(description="As the model sees it.")]
    attribution: Annotated[str, Field(description="Orange speaks for the label, blue for the other class.")]
    counterfactual_path: Annotated[
        list[PathFrame], Field(description="What would have to change; empty if the model has no such way.")
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
        Field(description="Whether a difference is sure, and large enough to matter; null of too few images of late."),
    ] = None
    difference: Annotated[float | None, Field(description="The largest, between the shares below a p-value.")] = None
    p_value: Annotated[float | None, Field(description="How often it is as large where nothing has drifted.")] = None
    n: Annotated[int | None, Field(description="Images of late.")] = None


class ClassInfo(ClassStats):
    """Class of a model with its statistics."""

    n_training: Annotated[
        int | None, Field(description="Images that it was learned from; null if nobody wrote that down.")
    ]


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

    before: Annotated[Word | None, Field(max_length=36, description="Those older than this one.")] = None
    limit: Annotated[int, Field(ge=1, le=MOST)] = 50


class PredictionsResponse(BaseModel):
    """Predictions, the newest first; pass `before` to get the next page, null on the last."""

    predictions: list[PredictionRecord]
    before: str | None
    counts: Annotated[dict[str, int], Field(description="How many there are in all, by status.")]


class UploadParams(BaseModel):
    """Query parameters of a request that uploads images."""

    model_config = ConfigDict(extra="forbid")

    name: Annotated[
        str | None, Field(description="Of an image whose bytes are the body; forms and JSON name theirs.")
    ] = None


class ModelParams(UploadParams):
    """Selection of a model."""

    model: Annotated[
        str | None, Field(max_length=255, description='"name" or "name@version"; the first model if left out.')
    ] = None


class ClassifyParams(ModelParams):
    """Parameters of classification."""

    alpha: Annotated[
        float | None, Field(gt=0, lt=1, description="Share of known images that may be called unknown.")
    ] = None
    top_k: Annotated[int | None, Field(ge=1, description="Name so many classes an image.")] = None


class ExplainParams(ModelParams):
    """Parameters of an explanation."""

    against: Annotated[str | None, Field(max_length=255, description="A class; the runner-up if left out.")] = None


class SampleParams(BaseModel):
    """Parameters of a generated image."""

    model_config = ConfigDict(extra="forbid")

    seed: Annotated[int, Field(ge=0, lt=1 << 31)] = 0


class NewClassParams(UploadParams):
    """Parameters of a new class."""

    label: Annotated[Word, Field(min_length=1, max_length=255, description="The new class's name.")]


class LabelRequest(BaseModel):
    """Label of an image; null withdraws it."""

    model_config = ConfigDict(extra="forbid")

    label: Annotated[Word | None, Field(min_length=1, max_length=255)]


class BulkLabelRequest(LabelRequest):
    """Label of several images."""

    ids: Annotated[list[Annotated[Word, Field(max_length=36)]], Field(min_length=1, max_length=MOST_IDS)]


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
    days: Annotated[float | None, Field(gt=0, le=36500, description="Until it expires; null: never.")] = None


class NewKeyResponse(KeyInfo):
    """New API key with its secret, which is shown only once."""

    secret: str


def response_schema(model: type[BaseModel]) -> dict[str, Any]:
    """Return a model's JSON schema with all references resolved."""
    whole = model.model_json_schema()
    named = whole.pop("$defs", {})

    def resolved(part: Any) -> Any:
        if isinstance(part, dict):
            if "$ref" in part:
                return resolved(named[part["$ref"].rpartition("/")[2]])
            return {key: resolved(value) for key, value in part.items()}
        return [resolved(each) for each in part] if isinstance(part, list) else part

    found: dict[str, Any] = resolved(whole)
    return found


def problem_responses(*codes: int) -> Responses:
    """Return the error responses of a route for its OpenAPI documentation."""
    told = {
        400: "The request cannot be read.",
        401: "No key, or one that opens nothing.",
        403: "The key is not for this.",
        404: "There is no such thing.",
        413: "Too many bytes, images or pixels.",
        415: "Of a kind that is not understood.",
        422: "What was sent is not what was expected.",
        429: "More than the key may ask for; come again after Retry-After.",
        503: "Too many wait, or the store cannot be written; come again after Retry-After.",
    }
    content = {"application/json": {"schema": response_schema(Problem)}}  # whatever a success is made of
    return {code: {"content": content, "description": told[code]} for code in codes}
