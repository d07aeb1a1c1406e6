"""What routes ask for: the service, who calls, and leave to do something."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, HTTPException, Request

from likely.surfaces.http.access import Caller, Known, Rates, caller_of, require
from likely.surfaces.http.fleet import Served, UnknownModelError
from likely.surfaces.http.metrics import Metrics
from likely.surfaces.http.service import Service
from likely.surfaces.store import Scope


@dataclass(frozen=True)
class State:
    """What an application holds."""

    service: Service
    metrics: Metrics
    rates: Rates
    log_ins: Rates  # by address
    known: Known


# Coroutines, though they wait for nothing: what is none is called in a thread of its own, which costs more than the rest.
async def state_of(request: Request) -> State:
    """The application's."""
    state: State = request.app.state.likely
    return state


async def service_of(request: Request) -> Service:
    """The application's."""
    return (await state_of(request)).service


def needs(scope: Scope) -> Callable[[Request], Caller]:
    """Whoever asks has to have a key for that."""

    async def caller(request: Request) -> Caller:
        found = await caller_of((await state_of(request)).known, request)
        request.state.key = found.key.id
        require(found, scope)
        return found

    return caller  # type: ignore[return-value]  # FastAPI awaits it


def address_of(request: Request) -> str:
    """Where a request comes from."""
    return request.client.host if request.client is not None else ""


def served(service: Service, id: str | None) -> Served:
    """A model by its name; an HTTPException of 404 names the nearest."""
    try:
        return service.fleet[id]
    except UnknownModelError as error:
        raise HTTPException(404, str(error)) from None


ServiceHere = Annotated[Service, Depends(service_of)]
StateHere = Annotated[State, Depends(state_of)]
Reader = Annotated[Caller, Depends(needs(Scope.READ))]
Asker = Annotated[Caller, Depends(needs(Scope.CLASSIFY))]
Labeller = Annotated[Caller, Depends(needs(Scope.LABEL))]
Admin = Annotated[Caller, Depends(needs(Scope.ADMIN))]
