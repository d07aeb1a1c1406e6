"""Routes /v1/models and /v1/classify."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from starlette.concurrency import run_in_threadpool

from likely.server.http.auth import Principal
from likely.server.http.dependencies import (
    TAKES_UPLOADS,
    AdminAccess,
    ClassifyAccess,
    ModelDep,
    ReadAccess,
    ServiceDep,
    StateDep,
    Uploads,
)
from likely.server.http.model_registry import LoadedModel
from likely.server.http.schemas import (
    ClassEmbedding,
    ClassesResponse,
    ClassifyParams,
    ClassifyResponse,
    ClassInfo,
    DriftInfo,
    ModelInfo,
    ModelsResponse,
    NewClassParams,
    PredictionOut,
    ProjectionResponse,
    problem_responses,
)
from likely.server.http.service import ClassifyJob, Service, StoredPrediction
from likely.server.store import ClassStats

ROUTER = APIRouter(prefix="/v1", tags=["models"])


@ROUTER.get("/models", responses=problem_responses(401, 403, 503))
def models(service: ServiceDep, caller: ReadAccess) -> ModelsResponse:
    """List the models that are served."""
    newest: dict[str, list[LoadedModel]] = {}
    for each in service.registry.models:
        newest.setdefault(each.name, []).append(each)
    return ModelsResponse(models=[_model_info(versions) for versions in newest.values()])


@ROUTER.post("/classify", response_model=ClassifyResponse, **TAKES_UPLOADS)
async def classify(
    request: Request,
    state: StateDep,
    caller: ClassifyAccess,
    uploads: Uploads,
    params: Annotated[ClassifyParams, Query()],
) -> Response:
    """Classify images, or report that they are unknown. Every prediction is stored before it is returned."""
    service = state.service
    alpha = params.alpha or service.settings.alpha
    job = ClassifyJob(service.registry[params.model], alpha, params.guarantee, request.state.request_id, caller.key)
    stored = await service.classify(uploads, job)
    state.metrics.predictions(job.model.id, [each.prediction for each in stored])
    predictions = [_prediction_out(each, params.top_k) for each in stored]
    response = ClassifyResponse(model=job.model.id, request=job.request, predictions=predictions)
    return Response(response.model_dump_json(), media_type="application/json")  # FastAPI would validate it again


@ROUTER.get("/models/{model}/drift", responses=problem_responses(401, 403, 404, 422, 503))
def model_drift(service: ServiceDep, caller: ReadAccess, model: ModelDep) -> DriftInfo:
    """Compare the p-values of recent images with those of validation images."""
    drift = service.drift(model)
    if drift is None:
        return DriftInfo(model=model.id)
    return DriftInfo(model=model.id, drifted=drift.has_drifted, **asdict(drift))


@ROUTER.get("/models/{model}/classes", responses=problem_responses(401, 403, 404, 422, 503))
def classes(service: ServiceDep, caller: ReadAccess, model: ModelDep) -> ClassesResponse:
    """List the classes with their training images, predictions of all versions, and how often people agreed."""
    stats = service.store.class_stats(model.name)
    shown = [
        ClassInfo(**dict(stats.get(label, ClassStats(label=label))), n_training=model.n_training.get(label))
        for label in model.predictor.labels
    ]
    return ClassesResponse(model=model.id, classes=shown)


@ROUTER.get("/models/{model}/map", responses=problem_responses(401, 403, 404, 422, 503))
def class_map(caller: ReadAccess, model: ModelDep) -> ProjectionResponse:
    """Return the 2-D projection of the classes; predictions contain that of images."""
    places = [] if model.projection is None else model.class_embeddings.tolist()
    named = zip(model.predictor.labels, places, strict=False)
    return ProjectionResponse(
        model=model.id, classes=[ClassEmbedding(label=label, x=x, y=y) for label, (x, y) in named]
    )


@ROUTER.post("/models/{model}/classes", status_code=201, **TAKES_UPLOADS)
async def add_class(
    service: ServiceDep,
    caller: AdminAccess,
    uploads: Uploads,
    model: ModelDep,
    params: Annotated[NewClassParams, Query()],
) -> ModelInfo:
    """Add a class from uploaded images, or further images of one that the model has.

    The new version makes predictions from now on.
    """
    new = await service.extend(model, params.label, uploads)
    subject = f"{new.id} from {model.id}: {params.label!r} of {len(uploads)} images"
    await run_in_threadpool(service.store.audit, "class added", subject, key=caller.key.id, address=caller.address)
    return _model_info([each for each in service.registry.models if each.name == new.name])


@ROUTER.post("/models/{model}/reload", responses=problem_responses(401, 403, 404, 413, 422, 503))
def reload(service: ServiceDep, caller: AdminAccess, model: ModelDep) -> ModelInfo:
    """Load a model's folder again. Requests in flight finish with their version, and classes that were added here stay."""
    return _replace(service, caller, model, "model reloaded", service.reload)


@ROUTER.post("/models/{model}/rollback", responses=problem_responses(401, 403, 404, 413, 422, 503))
def rollback(service: ServiceDep, caller: AdminAccess, model: ModelDep) -> ModelInfo:
    """Return to the version before the last class was added here."""
    return _replace(service, caller, model, "model rolled back", service.rollback)


def _replace(
    service: Service, caller: Principal, old: LoadedModel, action: str, change: Callable[[str], LoadedModel]
) -> ModelInfo:
    """Change the version of a model that is served, and record it in the audit log."""
    new = change(old.name)
    service.store.audit(action, f"{new.id}, after {old.id}", key=caller.key.id, address=caller.address)
    return _model_info([each for each in service.registry.models if each.name == new.name])


def _prediction_out(stored: StoredPrediction, top_k: int | None) -> PredictionOut:
    return PredictionOut(
        id=stored.id, **stored.prediction.model_copy(update={"classes": stored.prediction.classes[:top_k]}).model_dump()
    )


def _model_info(versions: list[LoadedModel]) -> ModelInfo:
    last = versions[-1]
    return ModelInfo(
        name=last.name,
        version=last.version,
        versions=[each.version for each in versions],
        family=last.predictor.family,
        labels=list(last.predictor.labels),
        size=[last.format.height, last.format.width],
        channels=last.format.channels,
    )
