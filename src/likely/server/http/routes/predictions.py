"""Routes /v1/predictions and /v1/images."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated

from fastapi import APIRouter, HTTPException, Path, Query, Response
from starlette.responses import StreamingResponse

from likely.server.http.dependencies import LabelAccess, ReadAccess, ServiceDep
from likely.server.http.schemas import (
    BulkLabelRequest,
    LabelRequest,
    LabelResponse,
    PageParams,
    PredictionsResponse,
    Responses,
    problem_responses,
)
from likely.server.store import PredictionFilter, PredictionRecord
from likely.server.store.queries import Word

ROUTER = APIRouter(prefix="/v1", tags=["predictions"])
PICTURE: Responses = {200: {"content": {"image/*": {}}, "description": "The image as received."}}
Id = Annotated[Word, Path(max_length=36)]
Filter = Annotated[PredictionFilter, Query()]


@ROUTER.get("/predictions", responses=problem_responses(401, 403, 422, 503))
def predictions(
    service: ServiceDep,
    caller: ReadAccess,
    params: Annotated[PageParams, Query()],
) -> PredictionsResponse:
    """Return a page of predictions, the newest first."""
    found = service.store.predictions(params, before=params.before, limit=params.limit)
    older = found[-1].id if len(found) == params.limit else None
    return PredictionsResponse(predictions=found, before=older, counts=service.store.count(params))


@ROUTER.get(
    "/predictions/export",
    responses={
        200: {"content": {"application/jsonl": {}}, "description": "One JSON object per line."},
        **problem_responses(401, 403, 422, 503),
    },
    response_class=StreamingResponse,
)
def export(service: ServiceDep, caller: ReadAccess, selection: Filter) -> StreamingResponse:
    """Export all matching predictions as JSON lines."""
    named = {"Content-Disposition": 'attachment; filename="predictions.jsonl"'}
    return StreamingResponse(_lines(service.store.iterate(selection)), media_type="application/jsonl", headers=named)


@ROUTER.get("/predictions/{id}", responses=problem_responses(401, 403, 404, 422, 503))
def prediction(service: ServiceDep, caller: ReadAccess, id: Id) -> PredictionRecord:
    """Return a prediction."""
    found = service.store.prediction(id)
    if found is None:
        raise HTTPException(404, "there is no such prediction")
    return found


@ROUTER.post("/predictions/label", responses=problem_responses(400, 401, 403, 413, 422, 503))
def label_many(service: ServiceDep, caller: LabelAccess, body: BulkLabelRequest) -> LabelResponse:
    """Assign a label to several predictions, or withdraw it."""
    known = service.store.label(body.ids, body.label, caller.key.id)
    _audit(service, caller, f"{len(known)} predictions: {body.label!r}")
    return LabelResponse(ids=known)


@ROUTER.post("/predictions/{id}/label", responses=problem_responses(400, 401, 403, 404, 413, 422, 503))
def label(service: ServiceDep, caller: LabelAccess, id: Id, body: LabelRequest) -> LabelResponse:
    """Assign a label to a prediction, or withdraw it."""
    known = service.store.label([id], body.label, caller.key.id)
    if not known:
        raise HTTPException(404, "there is no such prediction")
    _audit(service, caller, f"{id}: {body.label!r}")
    return LabelResponse(ids=known)


@ROUTER.get(
    "/images/{sha256}",
    responses={**PICTURE, **problem_responses(401, 403, 404, 422, 503)},
    response_class=Response,
)
def image(service: ServiceDep, caller: ReadAccess, sha256: Annotated[str, Path(max_length=64)]) -> Response:
    """Return an image as received."""
    found = service.store.image(sha256) if re.fullmatch(r"[0-9a-f]{64}", sha256) else None
    if found is None:
        raise HTTPException(404, "there is no such image")
    headers = {"Cache-Control": "private, max-age=31536000, immutable"}  # the content of a hash never changes
    return Response(found.content, media_type=found.media_type, headers=headers)


def _lines(found: Iterator[PredictionRecord]) -> Iterator[str]:
    for each in found:
        yield each.model_dump_json() + "\n"


def _audit(service: ServiceDep, caller: LabelAccess, subject: str) -> None:
    service.store.audit("label", subject, key=caller.key.id, address=caller.address)
