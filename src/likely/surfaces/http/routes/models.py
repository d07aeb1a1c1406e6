"""/v1/models and /v1/classify."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request

from likely.surfaces.http.bodies import Classified, Given, Models, ModelShown, problems
from likely.surfaces.http.dependencies import Asker, Reader, ServiceHere, StateHere, served
from likely.surfaces.http.fleet import Served
from likely.surfaces.http.service import Asked, Kept
from likely.surfaces.http.uploads import SCHEMA, uploads_of

ROUTER = APIRouter(prefix="/v1", tags=["models"])
Name = Annotated[
    str | None, Query(max_length=255, description='"name" or "name@version"; the first model if left out.')
]


@ROUTER.get("/models", responses=problems(401, 403, 503))
def models(service: ServiceHere, caller: Reader) -> Models:
    """The models that are served."""
    newest: dict[str, list[Served]] = {}
    for each in service.fleet.models:
        newest.setdefault(each.name, []).append(each)
    return Models(models=[_shown(versions) for versions in newest.values()])


@ROUTER.post(
    "/classify", responses=problems(400, 401, 403, 404, 413, 415, 422, 429, 503), openapi_extra={"requestBody": SCHEMA}
)
async def classify(
    request: Request,
    state: StateHere,
    caller: Asker,
    model: Name = None,
    alpha: Annotated[
        float | None, Query(gt=0, lt=1, description="Share of known images that may be called unknown.")
    ] = None,
    top_k: Annotated[int | None, Query(ge=1, description="Name so many classes an image.")] = None,
) -> Classified:
    """Say what images show, or that they show nothing known. What is answered is in the store."""
    service = state.service
    uploads = await uploads_of(request, service.settings)
    state.rates.take(caller.key.id, len(uploads))
    asked = Asked(served(service, model), alpha or service.settings.alpha, request.state.request_id, caller.key)
    kept = await service.classify(uploads, asked)
    state.metrics.answered(asked.model.id, [each.answer for each in kept])
    answers = [
        Given(id=each.id, **each.answer.model_copy(update={"classes": each.answer.classes[:top_k]}).model_dump())
        for each in kept
    ]
    return Classified(model=asked.model.id, request=asked.request, answers=answers)


def _given(kept: Kept, top_k: int | None) -> Given:
    return Given(id=kept.id, **kept.answer.model_copy(update={"classes": kept.answer.classes[:top_k]}).model_dump())


def _shown(versions: list[Served]) -> ModelShown:
    last = versions[-1]
    return ModelShown(
        name=last.name,
        version=last.version,
        versions=[each.version for each in versions],
        family=last.classifier.family,
        labels=list(last.classifier.labels),
        size=[last.format.height, last.format.width],
        channels=last.format.channels,
    )
