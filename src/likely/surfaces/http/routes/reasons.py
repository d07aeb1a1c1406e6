"""/v1/explain and /v1/generate: why, and what a class looks like to a model."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, HTTPException, Path, Query, Request, Response
from starlette.concurrency import run_in_threadpool

from likely.classifier.explaining import Explanation
from likely.evaluation.reasons import evidence, stops
from likely.nets.scaling import to_eight_bit
from likely.surfaces.http.bodies import Drawn, ExplainAsked, Explained, Generate, Responses, SampleAsked, Stop, problems
from likely.surfaces.http.dependencies import Asker, Reader, StateHere, served
from likely.surfaces.http.fleet import Served
from likely.surfaces.http.pictures import encoded, png
from likely.surfaces.http.uploads import SCHEMA, uploads_of

ROUTER = APIRouter(prefix="/v1", tags=["reasons"])
PICTURE: Responses = {200: {"content": {"image/png": {}}, "description": "A new image of the class."}}
KEPT = {"Cache-Control": "private, max-age=86400"}


@ROUTER.post(
    "/explain", responses=problems(400, 401, 403, 404, 413, 415, 422, 429, 503), openapi_extra={"requestBody": SCHEMA}
)
async def explain(
    request: Request,
    state: StateHere,
    caller: Asker,
    wanted: Annotated[ExplainAsked, Query()],
) -> Explained:
    """Why one image is of its class and not of another: what speaks for either, and what would have to change."""
    service = state.service
    uploads = await uploads_of(request, service.settings)
    if len(uploads) > 1:
        raise HTTPException(422, f"{len(uploads)} images came; one at a time is explained")
    state.rates.take(caller.key.id, 1)
    model = served(service, wanted.model)
    return await run_in_threadpool(_explained, await service.explain(uploads[0], model, wanted.against), model)


@ROUTER.post("/generate", responses=problems(400, 401, 403, 404, 413, 422, 429, 503))
async def generate(state: StateHere, caller: Asker, body: Generate) -> Drawn:
    """New images of a class."""
    model = served(state.service, body.model)
    state.rates.take(caller.key.id, body.n)
    drawn = await state.service.draw(model, body.label, body.n, body.seed)
    return Drawn(model=model.id, label=body.label, images=[encoded(pixels) for pixels in drawn])


@ROUTER.get(
    "/models/{model}/classes/{index}/sample",
    responses={**PICTURE, **problems(401, 403, 404, 422, 429, 503)},
    response_class=Response,
)
async def sample(
    state: StateHere,
    caller: Reader,
    model: Annotated[str, Path(max_length=255)],
    index: Annotated[int, Path(ge=0, le=1_000_000)],
    wanted: Annotated[SampleAsked, Query()],
) -> Response:
    """A new image of a class, by the class's place among the model's labels."""
    service = state.service
    state.rates.take(caller.key.id, 1)
    found = served(service, model)
    if index >= len(found.classifier.labels):
        raise HTTPException(404, f"{found.name} has {len(found.classifier.labels)} classes")
    (pixels,) = await service.draw(found, found.classifier.labels[index], 1, wanted.seed)
    return Response(png(pixels), media_type="image/png", headers=KEPT)


def _explained(found: Explanation, model: Served) -> Explained:
    names = model.classifier.labels
    way = [] if found.way is None else stops(found.way)
    return Explained(
        model=model.id,
        label=names[found.label],
        against=names[found.against],
        probability=found.probability(found.label),
        probability_against=found.probability(found.against),
        lead=found.lead,
        image=encoded(to_eight_bit(found.image).numpy()),
        evidence=encoded(evidence(found.evidence, found.image)),
        way=[Stop(image=encoded(stop.image), probability=stop.probability, turns=stop.turns) for stop in way],
    )
