"""Routes /v1/explain and /v1/generate."""

from __future__ import annotations

import base64
from typing import Annotated

from fastapi import APIRouter, HTTPException, Path, Query, Response
from starlette.concurrency import run_in_threadpool

from likely.base import to_eight_bit
from likely.classifier.explanation import Explanation
from likely.data.decoding import Array
from likely.data.preprocessing import to_png
from likely.reporting.images.explanation import attribution_image, frames
from likely.server.http.dependencies import (
    TAKES_UPLOADS,
    ClassifyAccess,
    ModelDep,
    ReadAccess,
    ServiceDep,
    StateDep,
    Uploads,
)
from likely.server.http.model_registry import LoadedModel
from likely.server.http.schemas import (
    ExplainParams,
    ExplainResponse,
    GenerateRequest,
    GenerateResponse,
    PathFrame,
    Responses,
    SampleParams,
    problem_responses,
)

ROUTER = APIRouter(prefix="/v1", tags=["reasons"])
PICTURE: Responses = {200: {"content": {"image/png": {}}, "description": "A new image of the class."}}
CACHED = {"Cache-Control": "private, max-age=86400"}


@ROUTER.post("/explain", **TAKES_UPLOADS)
async def explain(
    service: ServiceDep, caller: ClassifyAccess, uploads: Uploads, params: Annotated[ExplainParams, Query()]
) -> ExplainResponse:
    """Explain the class of an image against another one: attribution map and counterfactual path."""
    if len(uploads) > 1:
        raise HTTPException(422, f"{len(uploads)} images were uploaded; one was expected")
    model = service.registry[params.model]
    return await run_in_threadpool(_response, await service.explain(uploads[0], model, params.against), model)


@ROUTER.post("/generate", responses=problem_responses(400, 401, 403, 404, 413, 422, 429, 503))
async def generate(state: StateDep, caller: ClassifyAccess, body: GenerateRequest) -> GenerateResponse:
    """Generate images of a class."""
    model = state.service.registry[body.model]
    state.rate_limits.take(caller.key.id, body.n)
    images = await state.service.generate(model, body.label, body.n, body.seed)
    return GenerateResponse(model=model.id, label=body.label, images=[_base64_png(pixels) for pixels in images])


@ROUTER.get(
    "/models/{model}/classes/{index}/sample",
    responses={**PICTURE, **problem_responses(401, 403, 404, 422, 429, 503)},
    response_class=Response,
)
async def sample(
    state: StateDep,
    caller: ReadAccess,
    model: ModelDep,
    index: Annotated[int, Path(ge=0, le=1_000_000)],
    params: Annotated[SampleParams, Query()],
) -> Response:
    """Return a generated image of a class, by the index of the class."""
    state.rate_limits.take(caller.key.id, 1)
    labels = model.predictor.labels
    if index >= len(labels):
        raise HTTPException(404, f"{model.name} has {len(labels)} classes")
    (pixels,) = await state.service.generate(model, labels[index], 1, params.seed)
    return Response(to_png(pixels), media_type="image/png", headers=CACHED)


def _response(found: Explanation, model: LoadedModel) -> ExplainResponse:
    names = model.predictor.labels
    path = [] if found.counterfactual_path is None else frames(found.counterfactual_path)
    return ExplainResponse(
        model=model.id,
        label=names[found.label],
        against=names[found.against],
        probability=found.probability(found.label),
        probability_against=found.probability(found.against),
        log_odds=found.log_odds,
        image=_base64_png(to_eight_bit(found.image).numpy()),
        attribution=_base64_png(attribution_image(found.attribution, found.image)),
        counterfactual_path=[
            PathFrame(image=_base64_png(stop.image), probability=stop.probability, flips=stop.flips) for stop in path
        ],
    )


def _base64_png(pixels: Array) -> str:
    return base64.b64encode(to_png(pixels)).decode("ascii")
