"""Routes /v2: the open inference protocol, version 2, of KServe, Triton and others.

The input is a tensor "image": BYTES of shape [N], files in base64, or UINT8 of shape [N, H, W, C]. The outputs are the
tensors label, status, id (BYTES, [N]), p_value (FP64, [N]) and probability (FP64, [N, K]) in the order of the labels of the
metadata.
"""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

import numpy as np
from fastapi import APIRouter, Depends, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.concurrency import run_in_threadpool

from likely.data.preprocessing import to_png
from likely.prediction import Guarantee
from likely.server.http.dependencies import ClassifyAccess, ModelDep, ModelPath, ReadAccess, ServiceDep, StateDep
from likely.server.http.model_registry import LoadedModel
from likely.server.http.schemas import problem_responses, response_schema
from likely.server.http.service import ClassifyJob, StoredPrediction
from likely.server.http.uploads import Upload
from likely.version import __version__

ROUTER = APIRouter(prefix="/v2", tags=["kserve"])
INPUT = "image"
Channels = (1, 3)


class ServerInfo(BaseModel):
    """Name and version of the server."""

    name: str = "likely"
    version: str = __version__
    extensions: list[str] = []


class TensorInfo(BaseModel):
    """Input or output tensor; a length of -1 is variable."""

    name: str
    datatype: str
    shape: list[int]
    parameters: dict[str, Any] = {}


class ModelInfo(BaseModel):
    """Input and output tensors of a model."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorInfo]
    outputs: list[TensorInfo]


class ReadyResponse(BaseModel):
    """Readiness of a model."""

    name: str
    ready: bool


class InputTensor(BaseModel):
    """Tensor of images."""

    model_config = ConfigDict(extra="ignore")

    name: Literal["image"]
    datatype: Literal["BYTES", "UINT8"]
    shape: Annotated[list[Annotated[int, Field(ge=1, le=1 << 20)]], Field(min_length=1, max_length=4)]
    data: list[Any]


class InferenceRequest(BaseModel):
    """Inference request."""

    model_config = ConfigDict(extra="ignore")

    id: Annotated[str | None, Field(max_length=255)] = None
    inputs: Annotated[list[InputTensor], Field(min_length=1, max_length=1)]


class OutputTensor(BaseModel):
    """Tensor of predictions in row-major order."""

    name: str
    datatype: str
    shape: list[int]
    data: list[Any]


class InferenceResponse(BaseModel):
    """Inference response."""

    model_name: str
    model_version: str
    id: str
    outputs: list[OutputTensor]


BODY = {"required": True, "content": {"application/json": {"schema": response_schema(InferenceRequest)}}}


async def _version(service: ServiceDep, model: ModelPath, version: ModelPath) -> LoadedModel:
    """Return the model version that the path names."""
    return service.registry[f"{model}@{version}"]


_VersionDep = Annotated[LoadedModel, Depends(_version)]


@ROUTER.get("")
async def server() -> ServerInfo:
    """Return name and version of the server."""
    return ServerInfo()


@ROUTER.get("/health/live")
async def live() -> dict[str, bool]:
    """Report that the process responds."""
    return {"live": True}


@ROUTER.get("/health/ready", responses=problem_responses(503))
async def ready(service: ServiceDep) -> dict[str, bool]:
    """Report that models are loaded and the store is reachable."""
    await run_in_threadpool(service.store.ping)
    return {"ready": True}


@ROUTER.get("/models/{model}", responses=problem_responses(401, 403, 404, 422, 503))
def metadata(service: ServiceDep, caller: ReadAccess, model: ModelDep) -> ModelInfo:
    """Return the tensors of a model."""
    return _info(service, model)


@ROUTER.get("/models/{model}/versions/{version}", responses=problem_responses(401, 403, 404, 422, 503))
def metadata_of_version(service: ServiceDep, caller: ReadAccess, model: _VersionDep) -> ModelInfo:
    """Return the tensors of a model version."""
    return _info(service, model)


@ROUTER.get("/models/{model}/ready", responses=problem_responses(401, 403, 404, 422, 503))
def model_ready(caller: ReadAccess, model: ModelDep) -> ReadyResponse:
    """Report whether a model is served."""
    return ReadyResponse(name=model.name, ready=True)


@ROUTER.get("/models/{model}/versions/{version}/ready", responses=problem_responses(401, 403, 404, 422, 503))
def version_ready(caller: ReadAccess, model: _VersionDep) -> ReadyResponse:
    """Report whether a model version is served."""
    return ReadyResponse(name=model.name, ready=True)


@ROUTER.post(
    "/models/{model}/infer",
    responses=problem_responses(400, 401, 403, 404, 413, 422, 429, 503),
    openapi_extra={"requestBody": BODY},
)
async def infer(request: Request, state: StateDep, caller: ClassifyAccess, model: ModelDep) -> InferenceResponse:
    """Classify images."""
    return await _infer(request, state, caller, model)


@ROUTER.post(
    "/models/{model}/versions/{version}/infer",
    responses=problem_responses(400, 401, 403, 404, 413, 422, 429, 503),
    openapi_extra={"requestBody": BODY},
)
async def infer_with_version(
    request: Request, state: StateDep, caller: ClassifyAccess, model: _VersionDep
) -> InferenceResponse:
    """Classify images by a model version."""
    return await _infer(request, state, caller, model)


async def _infer(request: Request, state: StateDep, caller: ClassifyAccess, model: LoadedModel) -> InferenceResponse:
    body = await _read_body(request)
    service, (tensor,) = state.service, body.inputs
    n, most = tensor.shape[0], service.settings.max_images
    if n > most:
        raise HTTPException(413, f"there are {n} images; at most {most} were expected")
    state.rate_limits.take(caller.key.id, n)
    uploads = await run_in_threadpool(_uploads, tensor)
    id = request.state.request_id
    stored = await service.classify(
        uploads, ClassifyJob(model, service.settings.alpha, Guarantee.OVERALL, id, caller.key)
    )
    for each in stored:
        if each.prediction.error is not None:
            raise HTTPException(422, each.prediction.error)
    state.metrics.predictions(model.id, [each.prediction for each in stored])
    return InferenceResponse(
        model_name=model.name, model_version=model.version, id=body.id or id, outputs=_outputs(model, stored)
    )


async def _read_body(request: Request) -> InferenceRequest:
    """Read and validate the body, after authentication."""
    try:
        return await run_in_threadpool(InferenceRequest.model_validate_json, await request.body())
    except ValidationError as error:
        raise RequestValidationError(error.errors()) from None


def _uploads(tensor: InputTensor) -> list[Upload]:
    n = tensor.shape[0]
    if tensor.datatype == "BYTES":
        if len(tensor.shape) != 1 or len(tensor.data) != n:
            raise HTTPException(
                422, f"data has {len(tensor.data)} images and the shape {tensor.shape}; [N] was expected"
            )
        return [_upload(each, i) for i, each in enumerate(tensor.data)]
    shape = tensor.shape
    if len(shape) != 4 or shape[3] not in Channels:
        raise HTTPException(422, f"UINT8 has the shape {shape}; [N, H, W, C] with C = 1 or 3 was expected")
    try:
        pixels = np.array(tensor.data)
    except ValueError:
        raise HTTPException(422, "the rows of data have different lengths") from None
    if pixels.size != math.prod(shape) or pixels.dtype.kind not in "iu" or pixels.min() < 0 or pixels.max() > 255:
        raise HTTPException(422, f"the shape {shape} needs {math.prod(shape):,} integers from 0 to 255 in data")
    images = pixels.reshape(shape).astype(np.uint8).transpose(0, 3, 1, 2)
    return [Upload(f"image {i + 1}", to_png(each)) for i, each in enumerate(images)]


def _upload(data: object, i: int) -> Upload:
    upload = Upload.from_base64(f"image {i + 1}", str(data))
    if upload.fault:  # output tensors have no place for an error
        raise HTTPException(422, upload.fault)
    return upload


def _outputs(model: LoadedModel, stored: list[StoredPrediction]) -> list[OutputTensor]:
    n, place = len(stored), {label: c for c, label in enumerate(model.predictor.labels)}
    probability = np.zeros((n, len(place)))
    for i, each in enumerate(stored):
        for of_class in each.prediction.classes:
            probability[i, place[of_class.label]] = of_class.probability
    words = {name: [getattr(each.prediction, name) for each in stored] for name in ("label", "status", "p_value")}
    columns = {**words, "id": [each.id for each in stored]}
    tensors = [
        OutputTensor(name=name, datatype="FP64" if name == "p_value" else "BYTES", shape=[n], data=values)
        for name, values in columns.items()
    ]
    shape = list(probability.shape)
    return [*tensors, OutputTensor(name="probability", datatype="FP64", shape=shape, data=probability.ravel().tolist())]


def _info(service: ServiceDep, model: LoadedModel) -> ModelInfo:
    labels = list(model.predictor.labels)
    columns = (("label", "BYTES"), ("status", "BYTES"), ("p_value", "FP64"), ("id", "BYTES"))
    outputs = [TensorInfo(name=name, datatype=kind, shape=[-1]) for name, kind in columns]
    probability = TensorInfo(
        name="probability", datatype="FP64", shape=[-1, len(labels)], parameters={"labels": labels}
    )
    return ModelInfo(
        name=model.name,
        versions=[each.version for each in service.registry.models if each.name == model.name],
        platform="likely",
        inputs=[
            TensorInfo(name=INPUT, datatype="BYTES", shape=[-1]),
            TensorInfo(name=INPUT, datatype="UINT8", shape=[-1, -1, -1, -1]),
        ],
        outputs=[*outputs, probability],
    )
