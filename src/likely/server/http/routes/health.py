"""Routes /health and /metrics, for operators."""

from __future__ import annotations

from fastapi import APIRouter, HTTPException, Response
from starlette.concurrency import run_in_threadpool

from likely.server.http.dependencies import ReadAccess, ServiceDep, StateDep
from likely.server.http.schemas import Responses, problem_responses
from likely.server.store import STORE_FAULTS

ROUTER = APIRouter(tags=["operations"])
TEXT: Responses = {200: {"content": {"text/plain": {}}, "description": "Prometheus text format."}}


@ROUTER.get("/health/live")
async def live() -> dict[str, str]:
    """Report that the process responds."""
    return {"status": "alive"}


@ROUTER.get("/health/ready", responses=problem_responses(503))
async def ready(service: ServiceDep) -> dict[str, str]:
    """Report that models are loaded and the store is reachable."""
    try:
        await run_in_threadpool(service.store.ping)
    except STORE_FAULTS:
        raise HTTPException(503, "the store cannot be reached", headers={"Retry-After": "5"}) from None
    return {"status": "ready"}


@ROUTER.get("/metrics", responses={**TEXT, **problem_responses(401, 403, 503)}, response_class=Response)
def metrics(state: StateDep, caller: ReadAccess) -> Response:
    """Return Prometheus metrics."""
    for model in state.service.registry.models:
        if (found := state.service.drift(model)) is not None:
            state.metrics.drift(model.id, found)
    return Response(state.metrics.text(), media_type="text/plain; version=0.0.4")
