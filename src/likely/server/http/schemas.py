"""What goes over the wire beside Answer: requests and responses, as pydantic models that the documentation is made of."""

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
    """What went wrong, in a sentence."""

    detail: str


class PredictionOut(Prediction):
    """An answer, and under what id it can be found again."""

    id: Annotated[str | None, Field(description="null for an image that could not be read.")]


class ClassifyResponse(BaseModel):
    """The answers to all images of a request, in their order."""

    model: str
    request: str
    predictions: list[PredictionOut]


class ModelInfo(BaseModel):
    """A model that is served; `versions` are loaded, the last of them answers."""

    name: str
    version: str
    versions: list[str]
    family: str
    labels: list[str]
    size: Annotated[list[int], Field(description="Height and width that images are brought to.")]
    channels: int


class ModelsResponse(BaseModel):
    """All that are served."""

    models: list[ModelInfo]


class PathFrame(BaseModel):
    """An image on the way to another class."""

    image: Annotated[str, Field(description="PNG in base64.")]
    probability: Annotated[float, Field(description="That of the other class, as the model sees this image.")]
    flips: Annotated[bool, Field(description="Whether this is the first that the model takes for the other class.")]


class ExplainResponse(BaseModel):
    """Why an image is of a class and not of another. Pictures are PNG in base64."""

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
    """What is to be drawn."""

    model_config = ConfigDict(extra="forbid")

    label: Annotated[str, Field(max_length=255)]
    model: Annotated[str | None, Field(max_length=255)] = None
    n: Annotated[int, Field(ge=1, le=64)] = 1
    seed: Annotated[int, Field(ge=0, lt=1 << 31)] = 0


class GenerateResponse(BaseModel):
    """New images of a class, PNG in base64 each."""

    model: str
    label: str
    images: list[str]


class DriftInfo(BaseModel):
    """The images of late beside those of validation; all null if one of the two is not known."""

    model: str
    drifted: Annotated[
        bool | None,
        Field(description="Whether a difference is sure, and large enough to matter; null of too few images of late."),
    ] = None
    difference: Annotated[float | None, Field(description="The largest, between the shares below a p-value.")] = None
    p_value: Annotated[float | None, Field(description="How often it is as large where nothing has drifted.")] = None
    n: Annotated[int | None, Field(description="Images of late.")] = None


class ClassInfo(ClassStats):
    """A class of a model."""

    n_training: Annotated[
        int | None, Field(description="Images that it was learned from; null if nobody wrote that down.")
    ]


class ClassesResponse(BaseModel):
    """All classes of a model, in its order."""

    model: str
    classes: list[ClassInfo]


class ClassEmbedding(BaseModel):
    """A class on a model's map."""

    label: str
    x: float
    y: float


class ProjectionResponse(BaseModel):
    """A model's map; without classes if the model has no space that they lie in."""

    model: str
    classes: list[ClassEmbedding]


class PageParams(PredictionFilter):
    """A filter of predictions, and which page of what it lets through."""

    before: Annotated[Word | None, Field(max_length=36, description="Those older than this one.")] = None
    limit: Annotated[int, Field(ge=1, le=MOST)] = 50


class PredictionsResponse(BaseModel):
    """Predictions, the newest first; `before` asks for the next page, null on the last."""

    predictions: list[PredictionRecord]
    before: str | None
    counts: Annotated[dict[str, int], Field(description="How many there are in all, by status.")]


class UploadParams(BaseModel):
    """What goes in the address of a request that brings images."""

    model_config = ConfigDict(extra="forbid")

    name: Annotated[
        str | None, Field(description="Of an image whose bytes are the body; forms and JSON name theirs.")
    ] = None


class ModelParams(UploadParams):
    """Which model is meant."""

    model: Annotated[
        str | None, Field(max_length=255, description='"name" or "name@version"; the first model if left out.')
    ] = None


class ClassifyParams(ModelParams):
    """How images are to be answered."""

    alpha: Annotated[
        float | None, Field(gt=0, lt=1, description="Share of known images that may be called unknown.")
    ] = None
    top_k: Annotated[int | None, Field(ge=1, description="Name so many classes an image.")] = None


class ExplainParams(ModelParams):
    """What an image's class is to be compared with."""

    against: Annotated[str | None, Field(max_length=255, description="A class; the runner-up if left out.")] = None


class SampleParams(BaseModel):
    """Which of all images of a class is drawn."""

    model_config = ConfigDict(extra="forbid")

    seed: Annotated[int, Field(ge=0, lt=1 << 31)] = 0


class NewClassParams(UploadParams):
    """What a new class is to be called."""

    label: Annotated[Word, Field(min_length=1, max_length=255, description="The new class's name.")]


class LabelRequest(BaseModel):
    """What images show; null takes back what was said."""

    model_config = ConfigDict(extra="forbid")

    label: Annotated[Word | None, Field(min_length=1, max_length=255)]


class BulkLabelRequest(LabelRequest):
    """The same of many."""

    ids: Annotated[list[Annotated[Word, Field(max_length=36)]], Field(min_length=1, max_length=MOST_IDS)]


class LabelResponse(BaseModel):
    """Which predictions there were to label."""

    ids: list[str]


class LoginRequest(BaseModel):
    """A key, for which a browser gets a cookie."""

    model_config = ConfigDict(extra="forbid")

    key: Annotated[str, Field(max_length=255)]


class SessionInfo(BaseModel):
    """Who asks, and what a browser says beside its cookie when it wants something changed."""

    key: str
    name: str
    scopes: list[Scope]
    csrf: str | None


class KeyInfo(BaseModel):
    """A key, without its secret."""

    id: str
    name: str
    scopes: list[Scope]
    created: datetime
    expires: datetime | None
    revoked: datetime | None


class NewKeyRequest(BaseModel):
    """What a key is for."""

    model_config = ConfigDict(extra="forbid")

    name: Annotated[Word, Field(min_length=1, max_length=255)]
    scopes: Annotated[list[Scope], Field(min_length=1)]
    days: Annotated[float | None, Field(gt=0, le=36500, description="Until it expires; null: never.")] = None


class NewKeyResponse(KeyInfo):
    """A new key with its secret, which is shown this once."""

    secret: str


def response_schema(model: type[BaseModel]) -> dict[str, Any]:
    """A model's JSON schema with all that it refers to in its place, for where FastAPI does not write it."""
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
    """The responses of a route that are none of success."""
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
