"""/v1/models and /v1/classify."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

from fastapi import APIRouter, Path, Query, Request, Response
from starlette.concurrency import run_in_threadpool

from likely.surfaces.http.bodies import (
    ClassAsked,
    Classes,
    Classified,
    ClassifyAsked,
    ClassMap,
    ClassShown,
    DriftShown,
    Given,
    Models,
    ModelShown,
    PlacedClass,
    problems,
)
from likely.surfaces.http.dependencies import Admin, Asker, Reader, ServiceHere, StateHere, address_of, served
from likely.surfaces.http.fleet import Served
from likely.surfaces.http.service import Asked, Kept
from likely.surfaces.http.uploads import SCHEMA, uploads_of
from likely.surfaces.store import ClassFigures

ROUTER = APIRouter(prefix="/v1", tags=["models"])
ModelPath = Annotated[str, Path(max_length=255)]


@ROUTER.get("/models", responses=problems(401, 403, 503))
def models(service: ServiceHere, caller: Reader) -> Models:
    """The models that are served."""
    newest: dict[str, list[Served]] = {}
    for each in service.fleet.models:
        newest.setdefault(each.name, []).append(each)
    return Models(models=[_shown(versions) for versions in newest.values()])


@ROUTER.post(
    "/classify",
    response_model=Classified,
    responses=problems(400, 401, 403, 404, 413, 415, 422, 429, 503),
    openapi_extra={"requestBody": SCHEMA},
)
async def classify(
    request: Request,
    state: StateHere,
    caller: Asker,
    wanted: Annotated[ClassifyAsked, Query()],
) -> Response:
    """Say what images show, or that they show nothing known. What is answered is in the store."""
    service = state.service
    uploads = await uploads_of(request, service.settings)
    state.rates.take(caller.key.id, len(uploads))
    alpha = wanted.alpha or service.settings.alpha
    asked = Asked(served(service, wanted.model), alpha, request.state.request_id, caller.key)
    kept = await service.classify(uploads, asked)
    state.metrics.answered(asked.model.id, [each.answer for each in kept])
    answers = [_given(each, wanted.top_k) for each in kept]
    told = Classified(model=asked.model.id, request=asked.request, answers=answers)
    return Response(told.model_dump_json(), media_type="application/json")  # as it is, not looked at once more


@ROUTER.get("/models/{model}/drift", responses=problems(401, 403, 404, 422, 503))
def model_drift(service: ServiceHere, caller: Reader, model: ModelPath) -> DriftShown:
    """Whether the images of late are like those that the model was validated on, by how typical it finds them."""
    found = served(service, model)
    told = service.drift(found)
    if told is None:
        return DriftShown(model=found.id)
    return DriftShown(model=found.id, drifted=told.has_drifted, **asdict(told))


@ROUTER.get("/models/{model}/classes", responses=problems(401, 403, 404, 422, 503))
def classes(service: ServiceHere, caller: Reader, model: ModelPath) -> Classes:
    """What each class was learned from, how often it was answered by any version, and how often people found that right."""
    found = served(service, model)
    figures = service.store.class_figures(found.name)
    shown = [
        ClassShown(**dict(figures.get(label, ClassFigures(label=label))), n_learned=found.n_learned.get(label))
        for label in found.classifier.labels
    ]
    return Classes(model=found.id, classes=shown)


@ROUTER.get("/models/{model}/map", responses=problems(401, 403, 404, 422, 503))
def class_map(service: ServiceHere, caller: Reader, model: ModelPath) -> ClassMap:
    """Where classes are on the model's map; predictions say where images are."""
    found = served(service, model)
    places = [] if found.plane is None else found.class_places.tolist()
    named = zip(found.classifier.labels, places, strict=False)
    return ClassMap(model=found.id, classes=[PlacedClass(label=label, x=x, y=y) for label, (x, y) in named])


@ROUTER.post(
    "/models/{model}/classes",
    status_code=201,
    responses=problems(400, 401, 403, 404, 413, 415, 422, 429, 503),
    openapi_extra={"requestBody": SCHEMA},
)
async def add_class(
    request: Request,
    state: StateHere,
    caller: Admin,
    model: ModelPath,
    wanted: Annotated[ClassAsked, Query()],
) -> ModelShown:
    """Teach a model a class more from images of it. The version that knows it answers from now on."""
    service = state.service
    uploads = await uploads_of(request, service.settings)
    state.rates.take(caller.key.id, len(uploads))
    old = served(service, model)
    new = await service.extend(old, wanted.label, uploads)
    subject = f"{new.id} from {old.id}: {wanted.label!r} of {len(uploads)} images"
    await run_in_threadpool(service.store.note, "class added", subject, key=caller.key.id, address=address_of(request))
    return _shown([each for each in service.fleet.models if each.name == new.name])


@ROUTER.post("/models/{model}/reload", responses=problems(401, 403, 404, 413, 422, 503))
def reload(request: Request, service: ServiceHere, caller: Admin, model: ModelPath) -> ModelShown:
    """Read a model's folder, that the service was started with, again. Requests under way are answered by the version asked.
    Classes that were added here are set aside."""
    old = served(service, model)
    new = service.reload(old.name)
    service.store.note("model loaded", f"{new.id}, after {old.id}", key=caller.key.id, address=address_of(request))
    return _shown([each for each in service.fleet.models if each.name == new.name])


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
